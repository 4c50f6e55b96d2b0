from __future__ import annotations

import sys

import pytest

from numpyvit.cli import bench

SCRIPT = """
import sys
if "--list" in sys.argv:
    print("ops    each op\\nmemory the peak")
else:
    print("ran", *sys.argv[1:])
    sys.exit("memory" in sys.argv)
"""


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A clone whose benchmarks only say how they were called; "memory" fails."""
    folder = tmp_path / "clone" / "benchmarks"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "__main__.py").write_text(SCRIPT)
    monkeypatch.setattr(bench, "ROOT", folder.parent)
    monkeypatch.setattr(bench, "PROGRAM", [sys.executable, "-m", "benchmarks"])
    return folder.parent


def test_names_and_options_are_passed_on(clone, command, capfd, elsewhere):
    result = command("bench", "ops", "--quick", "--rounds", 2, "--out", "there")
    assert result.status == 0
    assert capfd.readouterr().out == f"ran ops --quick --rounds 2 --out {elsewhere / 'there'}\n"


def test_a_benchmark_that_fails_is_an_exit_status(clone, command):
    assert command("bench", "memory").status == 1


def test_the_list_is_printed(clone, command):
    result = command("bench", "--list")
    assert (result.status, result.out) == (0, "ops    each op\nmemory the peak\n")


def test_an_unknown_benchmark_is_a_mistake_that_suggests_the_nearest(clone, command):
    message = command("bench", "memroy").mistake()
    assert message.startswith("no benchmark is called 'memroy'; did you mean 'memory'?")


def test_without_a_clone_one_line_says_to_make_one(tmp_path, monkeypatch, command):
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    assert "come with a clone of the project" in command("bench").mistake()


def test_the_clone_s_own_benchmarks_are_found(command):
    out = command("bench", "--list").out
    assert "training_step" in out
    assert "side_by_side" not in out
