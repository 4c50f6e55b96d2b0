"""What the table of op cases cannot say: errors, precision, randomness, and two forms of one op."""

from __future__ import annotations

import itertools
import math
import sys
from collections import Counter
from typing import Any

import numpy as np
import pytest
from core import naive
from tolerances import MAX_ULP, assert_close, assert_same_bits, max_ulp

from numpyvit import backend, ops


def test_erf_in_float32_is_the_standard_librarys_to_float32s_spacing() -> None:
    x = np.linspace(-6, 6, 20_001, dtype=np.float32)
    truth = np.array([math.erf(value) for value in x.tolist()])
    # Two units of float32 next to 1, where most of erf's values are.
    assert np.abs(ops.erf(x) - truth).max() <= 2 * np.finfo(np.float32).eps
    assert ops.erf(x).dtype == np.float32


def test_erf_in_float64_is_the_standard_librarys_to_the_bit(rng: np.random.Generator) -> None:
    x = 3 * rng.standard_normal((7, 11))
    assert_same_bits(ops.erf(x), naive.each(math.erf)(x))


def test_erf_of_what_is_not_finite() -> None:
    for dtype in ("float32", "float64"):
        y = ops.erf(np.array([np.inf, -np.inf, np.nan], dtype))
        assert max_ulp(y[:2], np.array([1, -1], dtype)) <= 1
        assert np.isnan(y[2])


def test_gelu_in_float32_is_close_to_the_truth_over_its_whole_range() -> None:
    x = np.linspace(-8, 8, 5_001, dtype=np.float32)
    truth = naive.each(naive.gelu)(x.astype(np.float64))
    assert_close(ops.gelu(x)[0], truth, "float32")


def test_the_two_forms_of_gelu_differ_by_what_is_known_of_them() -> None:
    x = np.linspace(-6, 6, 10_001)
    distance = np.abs(ops.gelu(x)[0] - ops.gelu_tanh(x)[0]).max()
    assert 4e-4 < distance < 5e-4


def test_sigmoid_and_softmax_do_not_overflow() -> None:
    x = np.array([-1e4, 0.0, 1e4], np.float32)
    assert_same_bits(ops.sigmoid(x)[0], np.array([0, 0.5, 1], np.float32))
    assert_same_bits(ops.softmax(x)[0], np.array([0, 0, 1], np.float32))
    assert np.isfinite(ops.log_softmax(x)[0]).all()


def test_the_rows_of_a_softmax_add_up_to_one_along_any_axis(rng: np.random.Generator) -> None:
    x = 10 * rng.standard_normal((3, 4, 5)).astype(np.float32)
    for axis in (0, 1, 2, -1, -2):
        total = ops.softmax(x, axis)[0].sum(axis)
        assert max_ulp(total, np.ones_like(total)) <= MAX_ULP["float32"]


def test_the_patch_projection_is_a_convolution_whose_stride_is_its_kernel(
    rng: np.random.Generator, dtype: np.dtype
) -> None:
    x, weight, bias = (
        rng.standard_normal(shape).astype(dtype) for shape in [(2, 3, 8, 6), (5, 3, 4, 2), (5,)]
    )
    as_convolution, conv_pullback = ops.conv2d(x, weight, bias, stride=(4, 2))
    cut, cut_pullback = ops.patches(x, patch=(4, 2))
    flat, flat_pullback = ops.linear(cut, weight.reshape(5, -1), bias)
    assert_close(flat, as_convolution.reshape(2, 5, -1).transpose(0, 2, 1), dtype)

    dy = rng.standard_normal(as_convolution.shape).astype(dtype)
    dx, dweight, dbias = conv_pullback(dy)
    dcut, flat_dweight, flat_dbias = flat_pullback(dy.reshape(2, 5, -1).transpose(0, 2, 1))
    assert_close(cut_pullback(dcut)[0], dx, dtype)
    assert_close(flat_dweight.reshape(weight.shape), dweight, dtype)
    assert_close(flat_dbias, dbias, dtype)


def test_attention_is_the_composition_of_simpler_ops(
    rng: np.random.Generator, dtype: np.dtype
) -> None:
    q, k, v, bias = (
        rng.standard_normal(shape).astype(dtype)
        for shape in [(2, 3, 5, 4), (2, 3, 6, 4), (2, 3, 6, 7), (5, 6)]
    )
    fused, _ = ops.attention(q, k, v, bias, dropout=0.4, rng=np.random.default_rng(1))
    scores = ops.matmul(q, k.swapaxes(-1, -2))[0] / 2 + bias
    weights, _ = ops.softmax(scores)
    kept, _ = ops.dropout(weights, 0.4, np.random.default_rng(1))
    assert_close(fused, ops.matmul(kept, v)[0], dtype)


def test_packed_attention_is_attention_of_each_head(rng: np.random.Generator) -> None:
    qkv = rng.standard_normal((2, 5, 36))
    packed, packed_pullback = ops.packed_attention(qkv, num_heads=3)
    q, k, v = (np.stack(np.split(part, 3, -1), 1) for part in np.split(qkv, 3, -1))
    y, pullback = ops.attention(q, k, v)
    assert_close(packed, np.concatenate(list(y.swapaxes(0, 1)), -1))
    dy = rng.standard_normal(packed.shape)
    gradients = pullback(np.stack(np.split(dy, 3, -1), 1), (True, True, True))
    merged = [np.concatenate(list(g.swapaxes(0, 1)), -1) for g in gradients]
    assert_close(packed_pullback(dy)[0], np.concatenate(merged, -1))


def test_attention_is_the_same_with_and_without_the_shift_of_large_scores(
    rng: np.random.Generator,
) -> None:
    q, k, v = (rng.standard_normal((2, 5, 4)) for _ in range(3))
    plain, _ = ops.attention(q, k, v)
    for offset in (100.0, -100.0, 5e4):  # the softmax does not feel a constant
        shifted, _ = ops.attention(q, k, v, np.full((5, 5), offset))
        assert_close(shifted, plain)


class Counting:
    """NumPy, counting how often each of its names is used."""

    def __init__(self) -> None:
        self.used: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        self.used[name] += 1
        return getattr(np, name)


class CountingProducts(np.ndarray):
    """An array that counts the matrix products that it takes part in."""

    products = 0

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        CountingProducts.products += ufunc is np.matmul
        plain = [np.asarray(a) if isinstance(a, CountingProducts) else a for a in args]
        return getattr(ufunc, method)(*plain, **kwargs)


@pytest.mark.parametrize("shapes", [[(4,), (4, 3)], [(2, 5, 4), (4,)], [(4,), (4,)]])
def test_a_product_with_a_vector_is_worked_out_once(shapes: Any, rng: np.random.Generator) -> None:
    a, b = (rng.standard_normal(shape) for shape in shapes)
    CountingProducts.products = 0
    y, _ = ops.matmul(a.view(CountingProducts), b)
    assert CountingProducts.products == 1
    assert_close(y, np.asarray(a @ b))


@pytest.mark.parametrize("padding", [0, 1, (0, 1)])
def test_a_convolution_without_padding_pads_nothing(
    padding: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting()
    module = sys.modules["numpyvit.ops.convolution"]
    monkeypatch.setattr(module, "array_module", lambda *_: counting)
    ops.conv2d(np.ones((1, 2, 4, 4)), np.ones((3, 2, 2, 2)), padding=padding)
    assert counting.used["pad"] == (padding != 0)


def test_only_what_is_needed_of_attentions_gradient_is_computed(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    q, k, v, bias = (rng.standard_normal(shape) for shape in [(5, 4), (6, 4), (6, 3), (5, 6)])
    dy = rng.standard_normal((5, 3))
    whole = ops.attention(q, k, v, bias)[1](dy, (True,) * 4)
    counting = Counting()
    for module in ("numpyvit.ops.attention", "numpyvit.ops.small_products"):
        monkeypatch.setattr(sys.modules[module], "array_module", lambda *_: counting)
    for needs in itertools.product((False, True), repeat=4):
        pullback = ops.attention(q, k, v, bias)[1]
        counting.used.clear()
        found = pullback(dy, needs)
        # A transposed copy is made for a product (..., N, M), the scores' gradient.
        assert counting.used["array"] == any((needs[0], needs[1], needs[3])), needs
        for need, ours, expected in zip(needs, found, whole, strict=True):
            if need:
                assert_same_bits(ours, expected)
            else:
                assert ours is None


@pytest.mark.parametrize("width", [1, 3, 48, 192, 768])
@pytest.mark.parametrize("value", [0.0, 1.0, -0.3, 300.3, 1e4])
def test_layer_norm_brings_a_constant_row_to_zero_as_far_as_its_mean_is_rounded(
    width: int, value: float, dtype: np.dtype
) -> None:
    x = np.full((2, width), value, dtype)
    y, _ = ops.layer_norm(x, np.ones(width, dtype), np.zeros(width, dtype), eps=1e-6)
    rounding = width * np.spacing(np.abs(x[0, 0])) / np.sqrt(1e-6)
    assert np.abs(y).max() <= min(rounding, 1)


def test_a_masked_key_gets_no_weight(rng: np.random.Generator) -> None:
    q, k, v = (rng.standard_normal((2, 5, 4)) for _ in range(3))
    mask = np.where(np.arange(5) < 3, 0, -np.inf)
    masked, pullback = ops.attention(q, k, v, mask)
    short, short_pullback = ops.attention(q, k[:, :3], v[:, :3])
    assert_close(masked, short)
    dy = rng.standard_normal(masked.shape)
    needs = (True, True, True, False)
    pairs = zip(pullback(dy, needs)[:3], short_pullback(dy, needs[:3]), strict=True)
    for position, (found, expected) in enumerate(pairs):
        assert_close(found if position == 0 else found[:, :3], expected)
        assert position == 0 or not found[:, 3:].any()


@pytest.mark.parametrize("bits", [np.random.PCG64, np.random.MT19937, np.random.Philox])
def test_dropout_keeps_the_share_it_should_with_any_bit_generator(bits: Any) -> None:
    for p in (0.1, 0.5, 0.9):
        y, _ = ops.dropout(np.ones(200_000), p, np.random.Generator(bits(0)))
        kept = np.count_nonzero(y) / y.size
        deviation = math.sqrt(p * (1 - p) / y.size)
        assert abs(kept - (1 - p)) < 4 * deviation
        np.testing.assert_array_equal(np.unique(y), [0, 1 / (1 - p)])


def test_drop_path_drops_whole_samples() -> None:
    y, _ = ops.drop_path(np.ones((1000, 3, 2)), 0.25, np.random.default_rng(0))
    by_sample = y.reshape(1000, -1)
    assert (by_sample == by_sample[:, :1]).all()
    assert abs((by_sample[:, 0] == 0).mean() - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 1000)


def test_dropout_gives_the_same_mask_for_the_same_generator() -> None:
    x = np.ones((3, 5), np.float32)
    first, _ = ops.dropout(x, 0.5, np.random.default_rng(7))
    again, _ = ops.dropout(x.astype(np.float64), 0.5, np.random.default_rng(7))
    np.testing.assert_array_equal(first, again)


def test_cross_entropy_of_a_uniform_guess_is_the_logarithm_of_the_classes() -> None:
    loss, _ = ops.cross_entropy(np.zeros((3, 10)), np.array([1, 2, 3]))
    assert_close(loss, np.array(math.log(10)))


def test_cross_entropy_takes_a_list_of_labels() -> None:
    logits = np.eye(3)
    expected, _ = ops.cross_entropy(logits, np.array([0, 1, 1]))
    assert ops.cross_entropy(logits, [0, 1, 1])[0] == expected


X = np.zeros((2, 3))
IMAGE = np.zeros((1, 3, 6, 6))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.linear(X, np.zeros((4, 5))), "inputs of width 5"),
        (lambda: ops.layer_norm(X, np.ones(4), np.ones(4)), "inputs of width 4"),
        (lambda: ops.rms_norm(X, np.ones(4)), "inputs of width 4"),
        (lambda: ops.var(X, axis=0, correction=2), "more than 2 values"),
        (lambda: ops.patches(IMAGE, patch=(4, 4)), "multiples of the patch 4x4"),
        (lambda: ops.conv2d(IMAGE, np.zeros((1, 2, 3, 3))), "of the same C"),
        (lambda: ops.conv2d(IMAGE, np.zeros((1, 3, 7, 7))), "at least as large as the kernel"),
        (lambda: ops.conv2d(IMAGE, np.zeros((1, 3, 1, 1)), stride=0), "stride of at least 1"),
        (lambda: ops.conv2d(IMAGE, np.zeros((1, 3, 1, 1)), padding=-1), "padding of at least 0"),
        (lambda: ops.dropout(X, 1.0, np.random.default_rng()), "0 <= p < 1"),
        (lambda: ops.attention(X, X, np.zeros((4, 3))), "equal leading axes"),
        (lambda: ops.attention(X, np.zeros((2, 4)), X), "equal leading axes"),
        (lambda: ops.packed_attention(np.zeros((1, 2, 9)), num_heads=2), r"3 \* 2 heads"),
        (lambda: ops.packed_attention(np.zeros((1, 2, 8)), num_heads=1), r"3 \* 1 heads"),
        (lambda: ops.cross_entropy(X, np.array([0, 3])), "labels from 0 to 2, got 0 to 3"),
        (lambda: ops.cross_entropy(X, np.array([0, -1])), "got -1 to 0"),
        (lambda: ops.cross_entropy(X, np.array([0, 1, 2])), "class indices of shape"),
        (lambda: ops.cross_entropy(X, np.zeros((2, 4))), "probabilities of shape"),
        (lambda: ops.cross_entropy(X, np.array([0, 1]), 1.5), "label_smoothing"),
        (lambda: ops.cross_entropy(X, np.array([0, 1]), reduction="none"), "'mean' or 'sum'"),
        (lambda: ops.cross_entropy(X[:0], np.zeros(0, int)), "at least one value"),
        (lambda: ops.mse(X, np.zeros(3)), r"shape \(2, 3\), got \(3,\)"),
        (lambda: ops.mse(X, 0.0), r"shape \(2, 3\), got \(\)"),
        (lambda: ops.mse(X[:0], X[:0]), "at least one value"),
        (lambda: ops.group_norm(X[0], X[0], X[0], 1), r"expected inputs \(B, C, ...\).*\(3,\)"),
    ],
)
def test_a_wrong_argument_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert str(caught.value).startswith("[")


def test_cross_entropy_ignores_an_excluded_class_that_is_not_the_target() -> None:
    logits = np.array([[0.0, 1.0, -np.inf]])
    value, pullback = ops.cross_entropy(logits, np.array([0]))
    without, pull_without = ops.cross_entropy(logits[:, :2], np.array([0]))
    (gradient, _), (expected, _) = pullback(np.ones(())), pull_without(np.ones(()))
    assert_close(np.asarray(value), np.asarray(without))
    assert_close(gradient[:, :2], expected)
    assert gradient[0, 2] == 0


@pytest.mark.parametrize("op", [ops.linear, ops.layer_norm])
def test_a_bias_that_would_be_broadcast_is_refused(op: Any) -> None:
    weight = np.ones((3, 3)) if op is ops.linear else np.ones(3)
    with pytest.raises(ValueError, match=r"a bias \("):
        op(np.ones((2, 3)), weight, np.ones(1))


@pytest.mark.parametrize("op", [ops.gelu, ops.gelu_tanh])
def test_a_large_gelu_is_that_of_its_pieces(op, rng):
    x, dy = rng.standard_normal((2, 3, 70_000), np.float32)
    assert x.nbytes > 3 * backend._STRETCH_BYTES
    y, pullback = op(x)
    (dx,) = pullback(dy)
    for row, dy_row, y_row, dx_row in zip(x, dy, y, dx, strict=True):
        y_alone, pullback = op(row.copy())
        assert_same_bits(y_row, y_alone)
        assert_same_bits(dx_row, pullback(dy_row)[0])


def test_erf_of_huge_values_is_one_without_a_warning() -> None:
    huge = np.array([1e25, -1e25, 3e38, np.inf, -np.inf], np.float32)
    assert np.abs(ops.erf(huge) - np.sign(huge)).max() <= np.finfo(np.float32).eps


@pytest.mark.parametrize("keys_and_width", [(0, 4), (3, 0)])
def test_attention_without_keys_or_values_is_one_clear_error(keys_and_width: tuple) -> None:
    keys, width = keys_and_width
    q, k, v = np.ones((2, 3, 4)), np.ones((2, keys, 4)), np.ones((2, keys, width))
    with pytest.raises(ValueError, match=r"\[attention\] expected"):
        ops.attention(q, k, v)


def test_rows_that_are_not_there_and_other_shapes_cannot_be_taken(
    rng: np.random.Generator,
) -> None:
    x = rng.standard_normal((2, 3, 4))
    for indices in ([[0, 3], [0, 1]], [[0, -1], [0, 1]]):
        with pytest.raises(ValueError, match=r"expected indices from 0 to 2, got"):
            ops.take_along(x, np.array(indices))
    for wrong in (np.zeros((2, 2)), np.zeros(2, int), np.zeros((3, 1), int)):
        with pytest.raises(ValueError, match=r"expected x \(B, N, ...\) and whole indices \(B, K"):
            ops.take_along(x, wrong)
