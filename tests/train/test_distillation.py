"""Learning from a teacher: DeiT's losses, on one head or two, with any teacher that fits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from tolerances import as_numpy, assert_close, assert_same_bits
from torch.nn import functional as torch_functional
from train import tiny

from numpyvit.data import ArrayDataset
from numpyvit.models import Labelling, VisionTransformer, ViTConfig, save_model
from numpyvit.tensor import Tensor, gradients, no_grad
from numpyvit.train import (
    Distillation,
    Recipe,
    RunConfig,
    RunFolder,
    Teaching,
    Trainer,
    WorkerPool,
    set_gradients,
)

CONFIG = ViTConfig(
    image_size=8,
    patch_size=4,
    num_classes=3,
    embed_dim=16,
    depth=2,
    num_heads=2,
    distillation_token=True,
    distillation_head=True,
)
ONE_HEAD = CONFIG.replace(distillation_token=False, distillation_head=False)
NAMES = ("one", "two", "three")
LABELLING = Labelling(class_names=NAMES, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


def model_of(config, seed=1):
    return VisionTransformer(config, rng=np.random.default_rng(seed)).to("float64")


@pytest.fixture
def teacher(tmp_path):
    """A file with a teacher that normalises otherwise and has its classes in another order."""

    def write(**changes):
        model = model_of(ONE_HEAD.replace(embed_dim=24, **changes), seed=7).to("float32")
        for parameter in model.parameters():
            parameter.data *= 4  # decided answers
        names = ("three", "one", "two", "more")[: model.config.num_classes]
        save_model(tmp_path / "teacher.npz", "t", model, Labelling(class_names=names))
        return str(tmp_path / "teacher.npz"), model.to("float64").eval()

    return write


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return rng.standard_normal((6, 3, 8, 8)), rng.integers(0, 3, 6)


def its_logits(model, images):
    """What the teacher says, from its own pixels, in the student's order of classes."""
    mean, std = (np.reshape(getattr(LABELLING, name), (3, 1, 1)) for name in ("mean", "std"))
    pixels = images * std + mean
    with no_grad():
        return model((pixels - 0.5) / 0.5).data[:, [1, 2, 0]]


def published_loss(logits, distilled, labels, given, teaching, smoothing=0.0):
    """DeiT's equations 2 and 3 in PyTorch, summed over images."""
    labels_loss = torch_functional.cross_entropy(
        logits, labels, reduction="sum", label_smoothing=smoothing
    )
    if teaching.kind == "hard":
        other = torch_functional.cross_entropy(distilled, given.argmax(-1), reduction="sum")
    else:
        t = teaching.temperature
        other = t**2 * torch_functional.kl_div(
            torch_functional.log_softmax(distilled / t, -1),
            torch_functional.softmax(given / t, -1),
            reduction="sum",
        )
    return (1 - teaching.share) * labels_loss + teaching.share * other


@pytest.mark.parametrize("config", [CONFIG, ONE_HEAD], ids=["two heads", "one head"])
@pytest.mark.parametrize(
    "settings", [{}, {"kind": "soft", "temperature": 2.5, "share": 0.1}], ids=["hard", "soft"]
)
def test_the_loss_and_its_gradients_are_the_published_ones(config, settings, teacher, batch):
    path, its_model = teacher(num_classes=4)
    images, labels = batch
    teaching = Teaching(weights=path, **settings)
    model = model_of(config)
    objective = Distillation(0.1, teaching=teaching, labelling=LABELLING)
    loss, correct = objective.loss(model, Tensor(images), labels)
    heads = model.forward_heads(model.forward_features(images))
    logits, distilled = (torch.tensor(head.data, requires_grad=True) for head in heads)
    if heads[0] is heads[1]:
        distilled = logits
    given = torch.tensor(its_logits(its_model, images))
    expected = published_loss(logits, distilled, torch.tensor(labels), given, teaching, 0.1)
    assert_close(loss.data, expected.detach().numpy())
    expected.backward()
    found = gradients(loss, [model.head.weight])[0]
    pooled = model.forward_pooled(model.forward_features(images))
    assert_close(as_numpy(found), logits.grad.numpy().T @ pooled.data)
    mean = (logits + distilled).detach().numpy()
    assert correct == (mean.argmax(-1) == labels).sum()


def test_the_teacher_gets_no_gradient_and_stays_as_it_is(teacher, batch):
    path, _ = teacher(dropout=0.5)
    images, labels = batch
    objective = Distillation(teaching=Teaching(weights=path), labelling=LABELLING)
    model = model_of(CONFIG)
    before = objective.loss(model, Tensor(images), labels)[0].data
    assert_same_bits(before, objective.loss(model, Tensor(images), labels)[0].data)


def test_a_teacher_for_larger_pictures_gets_them_resized(teacher, batch):
    path, _ = teacher(image_size=16)
    objective = Distillation(teaching=Teaching(weights=path), labelling=LABELLING)
    assert objective.teacher(model_of(CONFIG)).logits(batch[0]).shape == (6, 3)


def test_any_number_of_workers_gives_the_same_bits(teacher, batch):
    path, _ = teacher()
    objective = Distillation(teaching=Teaching(weights=path), labelling=LABELLING)
    found = []
    for workers in (1, 2):
        model = model_of(CONFIG)
        with WorkerPool(workers) as pool:
            set_gradients(model, *batch, pool, seed=(0, 0), objective=objective, micro_batch=2)
        found.append([parameter.grad for parameter in model.parameters()])
    for one, two in zip(*found, strict=True):
        assert_same_bits(one, two)


def test_a_teacher_without_the_classes_is_refused(teacher):
    path, _ = teacher(num_classes=2)
    objective = Distillation(teaching=Teaching(weights=path), labelling=LABELLING)
    with pytest.raises(ValueError, match=r"knows the classes one, two, three, got one without two"):
        objective.teacher(model_of(CONFIG))


def test_a_teacher_of_images_with_other_channels_is_refused(teacher):
    path, _ = teacher()
    grey = dataclasses.replace(LABELLING, mean=(0.5,), std=(0.5,))
    objective = Distillation(teaching=Teaching(weights=path), labelling=grey)
    with pytest.raises(ValueError, match="teacher of images of 1 channels, got one of 3"):
        objective.teacher(model_of(CONFIG.replace(in_channels=1)))


def test_a_teacher_that_was_trained_again_is_read_again(teacher, batch, tmp_path, monkeypatch):
    monkeypatch.setitem(tiny.VARIANTS, tiny.NAME, CONFIG)
    data = [ArrayDataset(np.zeros((3, 3, 8, 8), np.uint8), np.arange(3), NAMES)] * 2
    answers = []
    for number, changes in enumerate(({}, {"depth": 1})):
        path, its_model = teacher(**changes)
        config = RunConfig(
            model=tiny.NAME,
            recipe=Recipe(batch_size=3, mean=LABELLING.mean, std=LABELLING.std),
            teaching=Teaching(weights=path),
        )
        trainer = Trainer(config, RunFolder(tmp_path / str(number)), *data, workers=1)
        found = trainer.objective.teacher(model_of(CONFIG)).logits(batch[0])
        assert_close(found, its_logits(its_model, batch[0]))
        answers.append(found)
    assert not np.array_equal(*answers)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "har"}, r"unknown kind 'har'; did you mean 'hard'"),
        ({"temperature": 0}, r"expected a temperature > 0, got 0"),
        ({"share": 1.5}, r"expected 0 <= share <= 1, got 1.5"),
        ({"temperature": "3"}, r"expected a finite number as temperature, got '3'"),
        ({"sha256": 3}, r"expected a text as sha256, got 3"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Teaching(weights="teacher.npz", **settings)


def test_a_runs_teacher_survives_the_way_through_json():
    config = RunConfig(teaching=Teaching(weights="teacher.npz", kind="soft"))
    assert RunConfig.from_dict(config.to_dict()) == config
    assert dataclasses.replace(config, teaching=None) != config
