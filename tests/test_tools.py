"""The tools of those who maintain the package."""

from __future__ import annotations

import importlib
import importlib.util
import json

import pytest
from train import tiny

from numpyvit.models import load_model
from numpyvit.train import RunConfig, RunFolder, Trainer


@pytest.fixture
def tool(repository, tmp_path, monkeypatch):
    """tools/package_weights.py, which writes into a folder of the test's own."""
    path = repository / "tools" / "package_weights.py"
    spec = importlib.util.spec_from_file_location("package_weights", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "numpyvit" / "models").mkdir(parents=True)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    return module


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """`finished(data_dir=...)`: the folder of a run of one epoch."""
    monkeypatch.setitem(tiny.VARIANTS, tiny.NAME, tiny.CONFIG)

    def run(**settings):
        folder = RunFolder(tmp_path / "run")
        recipe = tiny.RECIPE.replace(epochs=1)
        folder.create(RunConfig(model=tiny.NAME, recipe=recipe, **settings))
        data = tiny.images_of(tiny.TRAIN_IMAGES), tiny.images_of(tiny.VAL_IMAGES, 1)
        Trainer(folder.config(), folder, *data, workers=1).fit()
        for name in ("curves", "attention"):
            (folder.path / f"{name}.png").write_bytes(b"picture")
        return folder

    return run


def test_packaged_weights_come_with_their_configuration_and_no_path(tool, finished, tmp_path):
    run = finished(data="cifar10", data_dir=str(tmp_path / "private"))
    tool.package(run, tiny.NAME, "numpyvit train --data cifar10")
    log = tmp_path / "docs" / "pretrained" / tiny.NAME
    assert sorted(path.name for path in log.iterdir()) == [
        "attention.png",
        "command.txt",
        "config.json",
        "curves.png",
        "metrics.jsonl",
    ]
    fields = json.loads((log / "config.json").read_text())
    assert "data_dir" not in fields
    assert RunConfig.from_dict(fields).recipe == run.config().recipe
    saved = load_model(tmp_path / "numpyvit" / "models" / "pretrained" / f"{tiny.NAME}.npz")
    assert set(saved.archive.record) == {
        *("model", "family", "config", "labelling", "command", "epochs", "accuracy")
    }
    written = [json.dumps(saved.archive.record), *map(str, fields.values())]
    assert not any(str(tmp_path) in text for text in written)


@pytest.mark.parametrize("settings", [{"validation_split": 5}, {"train_images": 48}])
def test_a_run_on_a_part_of_the_data_is_not_packaged(tool, finished, settings):
    with pytest.raises(SystemExit, match="on a part of the data"):
        tool.package(finished(**settings), tiny.NAME, "numpyvit train")


@pytest.mark.parametrize("word", ["/data", "--data-dir=/data", "~/data", "'/my data'"])
def test_a_command_with_a_path_of_the_machine_is_not_packaged(tool, finished, word):
    with pytest.raises(SystemExit, match="names paths of this machine"):
        tool.package(finished(), tiny.NAME, f"numpyvit train --data-dir {word}")


def test_a_run_on_pictures_of_one_s_own_is_not_packaged(tool, finished):
    with pytest.raises(SystemExit, match="folder of one's own"):
        tool.package(finished(data="/home/pictures"), tiny.NAME, "numpyvit train")


def test_the_readme_shows_what_the_benchmarks_wrote(repository, monkeypatch):
    monkeypatch.syspath_prepend(repository / "tools")
    tool = importlib.import_module("write_speed")
    assert tool.table(tool.Results(tool.RESULTS)) in (repository / "README.md").read_text()


def test_the_table_of_trainings_names_a_packaged_runs_pictures_where_they_are(
    repository, tmp_path, monkeypatch
):
    spec = importlib.util.spec_from_file_location(
        "write_results", repository / "tools" / "write_results.py"
    )
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.setattr(tool, "IMAGES", tmp_path)
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    monkeypatch.setattr(tool, "PRETRAINED", tmp_path / "pretrained")
    packaged = tmp_path / "pretrained" / "model"
    packaged.mkdir(parents=True)
    (packaged / "curves.png").write_bytes(b"curves")
    run = tmp_path / "run"
    run.mkdir()
    (run / "curves.png").write_bytes(b"curves")
    (run / "attention.png").write_bytes(b"attention")
    assert tool.picture(run / "curves.png", "default-100") == "pretrained/model/curves.png"
    assert tool.picture(run / "attention.png", "default-100") == "attention-default-100.png"
    assert (tmp_path / "attention-default-100.png").read_bytes() == b"attention"


def test_the_page_of_recipes_lists_them_as_they_are(repository, monkeypatch):
    monkeypatch.syspath_prepend(repository / "tools")
    table = importlib.import_module("write_recipes").recipes_table()
    page = (repository / "docs" / "recipe.md").read_text()
    assert f"<!-- recipes:begin -->\n{table}\n<!-- recipes:end -->" in page
