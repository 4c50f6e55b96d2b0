from __future__ import annotations

import time

import numpy
import pytest

from benchmarks.floor_rates import Rates, product_calls
from benchmarks.floor_work import (
    ATTENTION,
    BYTES,
    DROPOUT,
    LINEAR,
    MASK,
    NORM,
    PRODUCT,
    Work,
    forward_work,
    training_work,
    update_work,
)
from benchmarks.op_times import Stopwatch, timed_ops
from numpyvit import Tensor, functional, gradients
from numpyvit.models import ViTConfig, count_multiply_adds, count_parameters, model_config

NAMES = ["vit_cifar_patch4_32", "vit_tiny_patch16_224", "vit_base_patch32_224"]
TINY = ViTConfig(image_size=8, patch_size=4, embed_dim=12, depth=2, num_heads=3, num_classes=5)


def multiply_adds(work: list[Work]) -> float:
    return sum(piece.multiply_adds for piece in work)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("images", [1, 3])
def test_the_forward_products_are_those_that_the_package_counts(name, images):
    config = model_config(name)
    found = multiply_adds(forward_work(config, images, all_tokens=True))
    assert found == images * count_multiply_adds(config)


@pytest.mark.parametrize("name", NAMES)
def test_the_last_block_is_charged_for_the_class_token_alone(name):
    config = model_config(name)
    d, n, m = config.embed_dim, config.num_tokens, config.mlp_dim
    spared = (n - 1) * (2 * d * d + 2 * d * m) + 2 * (n - 1) * n * d  # q, proj, MLP, attention
    found = multiply_adds(forward_work(config, 1))
    assert found == count_multiply_adds(config) - spared


@pytest.mark.parametrize("name", NAMES)
def test_the_way_back_takes_twice_the_products_but_no_gradient_of_the_pixels(name):
    config = model_config(name)
    forward = multiply_adds(forward_work(config, 2))
    pixels = 2 * config.num_patches * config.patch_values * config.embed_dim
    assert multiply_adds(training_work(config, 2)) == 3 * forward - pixels


def test_dropout_adds_a_mask_for_every_value_it_looks_at():
    rate = {"dropout": 0.1, "attention_dropout": 0.1}
    masks = [w for w in training_work(TINY.replace(**rate), 2) if w.kind == MASK]
    n, d, h = TINY.num_tokens, TINY.embed_dim, TINY.num_heads
    tokens = sum(w.amount for w in masks if w.op == DROPOUT)
    scores = sum(w.amount for w in masks if w.op == ATTENTION)
    assert tokens == 2 * (n * d + 2 * n * d + 2 * d)  # embedding, a whole block, the class token's
    assert scores == 2 * h * (n * n + n)
    assert not [w for w in training_work(TINY, 2) if w.kind == MASK]


def test_the_update_moves_every_parameter_seven_times():
    assert [w.amount for w in update_work(TINY)] == [28 * count_parameters(TINY)]


@pytest.mark.parametrize("shape", [(1, 5, 3, 2), (8, 5, 3, 2)])
def test_every_way_to_form_a_product_has_its_shape(shape):
    stack, rows, inner, columns = shape
    for call in product_calls(shape):
        pieces, _, a, b, out = call.args
        one = () if stack == 1 else (stack // pieces,)
        assert a.shape == (*one, rows, inner)
        assert b.shape == (*one, inner, columns)
        call()
        assert numpy.array_equal(out, numpy.matmul(a, b))


def test_work_is_charged_at_the_measured_rate():
    work = Work(LINEAR, PRODUCT, 2, (1, 4, 4, 4))
    rates = Rates([work], 48)
    assert rates.seconds(work) == 2 * rates.product[1, 4, 4, 4]
    assert rates.seconds(Work(LINEAR, BYTES, 10)) == 10 * rates.unit[BYTES]
    assert 0 < rates.seconds_at_peak(work) < rates.seconds(work)


def test_numpys_passes_stand_for_elementwise_bytes_alone():
    dropped = TINY.replace(dropout=0.1, attention_dropout=0.1)
    work = training_work(dropped, 1)
    rates = Rates(work, TINY.embed_dim)
    for piece in work:
        if piece.kind != BYTES:
            assert rates.seconds_in_passes(piece) == rates.seconds(piece)
    norm = next(piece for piece in work if piece.op == NORM)
    seconds = sum(n * norm.values * rates.unit[kind] for kind, n in norm.passes.items())
    assert rates.seconds_in_passes(norm) == seconds


def test_a_stopwatch_counts_a_call_inside_another_once():
    watch = Stopwatch()
    watch.time("outer", lambda: watch.time("inner", time.sleep, 0.02))
    assert watch.seconds["inner"] > 0.015 > watch.seconds["outer"]


def test_timed_ops_note_both_ways_and_leave_values_and_functions_alone(rng):
    x = rng.standard_normal((4, 6)).astype(numpy.float32)
    weight = Tensor(rng.standard_normal((3, 6)).astype(numpy.float32), requires_grad=True)

    def run() -> list[numpy.ndarray]:
        y = functional.gelu(functional.linear(Tensor(x), weight) + 1.0)
        return [y.data, *gradients(y.sum(), [weight])]

    expected, watch = run(), Stopwatch()
    with timed_ops(watch):
        found = run()
    for one, other in zip(found, expected, strict=True):
        assert numpy.array_equal(one, other)
    assert set(watch.seconds) == {"linear", "gelu", "add", "sum"}
    noted = dict(watch.seconds)
    run()
    assert watch.seconds == noted
