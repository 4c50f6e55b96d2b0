"""The page about cheaper models says what was measured."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def rows(repository: Path) -> list[dict[str, Any]]:
    return json.loads((repository / "docs" / "efficiency.json").read_text())


@pytest.fixture
def tool(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install '.[full]'")
    monkeypatch.syspath_prepend(repository / "tools")
    return importlib.import_module("draw_tradeoffs")


def test_the_tables_are_those_of_the_rows(repository: Path, rows: Any, tool: Any) -> None:
    page = (repository / "docs" / "efficiency.md").read_text()
    tables = tool.tables(rows)
    assert len(tables) == 4
    for marker, table in tables.items():
        assert f"<!-- {marker}:begin -->\n{table}\n<!-- {marker}:end -->" in page


def test_every_technique_is_drawn(repository: Path, rows: Any, tool: Any, tmp_path: Path) -> None:
    tool.draw_all(rows, tmp_path)
    page = (repository / "docs" / "efficiency.md").read_text()
    drawn = sorted(path.name for path in tmp_path.iterdir())
    assert len(drawn) == 4
    assert all(f"images/{name}" in page for name in drawn)


def test_what_can_be_saved_is_the_fastest_within_the_loss(tool: Any) -> None:
    def row(technique: str, setting: float, accuracy: float, time: float) -> dict[str, Any]:
        about = {"technique": technique, "series": technique, "setting": setting}
        return about | {"accuracy": accuracy, "time": time, "compressed_bytes": 1}

    made_up = [
        row("untouched", 0, 0.80, 1.0),
        row("tokens", 4, 0.795, 0.9),
        row("tokens", 6, 0.792, 0.8),
        row("tokens", 8, 0.775, 0.7),
        row("tokens", 10, 0.500, 0.6),
        row("attention", 7, 0.800, 1.2),
        row("attention", 3, 0.400, 1.2),
    ]
    lines = tool.tables(made_up)["savings"].splitlines()
    cells = "6: 79.20% in 0.80 of the time | 8: 77.50% in 0.70 of the time | 8: 77.50% in 0.70 of"
    assert any(line.startswith(f"| tokens: tokens | {cells}") for line in lines)
    assert "| attention: attention | nothing | nothing | nothing |" in lines
