from __future__ import annotations

import json

import pytest

from benchmarks import __main__ as program
from benchmarks.side_by_side import (
    Remote,
    available,
    markdown,
    parser,
    print_rows,
    race,
    rows_of,
    save,
)


@pytest.fixture(autouse=True)
def at_rest(monkeypatch):
    """No waiting for threads to come to rest."""
    monkeypatch.setattr("benchmarks.side_by_side.settle", lambda: None)


def test_contenders_take_turns():
    calls = []
    seconds = race({name: lambda n=name: calls.append(n) for name in "abc"}, rounds=2, warm_up=1)
    assert "".join(calls) == "abc" * 3
    assert {name: len(values) for name, values in seconds.items()} == dict.fromkeys("abc", 2)


@pytest.mark.parametrize(("rounds", "part"), [(7, 3), (3, 3), (2, 5), (5, 1)])
def test_a_slow_contender_takes_part_in_fewer_rounds(rounds, part):
    calls = []
    contenders = {"fast": lambda: None, "slow": lambda: calls.append(0)}
    seconds = race(contenders, rounds=rounds, fewer={"slow": part}, warm_up=2)
    assert len(seconds["slow"]) == min(rounds, part)
    assert len(seconds["fast"]) == rounds
    assert len(calls) == min(rounds, part) + (1 if part < rounds else 2)


def test_rows_hold_medians_percentiles_and_ratios():
    fast, slow = rows_of("case", {"fast": [1.0, 2.0, 3.0], "slow": [4.0, 5.0, 9.0]}, "fast")
    assert (fast["median_s"], fast["ratio"]) == (2.0, 1.0)
    assert (slow["median_s"], slow["ratio"]) == (5.0, 2.5)
    assert slow["p10_s"] == pytest.approx(4.2)
    assert slow["p90_s"] == pytest.approx(8.2)


def test_there_is_no_ratio_to_a_contender_that_is_not_there():
    (row,) = rows_of("case", {"ours": [1.0]}, "PyTorch")
    assert row["ratio"] is None


def test_tables_give_milliseconds_and_megabytes(capsys):
    rows = [{"case": "x", "median_s": 0.0123, "peak_bytes": 5_000_000, "ratio": None}]
    print_rows(rows)
    head, row = capsys.readouterr().out.strip().splitlines()
    assert head.split() == ["case", "median", "ms", "peak", "MB", "ratio"]
    assert row.split() == ["x", "12.3", "5.0", "-"]
    assert markdown(rows).splitlines()[2] == "| x | 12.3 | 5.0 | - |"


def test_results_are_saved_with_what_is_needed_to_read_them(tmp_path):
    rows = rows_of("case", {"ours": [1.0]}, "ours")
    path = save("name", rows, tmp_path / "new", ratios=[{"case": "x", "ratio": 0.5}])
    record = json.loads(path.read_text())
    assert record["rows"] == rows
    assert {"machine", "cores", "python", "numpy", "torch", "threads", "commit", "command"} <= set(
        record
    )
    text = path.with_suffix(".md").read_text()
    assert "| case | ours | 1000 | 1000 | 1000 | 1.00 |" in text
    assert "## ratios" in text


def test_the_record_names_threads_but_no_path_of_the_user(tmp_path, monkeypatch):
    words = ["--python312", "/home/me/python", "--rounds", "3", f"--out={tmp_path}"]
    monkeypatch.setattr("sys.argv", ["program", *words])
    record = json.loads(save("name", [], tmp_path, threads="PyTorch 2").read_text())
    command = "python -m benchmarks name --python312 PATH --rounds 3 --out=FOLDER"
    assert record["command"] == command
    assert record["threads"].endswith("PyTorch 2")


def test_a_try_has_fewer_rounds_unless_their_number_is_given():
    options = parser("Doc.\n\nMore.", rounds=20)
    assert options.parse_args([]).rounds == 20
    assert options.parse_args(["--quick"]).rounds < 20
    assert options.parse_args(["--quick", "--rounds", "7"]).rounds == 7
    assert options.parse_args(["--rounds", "7", "--quick"]).rounds == 7


def test_what_is_not_installed_is_named(capsys):
    assert available("json")
    assert not available("no_such_module")
    assert capsys.readouterr().out == "skipped: no_such_module is not installed\n"


def test_a_remote_contender_computes_elsewhere_and_reports_its_errors():
    with Remote("fractions:Fraction", numerator=1, denominator=4) as remote:
        assert remote.ask("__float__") == 0.25
        with pytest.raises(RuntimeError, match="AttributeError"):
            remote.ask("no_such_method")
        assert remote.ask("__float__") == 0.25  # it goes on after an error
        with pytest.raises(RuntimeError, match="__call__"):
            race({"a": remote}, rounds=1)


def test_a_remote_contender_that_cannot_start_says_why():
    with pytest.raises(RuntimeError, match="no_such_module"):
        Remote("no_such_module:Thing")
    with pytest.raises(RuntimeError, match="status 3"):
        Remote("os:_exit", status=3)


def test_the_program_finds_the_benchmarks_and_their_first_lines():
    found = program.benchmarks()
    assert found["training_step"].startswith("One training step")
    assert not {"side_by_side", "remote", "__main__"} & set(found)


@pytest.fixture
def runs(monkeypatch):
    """What the program would have run; "memory" fails."""
    made = []
    monkeypatch.setattr(program, "run", lambda *call: made.append(call) or call[0] == "memory")
    monkeypatch.setattr(program, "benchmarks", lambda: {"ops": "", "memory": "", "data": ""})
    return made


def test_all_benchmarks_run_even_when_one_fails(runs, capsys):
    assert program.main(["--quick"]) == 1
    assert runs == [(name, ["--quick"]) for name in ("ops", "memory", "data")]
    assert "benchmarks: failed: memory" in capsys.readouterr().err


def test_one_benchmark_can_have_options_of_its_own(runs):
    assert program.main(["ops", "--rounds", "5", "--micro", "3", "--out", "there"]) == 0
    assert runs == [("ops", ["--rounds", "5", "--out", "there", "--micro", "3"])]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ospx"], "unknown benchmark 'ospx'"),
        (["ops", "data", "--micro", "3"], "--micro: only one benchmark"),
        (["--micro", "3"], "--micro: only one benchmark"),
    ],
)
def test_a_mistake_is_one_line_and_runs_nothing(runs, capsys, words, message):
    with pytest.raises(SystemExit, match="2"):
        program.main(words)
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert runs == []
