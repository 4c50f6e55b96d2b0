from __future__ import annotations

import numpy as np
import pytest

from benchmarks import inference
from numpyvit.models import VisionTransformer, ViTConfig


@pytest.fixture
def case():
    """Two small images and a model of one narrow block."""
    config = ViTConfig(image_size=8, patch_size=4, num_classes=5, embed_dim=8, depth=1, num_heads=2)
    model = VisionTransformer(config, rng=np.random.default_rng(0))
    return inference.Case.of(config, model, 2)


class Local:
    """What Remote offers, without the process."""

    def __init__(self, made):
        self.made = made

    def ask(self, method, *arguments):
        return getattr(self.made, method)(*arguments)

    def __call__(self):
        return self.made()


def test_both_sides_compute_the_same_logits(case):
    pytest.importorskip("torch")
    entries = {
        inference.EAGER: Local(inference.TorchInference(compiled=False, threads=1)),
        inference.PRUNED: Local(
            inference.TorchInference(compiled=False, threads=1, class_token_only=True)
        ),
        inference.OURS: Local(inference.NumpyvitInference()),
    }
    found = inference.check(inference.prepare(entries, case))
    assert set(found) == {inference.EAGER, inference.PRUNED, inference.OURS}
    assert max(found.values()) < 1e-5


@pytest.mark.parametrize("spoil", [lambda x: x * 1.01, lambda x: x * np.nan])
def test_logits_that_differ_are_not_timed(spoil):
    ours = np.ones((2, 5), np.float32)
    with pytest.raises(RuntimeError, match="the logits of PyTorch eager are"):
        inference.check({inference.OURS: ours, inference.EAGER: spoil(ours)})


def test_a_contender_that_fails_is_named_with_its_reason(case, capsys):
    class Broken:
        def prepare(self, case):
            raise RuntimeError("no compiler found")

    entries = {
        "PyTorch compiled": Local(Broken()),
        "numpyvit": Local(inference.NumpyvitInference()),
    }
    assert list(inference.prepare(entries, case)) == ["numpyvit"]
    assert "skipped: PyTorch compiled: no compiler found" in capsys.readouterr().out


def test_the_picture_has_a_panel_for_each_model(tmp_path):
    pytest.importorskip("matplotlib")
    rows = [
        {"case": case, "contender": name, "median_s": 0.1, "images a second": 10.0}
        for case in ("a, batch 1", "a, batch 8", "b, batch 1")
        for name in (inference.EAGER, inference.OURS)
    ]
    inference.draw(rows, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 1000
