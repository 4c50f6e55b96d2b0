from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits
from train import tiny

from numpyvit import functional
from numpyvit.models import VisionTransformer
from numpyvit.tensor import gradients
from numpyvit.train import Classification, WorkerPool, set_gradients

DROPOUT = {"dropout": 0.2, "attention_dropout": 0.2, "drop_path": 0.2}


@pytest.fixture
def batch(rng):
    """20 images: micro-batches of 8, 8 and 4."""
    return rng.standard_normal((20, 3, 8, 8), np.float32), rng.integers(0, 4, 20)


def tiny_model(**overrides):
    return VisionTransformer(tiny.CONFIG.replace(**overrides), rng=np.random.default_rng(0)).train()


def run(model, batch, workers=1, *, seed=(0, 0), micro_batch=8, **settings):
    with WorkerPool(workers) as pool:
        result = set_gradients(model, *batch, pool, seed=seed, micro_batch=micro_batch, **settings)
    return result, {name: parameter.grad for name, parameter in model.named_parameters()}


def assert_same(one, other):
    assert one[0] == other[0]
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        assert_same_bits(gradient, other[1][name])


@pytest.mark.parametrize("overrides", [{}, DROPOUT], ids=["plain", "dropout"])
@pytest.mark.parametrize("workers", [2, 3, 8])
def test_any_number_of_workers_gives_the_same_bits(workers, overrides, batch):
    model = tiny_model(**overrides)
    expected = run(model, batch, micro_batch=3)
    for _ in range(3):
        assert_same(run(model, batch, workers, micro_batch=3), expected)


@pytest.mark.parametrize(
    "parts",
    [
        {"block": "post_norm", "pooling": "max"},
        {"block": "parallel_things", "norm": "rms", "pooling": "score"},
    ],
)
def test_other_parts_give_the_same_bits_too(parts, batch):
    model = tiny_model(**parts, **DROPOUT)
    assert_same(run(model, batch, 2), run(model, batch))


def test_the_seed_the_step_and_the_micro_batch_decide_what_is_dropped(batch):
    model = tiny_model(**DROPOUT)
    results = [run(model, batch, seed=seed) for seed in [(0, 0), (0, 1), (1, 0), (1, 1)]]
    assert len({result.loss_sum for result, _ in results}) == 4
    assert_same(run(model, batch, seed=(1, 0)), results[2])
    same = np.repeat(batch[0][:1], 20, axis=0), np.repeat(batch[1][:1], 20)
    halves = [
        run(model, (same[0][part], same[1][part]))[0].loss_sum for part in (np.s_[:8], np.s_[8:16])
    ]
    assert halves[0] == halves[1]  # the same images as micro-batch 0
    whole = run(model, (same[0][:16], same[1][:16]))[0].loss_sum
    assert whole != sum(halves)  # and others as micro-batch 1


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("micro_batch", [1, 7, 8, 20, 64])
def test_it_is_the_gradient_of_the_whole_batchs_mean_loss(micro_batch, smoothing, batch):
    model = tiny_model().to("float64")
    images, labels = batch
    result, found = run(
        model, batch, 2, micro_batch=micro_batch, objective=Classification(smoothing)
    )
    logits = model(images.astype(np.float64))
    loss = functional.cross_entropy(logits, labels, smoothing, "mean")
    assert_close(np.float64(result.loss), loss.numpy())
    assert result.correct == int((logits.numpy().argmax(-1) == labels).sum())
    assert result.count == 20
    scale = np.sqrt(sum(np.square(gradient).sum() for gradient in found.values()))
    names = [name for name, _ in model.named_parameters()]
    for name, expected in zip(names, gradients(loss, model.parameters()), strict=True):
        assert_close(found[name], expected, scale=float(scale))


def test_gradients_have_the_dtype_and_the_shape_of_their_parameters(batch):
    for dtype in ("float32", "float64"):
        model = tiny_model().to(dtype)
        run(model, batch)
        for parameter in model.parameters():
            assert parameter.grad.dtype == parameter.dtype
            assert parameter.grad.shape == parameter.shape


def test_gradients_replace_what_was_there(batch):
    model = tiny_model()
    assert_same(run(model, batch), run(model, batch))


def test_frozen_parameters_get_none(batch):
    model = tiny_model()
    _, expected = run(model, batch)
    frozen = tiny_model()
    frozen.patch_embed.requires_grad_(False)
    frozen.blocks[0].requires_grad_(False)
    _, found = run(frozen, batch, 2)
    left = {name for name, gradient in found.items() if gradient is None}
    assert left == {name for name in found if name.startswith(("patch_embed.", "blocks.0."))}
    for name in found.keys() - left:
        assert_same_bits(found[name], expected[name])


def test_a_model_that_is_frozen_altogether_is_an_error_that_says_so(batch):
    model = tiny_model()
    model.requires_grad_(False)
    with pytest.raises(ValueError, match=r"\[set_gradients\].*frozen"):
        run(model, batch)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_in_a_micro_batch_is_raised_and_no_gradient_is_set(workers, batch):
    model = tiny_model()
    images, labels = batch
    labels = labels.copy()
    labels[-1] = 4
    with pytest.raises(ValueError, match="labels from 0 to 3"):
        run(model, (images, labels), workers)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_without_images_there_is_one_clear_error():
    with pytest.raises(ValueError, match=r"\[set_gradients\] expected at least 1 image"):
        run(tiny_model(), (np.zeros((0, 3, 8, 8), np.float32), np.zeros(0, np.int64)))


@pytest.mark.parametrize("workers", [1, 2])
def test_memory_does_not_grow_with_the_number_of_micro_batches(workers):
    model = tiny_model()

    def peak(count):
        images = np.zeros((count, 3, 8, 8), np.float32)
        labels = np.zeros(count, np.int64)
        tracemalloc.start()
        try:
            run(model, (images, labels), workers)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(16)
    few, many = min(peak(32) for _ in range(3)), min(peak(32 * 16) for _ in range(2))
    gradient = 4 * model.num_parameters()
    waiting = 4 * workers  # four levels more of the tree of sums
    assert many - few < 1.5 * waiting * gradient < (64 - 4) * gradient / 2
