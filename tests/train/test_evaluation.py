from __future__ import annotations

import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits
from train import tiny

from numpyvit import functional, no_grad
from numpyvit.data import ArrayDataset, Normalize
from numpyvit.models import VisionTransformer
from numpyvit.train import Evaluation, WorkerPool, evaluate

NORMALIZE = Normalize((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))


def tiny_model(**overrides):
    config = tiny.CONFIG.replace(dropout=0.3, attention_dropout=0.3, **overrides)
    model = VisionTransformer(config, rng=np.random.default_rng(0))
    model.head.weight.data *= 50  # so that more than one class is predicted
    return model


def run(model, dataset, workers=1, **settings):
    with WorkerPool(workers) as pool:
        return evaluate(model, dataset, NORMALIZE, pool, **settings)


@pytest.mark.parametrize("micro_batch", [1, 8, 64])
def test_it_is_a_plain_loop_over_the_images(micro_batch):
    model, dataset = tiny_model(), tiny.images_of(27)
    result = run(model, dataset, 2, micro_batch=micro_batch)
    model.eval()
    losses, confusion = [], np.zeros((4, 4), np.int64)
    for index, label in enumerate(dataset.labels):
        with no_grad():
            logits = model(NORMALIZE(dataset.images([index])))
        losses.append(functional.cross_entropy(logits, dataset.labels[[index]]).item())
        confusion[label, logits.numpy().argmax()] += 1
    assert_close(np.float32(result.loss), np.float32(np.mean(losses)))
    assert_same_bits(result.confusion, confusion)
    assert len(set(confusion.sum(0).tolist())) > 1
    right = confusion.diagonal()
    assert result.accuracy == right.sum() / 27
    assert_close(result.class_accuracy, right / confusion.sum(1))


def test_the_confusion_counts_every_image_under_its_true_class():
    dataset = tiny.images_of(27)
    confusion = run(tiny_model(), dataset).confusion
    assert confusion.sum() == 27
    assert_same_bits(confusion.sum(1), np.bincount(dataset.labels))


@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_workers_gives_the_same_bits(workers):
    model, dataset = tiny_model(), tiny.images_of(27)
    one, other = run(model, dataset, micro_batch=4), run(model, dataset, workers, micro_batch=4)
    assert one.loss == other.loss
    assert_same_bits(one.confusion, other.confusion)


@pytest.mark.parametrize("training", [True, False])
def test_it_switches_dropout_off_and_leaves_the_mode_as_it_was(training):
    model, dataset = tiny_model().train(training), tiny.images_of(27)
    first = run(model, dataset)
    assert all(module.training is training for _, module in model.named_modules())
    assert run(model.eval(), dataset).loss == first.loss


def test_a_part_that_was_in_evaluation_mode_stays_there():
    model = tiny_model().train()
    model.blocks[0].eval()
    before = {name: module.training for name, module in model.named_modules()}
    run(model, tiny.images_of(27))
    assert {name: module.training for name, module in model.named_modules()} == before
    assert set(before.values()) == {True, False}


def test_it_leaves_the_mode_as_it_was_when_something_goes_wrong():
    model = tiny_model(num_classes=3).train()
    with pytest.raises(ValueError, match="labels from 0 to 2"):
        run(model, tiny.images_of(27))
    assert model.training


def test_it_records_nothing_and_touches_no_gradient():
    model = tiny_model()
    marker = np.ones(4, np.float32)
    model.head.bias.grad = marker
    run(model, tiny.images_of(8))
    assert model.head.bias.grad is marker
    assert model.head.weight.grad is None


def test_a_model_in_float64_is_evaluated_in_float64():
    model, dataset = tiny_model(), tiny.images_of(27)
    single = run(model, dataset).loss
    double = run(model.to("float64"), dataset).loss
    assert double != single
    assert_close(np.float32(double), np.float32(single))


def test_a_class_without_images_has_no_accuracy():
    images = np.zeros((4, 3, 8, 8), np.uint8)
    dataset = ArrayDataset(images, np.array([0, 0, 2, 2]), ("a", "b", "c", "d"))
    by_class = run(tiny_model(), dataset).class_accuracy
    assert np.isnan(by_class[[1, 3]]).all()
    assert np.isfinite(by_class[[0, 2]]).all()


def test_accuracies_follow_from_the_confusion():
    result = Evaluation(0.5, np.array([[3, 1, 0], [0, 0, 0], [2, 2, 4]]))
    assert result.accuracy == 7 / 12
    assert_close(result.class_accuracy, np.array([0.75, np.nan, 0.5]))
