from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tolerances import assert_close
from train.tiny import tiny_trainer, tuning_trainer

from numpyvit.explain import Sheet, class_attention, explain, fuse_heads
from numpyvit.train import Recipe, RunConfig, Teaching, pictures


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the drawing of maps is given."""
    found: dict[str, Any] = {}

    def draw(images: Any, maps: Any, titles: Any, path: Path, **options: Any) -> None:
        found.update(images=images, maps=maps, titles=titles, **options)

    monkeypatch.setattr(pictures, "draw_overlays", draw)
    return found


@pytest.mark.parametrize("tune", ["all", "head"])
def test_a_run_from_weights_shows_what_speaks_for_the_predicted_class(
    tmp_path: Path, drawn: dict[str, Any], tune: str
) -> None:
    trainer = tuning_trainer(tmp_path, tune)
    trainer.fit()  # until then the head is 0, and nothing speaks for a class
    pictures._draw_attention(trainer, tmp_path / "attention.png")
    expected = explain(trainer.model, drawn["images"], "relevance")
    assert_close(drawn["maps"], expected)
    assert np.ptp(expected) > 0
    assert "predicted class" in drawn["heading"]


def test_a_run_from_nothing_shows_the_attention_of_its_last_block(
    tmp_path: Path, drawn: dict[str, Any]
) -> None:
    trainer = tiny_trainer(tmp_path)
    pictures._draw_attention(trainer, tmp_path / "attention.png")
    expected = fuse_heads(class_attention(trainer.model, drawn["images"]))
    assert_close(drawn["maps"], expected)
    assert "Class-token attention" in drawn["heading"]
    assert len(drawn["titles"]) == len(expected) == pictures.EXAMPLES


def test_the_legend_says_what_validation_has_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    sheets: list[Sheet] = []
    monkeypatch.setattr(Sheet, "save", lambda sheet, _: sheets.append(sheet))
    trainer = tiny_trainer(tmp_path, epochs=1)
    trainer.fit()
    pictures.write_pictures(trainer)
    loss, accuracy, _ = sheets[0].figure.axes
    shown = [
        [text.get_text() for text in axes.get_legend().get_texts()] for axes in (loss, accuracy)
    ]
    assert shown == [["training, with smoothed labels", "validation"], ["training", "validation"]]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (RunConfig(recipe=Recipe(label_smoothing=0.0)), "training"),
        (
            RunConfig(
                recipe=Recipe(cutmix=1, label_smoothing=0.1),
                teaching=Teaching(weights="teacher.npz"),
            ),
            "training, with the teacher's part,\nmixed labels,\nsmoothed labels",
        ),
    ],
)
def test_a_training_loss_is_called_what_it_is(config: RunConfig, words: str) -> None:
    assert pictures._training_loss(config) == words
