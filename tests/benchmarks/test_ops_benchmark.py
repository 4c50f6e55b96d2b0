from __future__ import annotations

import numpy
import pytest

from benchmarks.ops import (
    CALLS,
    COMPOSED,
    OURS,
    TORCH,
    Case,
    cases,
    check,
    numpy_call,
    race_of_bursts,
    torch_call,
    with_ratio_to_torch,
)

CASES = cases()


@pytest.mark.parametrize("name", CASES)
def test_all_forms_of_an_op_agree(name):
    torch = pytest.importorskip("torch")
    case = CASES[name]
    results = {
        COMPOSED: numpy_call(case.composed, case.inputs)(),
        OURS: numpy_call(case.fused, case.inputs)(),
        TORCH: torch_call(torch, case.torch(torch), case.inputs)(),
    }
    check(case, results)


def test_a_gradient_that_is_wrong_is_refused():
    good = CASES["softmax"]
    wrong = Case(lambda x: good.fused(x) * 1.001, good.composed, good.torch, good.inputs)
    found = {
        COMPOSED: numpy_call(good.composed, good.inputs)(),
        OURS: numpy_call(wrong.fused, good.inputs)(),
    }
    with pytest.raises(ValueError, match=r"fused and composed differ by .* in result 0"):
        check(good, found)


def test_a_mask_that_keeps_too_much_is_refused():
    x = CASES["dropout 0.1"].inputs[0]
    everything = [x / numpy.float32(0.9), x]
    with pytest.raises(ValueError, match="composed is no dropout"):
        check(CASES["dropout 0.1"], {COMPOSED: everything, OURS: everything})


def test_a_timing_is_the_mean_of_a_burst():
    calls = []
    seconds = race_of_bursts({"one": lambda: calls.append(1)}, rounds=2)
    assert len(seconds["one"]) == 2
    assert len(calls) == CALLS * 4  # two rounds of warm-up


def test_ratios_to_pytorch_are_left_out_without_it():
    rows = [{"contender": OURS, "median_s": 2.0}, {"contender": TORCH, "median_s": 4.0}]
    assert [row["to_PyTorch"] for row in with_ratio_to_torch(rows)] == [0.5, 1.0]
    assert with_ratio_to_torch(rows[:1])[0]["to_PyTorch"] is None
