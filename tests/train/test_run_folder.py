from __future__ import annotations

import json
import os
import stat

import pytest

from numpyvit.train import Progress, RunConfig, RunFolder, next_folder, recipe

CONFIG = RunConfig(
    data="some/pictures",
    data_dir="there",
    model="vit_tiny_patch16_224",
    recipe_name="tutorial",
    recipe=recipe("tutorial", lr=1 / 3, epochs=7),
    seed=12,
    validation_split=100,
)


def test_a_configuration_comes_back_as_it_was_written(tmp_path):
    folder = RunFolder(tmp_path / "deep" / "run")
    folder.create(CONFIG)
    assert folder.config() == CONFIG
    assert RunConfig.from_dict(json.loads(json.dumps(RunConfig().to_dict()))) == RunConfig()


def test_the_configuration_is_readable_json(tmp_path):
    folder = RunFolder(str(tmp_path))
    folder.create(CONFIG)
    fields = json.loads((tmp_path / "config.json").read_text())
    assert fields["model"] == "vit_tiny_patch16_224"
    assert fields["recipe"]["lr"] == 1 / 3
    assert (tmp_path / "config.json").read_text().endswith("}\n")
    if os.name == "posix":
        mask = os.umask(0)
        os.umask(mask)
        assert stat.S_IMODE((tmp_path / "config.json").stat().st_mode) == 0o666 & ~mask


def test_a_folder_that_holds_a_run_is_refused_with_two_ways_out(tmp_path):
    RunFolder(tmp_path).create(CONFIG)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(FileExistsError, match=r"^\[RunFolder\] .*--resume .*another --out"):
        RunFolder(tmp_path).create(RunConfig())
    assert (tmp_path / "config.json").read_bytes() == before


@pytest.mark.parametrize("name", ["last.npz", "best.npz", "metrics.jsonl"])
def test_a_folder_with_a_part_of_a_run_is_refused(name, tmp_path):
    (tmp_path / name).write_text("of another run")
    with pytest.raises(FileExistsError, match=rf"holds {name} of another run; give another --out"):
        RunFolder(tmp_path).create(CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_folder_with_other_files_may_be_used(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    RunFolder(tmp_path).create(CONFIG)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "notes.txt"]


def test_a_file_in_the_way_is_an_error_with_its_name(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(OSError, match="run"):
        RunFolder(tmp_path / "run").create(CONFIG)


def test_without_a_configuration_there_is_no_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json, found none in .*nowhere"):
        RunFolder(tmp_path / "nowhere").config()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json",
        "[]",
        "{}",
        '"text"',
        '{"recipe": {"lr": -1}}',
        '{"recipe": {"unknown": 1}}',
        '{"recipe": {}, "unknown": 1}',
        '{"recipe": 3}',
        '{"recipe": {"lr": "fast"}}',
        '{"recipe": {"epochs": 2.5}}',
        '{"recipe": {}, "seed": "1"}',
        '{"recipe": {}, "data": 5}',
        '{"recipe": {}, "data_dir": 5}',
        "\udcff",
    ],
)
def test_a_configuration_of_another_kind_is_one_clear_error(text, tmp_path):
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=r"^\[RunFolder\] expected a configuration .*config\.json"):
        RunFolder(tmp_path).config()


def test_rows_are_added_and_read_in_their_order(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.rows() == []
    rows = [{"epoch": epoch, "train_loss": 1 / epoch} for epoch in (1, 2, 3)]
    for row in rows:
        folder.append(row)
    assert folder.rows() == rows
    folder.keep_rows(2)
    assert folder.rows() == rows[:2]
    folder.append(rows[2])
    assert folder.rows() == rows


def test_keeping_all_rows_leaves_the_file_as_it_was(tmp_path):
    folder = RunFolder(tmp_path)
    for epoch in (1, 2):
        folder.append({"epoch": epoch, "train_loss": 0.1 + 0.2})
    before = folder.metrics_file.read_bytes()
    folder.keep_rows(2)
    assert folder.metrics_file.read_bytes() == before


@pytest.mark.parametrize("line", ["\x00\x00", "", "{", "[1]", "3", '{"step": 3}', '{"epoch": "x"}'])
def test_a_damaged_line_among_the_metrics_is_one_clear_error(line, tmp_path):
    (tmp_path / "metrics.jsonl").write_text(f'{{"epoch": 1}}\n{line}\n{{"epoch": 2}}\n')
    with pytest.raises(ValueError, match=r"^\[RunFolder\] .*metrics\.jsonl has others"):
        RunFolder(tmp_path).rows()


def test_only_unfinished_files_of_the_run_are_removed(tmp_path):
    kept = ["last.npz", "config.json", ".hidden", ".other.npz.abc"]
    for name in [*kept, ".last.npz.x1", ".best.npz.y2", ".metrics.jsonl.z3"]:
        (tmp_path / name).write_text("")
    RunFolder(tmp_path).remove_leftovers()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_new_folders_are_numbered(tmp_path):
    assert next_folder(tmp_path / "runs", "shapes") == tmp_path / "runs" / "shapes-1"
    for number in (1, 2, 4):
        (tmp_path / f"shapes-{number}").mkdir()
    assert next_folder(tmp_path, "shapes") == tmp_path / "shapes-3"
    assert next_folder(str(tmp_path), "cifar10") == tmp_path / "cifar10-1"


def test_a_new_epoch_begins_with_empty_sums():
    progress = Progress(
        epoch=3, batch=7, step=31, loss_sum=2.5, correct=4, count=9, epoch_seconds=1.5, seconds=8.0
    )
    progress.best_accuracy = 0.75
    progress.start_epoch(4)
    assert progress == Progress(epoch=4, step=31, seconds=8.0, best_accuracy=0.75)
