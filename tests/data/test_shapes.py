from __future__ import annotations

import numpy as np
import pytest
from tolerances import assert_same_bits

from numpyvit.data import make_shapes, shapes


def test_the_seed_decides_every_pixel():
    images, labels = make_shapes(300, seed=5)
    again, labels_again = make_shapes(300, seed=5)
    assert_same_bits(images, again)
    assert_same_bits(labels, labels_again)
    assert images.shape == (300, 3, 32, 32)
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64


def test_a_longer_set_begins_with_the_shorter_one():
    images, labels = make_shapes(600)
    fewer, fewer_labels = make_shapes(310)
    assert_same_bits(images[:310], fewer)
    assert_same_bits(labels[:310], fewer_labels)


def test_seeds_streams_and_chunks_differ():
    first = make_shapes(2 * shapes.CHUNK)[0]
    others = [make_shapes(shapes.CHUNK, seed=1)[0], make_shapes(shapes.CHUNK, stream=1)[0]]
    others.append(first[shapes.CHUNK :])
    for other in others:
        assert not (first[: shapes.CHUNK] == other).all((1, 2, 3)).any()


def test_the_classes_are_balanced_and_mixed():
    labels = make_shapes(1000)[1]
    assert np.bincount(labels).tolist() == [100] * 10
    assert len(set(labels[:40].tolist())) > 5


@pytest.mark.parametrize("size", [16, 32, 50])
def test_other_sizes_show_the_same_scene(size):
    images, labels = make_shapes(20, image_size=size)
    assert images.shape == (20, 3, size, size)
    assert_same_bits(labels, make_shapes(20)[1])


@pytest.mark.parametrize("name", shapes.CLASS_NAMES)
def test_a_shape_is_inside_its_circle_and_its_edge_is_a_distance(name):
    axis = np.linspace(-2, 2, 801, dtype=np.float32)
    step = axis[1] - axis[0]
    u, v = axis[None, :] + 0 * axis[:, None], axis[:, None] + 0 * axis[None, :]
    distance = shapes.SHAPES[name](u, v)
    assert distance.dtype == np.float32
    inside = distance < 0
    assert 0.1 < inside.mean() * 16 / np.pi < 1.0
    assert np.hypot(u, v)[inside].max() < 1.2
    # A signed distance changes by as much as the point moves, at most; near the edge, by as much.
    slope = np.hypot(*np.gradient(distance, step))
    edge = abs(distance) < 0.02
    assert 0.9 < np.median(slope[edge]) < 1.1


def test_shapes_stand_out_from_their_background():
    rng = np.random.default_rng(0)
    base = rng.random((shapes.CHUNK, 3), np.float32) * np.float32(0.55)
    lighter = (shapes._contrasting(rng, base) - base) @ shapes.LUMA
    assert (lighter > 0.15).all()


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="positive number of images, got 0"):
        make_shapes(0)
    with pytest.raises(ValueError, match="at least 16, got 8"):
        make_shapes(5, image_size=8)


def softmax_regression(images, labels, epochs=6, batch=100):
    """Weights (3072, 10) and bias of a linear classifier, by gradient descent with momentum."""
    rng = np.random.default_rng(0)
    weights = np.zeros((images.shape[1] + 1, 10), np.float32)
    speed = np.zeros_like(weights)
    for step in range(total := epochs * len(images) // batch):
        chosen = rng.integers(0, len(images), batch)
        x = np.concatenate([images[chosen], np.ones((batch, 1), np.float32)], axis=1)
        logits = x @ weights
        error = np.exp(logits - logits.max(1, keepdims=True))
        error /= error.sum(1, keepdims=True)
        error[np.arange(batch), labels[chosen]] -= 1
        speed = 0.9 * speed - 1e-3 * (1 - step / total) * (x.T @ error) / batch
        weights += speed
    return weights[:-1], weights[-1]


@pytest.mark.slow
def test_a_linear_classifier_stays_under_half():
    images, labels = make_shapes(25_000)
    unseen, expected = make_shapes(4_000, stream=1)
    weights, bias = softmax_regression(
        images.reshape(len(images), -1) / np.float32(128) - 1, labels
    )
    logits = (unseen.reshape(len(unseen), -1) / np.float32(128) - 1) @ weights + bias
    accuracy = np.mean(logits.argmax(1) == expected)
    assert 0.15 < accuracy < 0.45
