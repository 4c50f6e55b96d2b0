"""The smallest weights set to zero, against PyTorch's own pruning, and held there in training."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from compress.models import images_of, model_of
from tolerances import assert_close

from numpyvit import functional
from numpyvit.compress import apply_masks, magnitude_masks, sparsity
from numpyvit.nn import Identity
from numpyvit.optim import AdamW


def torchs_masks(torch: ModuleType, model: Any, share: float, per_layer: bool) -> dict[str, Any]:
    prune = importlib.import_module("torch.nn.utils.prune")
    layers = {}
    for name, parameter in model.named_parameters():
        if name.endswith("weight") and parameter.ndim > 1:
            layers[name] = torch.nn.Module()
            layers[name].weight = torch.nn.Parameter(torch.tensor(parameter.data))
    if per_layer:
        for layer in layers.values():
            prune.l1_unstructured(layer, "weight", share)
    else:
        chosen = [(layer, "weight") for layer in layers.values()]
        prune.global_unstructured(chosen, prune.L1Unstructured, amount=share)
    return {name: layer.weight_mask.numpy() for name, layer in layers.items()}


@pytest.mark.parametrize("per_layer", [True, False])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_the_masks_are_pytorchs(share: float, per_layer: bool, torch: ModuleType) -> None:
    model = model_of()
    masks = magnitude_masks(model, share, per_layer=per_layer)
    expected = torchs_masks(torch, model, share, per_layer)
    assert masks.keys() == expected.keys()
    for name, mask in masks.items():
        assert_close(mask.astype(float), expected[name].astype(float), op=name)


def test_vectors_tokens_and_positions_are_left_alone() -> None:
    model = model_of()
    names = set(magnitude_masks(model, 0.5))
    assert "patch_embed.proj.weight" in names
    assert "head.weight" in names
    assert not names & {"pos_embed", "cls_token", "blocks.0.norm1.weight", "head.bias"}


def test_of_equal_weights_the_first_ones_go() -> None:
    model = model_of()
    for parameter in model.parameters():
        parameter.data[:] = 1
    masks = magnitude_masks(model, 0.25, per_layer=True)
    mask = masks["head.weight"].ravel()
    assert not mask[: mask.size // 4].any()
    assert mask[mask.size // 4 :].all()


def test_a_step_moves_what_is_pruned_until_the_masks_are_applied_again() -> None:
    model = model_of("float32")
    images, labels = images_of(4, "float32"), np.arange(4)
    optimizer = AdamW(model.parameters(), lr=0.01)

    def step() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    step()
    masks = magnitude_masks(model, 0.6)
    pruned = sum((~mask).sum() for mask in masks.values()) / sum(m.size for m in masks.values())
    for _ in range(2):
        apply_masks(model, masks)
        assert sparsity(model) == pruned
        assert not model.head.weight.data[~masks["head.weight"]].any()
        step()
        assert model.head.weight.data[~masks["head.weight"]].any()
    assert model.head.weight.data[masks["head.weight"]].all()


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_shares_that_cannot_be_are_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"\[magnitude_masks\] expected 0 <= sparsity < 1"):
        magnitude_masks(model_of(), share)


@pytest.mark.parametrize("name", ["foo", "blocks.0.mlp.fc1.weight"])
def test_masks_that_do_not_fit_are_refused_before_any_is_applied(name: str) -> None:
    model = model_of()
    masks = {"head.weight": np.zeros((5, 12), bool), name: np.ones((2, 2), bool)}
    with pytest.raises(ValueError, match=rf"\[apply_masks\] expected masks .* for {name}"):
        apply_masks(model, masks)
    assert sparsity(model) == 0


@pytest.mark.parametrize("work", [sparsity, lambda model: magnitude_masks(model, 0.5)])
def test_a_model_without_weights_is_refused(work: Any) -> None:
    with pytest.raises(ValueError, match="a model with linear layers or convolutions, got Identi"):
        work(Identity())
