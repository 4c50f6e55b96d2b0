from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import attention
from benchmarks.attention import OURS, Size


def made(name):
    return getattr(attention, attention.KINDS[name])(threads=1)


@pytest.mark.parametrize("backward", [False, True])
def test_all_contenders_compute_the_same(backward):
    pytest.importorskip("torch")
    size = Size(3, 20, 4, backward)
    samples = {}
    for name in attention.KINDS:
        contender = made(name)
        contender.prepare(size)
        samples[name] = contender.sample()
    assert [array.shape for array in samples[OURS]] == [(2, 20, 4)] * (4 if backward else 1)
    attention.check(samples, size)
    samples[attention.TEXTBOOK][-1] = samples[attention.TEXTBOOK][-1] + 1
    with pytest.raises(RuntimeError, match="textbook NumPy is"):
        attention.check(samples, size)


def test_who_writes_out_too_many_weights_is_left_out():
    assert Size(2, 8192, 64, True).fits(attention.TEXTBOOK)
    assert not Size(2, 16384, 64, True).fits(attention.TEXTBOOK)
    assert Size(2, 16384, 64, True).fits(OURS)


def test_memory_beyond_inputs_and_results_is_what_weights_take():
    if not attention.supported():
        pytest.skip("this system does not count peaks")
    size = Size(8, 1000, 8)
    found = made(attention.TEXTBOOK).memory(size)
    assert found > 4 * size.weights  # its weights, at least once
    assert made(OURS).memory(size) < found


def test_results_are_drawn_and_saved(tmp_path):
    rows = [
        {
            "case": Size(1, tokens, 4, True).label,
            "contender": name,
            "median_s": tokens * 1e-3,
            "memory_bytes": 0 if name == OURS else 1000 * tokens,
            "tokens": tokens,
            "ratio": 1.0,
        }
        for tokens in (10, 100)
        for name in attention.KINDS
    ]
    attention.draw(rows, tmp_path / "attention.png")
    assert (tmp_path / "attention.png").stat().st_size > 10_000
    path = attention.save("attention", rows, tmp_path)
    assert len(json.loads(path.read_text())["rows"]) == 8


def test_sizes_have_the_same_arrays_in_every_process():
    for one, other in zip(Size(2, 5, 3).arrays(), Size(2, 5, 3).arrays(), strict=True):
        np.testing.assert_array_equal(one, other)
