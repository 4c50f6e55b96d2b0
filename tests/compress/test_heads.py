"""Heads found by their gradients, against PyTorch image by image, and taken out for good."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from compress.models import images_of, model_of, torchs_weights
from core import torch_vit
from tolerances import assert_close, assert_same_bits

from numpyvit import gradients
from numpyvit.compress import gate_heads, head_importance, least_important, prune_heads

REMOVED = {0: [1], 2: [0, 1]}
CONFIGS: list[dict[str, Any]] = [
    {},
    {"positions": "relative"},
    {"positions": "rotary", "block": "parallel"},
    {"qkv_bias": False, "qk_norm": True, "pooling": "avg"},
    {"layer_scale": 0.5, "distillation_token": True, "distillation_head": True},
]


def gates_without(removed: dict[int, list[int]]) -> list[np.ndarray]:
    gates = [np.ones(3) for _ in range(3)]
    for block, heads in removed.items():
        gates[block][heads] = 0
    return gates


@pytest.mark.parametrize("changes", CONFIGS, ids=str)
def test_a_pruned_model_is_the_gated_one(changes: dict[str, Any]) -> None:
    model = model_of(**changes)
    images = images_of(2)
    gated, pruned = gate_heads(model, gates_without(REMOVED)), prune_heads(model, REMOVED)
    y, expected = pruned(images), gated(images)
    assert_close(y, expected)
    assert_close(pruned(images, return_attention=True).logits, expected)
    assert [
        attention.shape[1] for attention in pruned(images, return_attention=True).attention
    ] == [*(2, 3, 1)]
    dy = np.random.default_rng(2).standard_normal(y.shape)
    ours = dict(zip(pruned.state_dict(), gradients(y, pruned.parameters(), dy), strict=True))
    theirs = dict(zip(model.state_dict(), gradients(expected, model.parameters(), dy), strict=True))
    for name, gradient in ours.items():
        full, staying = theirs[name], [2]
        if name.startswith("blocks.2.attn.qkv"):  # (3 h k) ... -> 3 h k ...
            full = full.reshape(3, 3, 4, *full.shape[1:])[:, staying].reshape(gradient.shape)
        elif name == "blocks.2.attn.proj.weight":
            full = full.reshape(12, 3, 4)[:, staying].reshape(gradient.shape)
        elif name.endswith("bias_table"):
            full = full[
                :, [0, 2] if "blocks.0." in name else staying if ".2." in name else [0, 1, 2]
            ]
        elif name.startswith("blocks.0.attn") and full.shape != gradient.shape:
            continue
        assert_close(gradient, full, op=name, scale=1.0 if "k_norm.bias" in name else None)


def test_pruning_makes_a_smaller_copy_and_gates_share_the_weights() -> None:
    model = model_of()
    before = {name: array.copy() for name, array in model.state_dict().items()}
    pruned = prune_heads(model, REMOVED)
    # a head of width 4: 3 * 4 rows of 12 weights and a bias, 4 columns of 12 weights
    assert model.num_parameters() - pruned.num_parameters() == 3 * (12 * 13 + 48)
    pruned.blocks[0].attn.qkv.weight.data[:] = 0
    gated = gate_heads(model, gates_without({}))
    assert {*map(id, gated.parameters())} == {*map(id, model.parameters())}
    for name, array in model.state_dict().items():
        assert_same_bits(array, before[name])
    assert_close(gated(images_of(1)), model(images_of(1)))


def test_saved_weights_of_a_pruned_model_fit_a_model_pruned_alike() -> None:
    pruned = prune_heads(model_of(), REMOVED)
    fresh = prune_heads(model_of(depth=3), REMOVED)
    for parameter in fresh.parameters():
        parameter.data[:] = 0
    fresh.load_state_dict(pruned.state_dict())
    assert_same_bits(fresh(images_of(2)), pruned(images_of(2)))


@pytest.mark.parametrize("normalise", [True, False])
def test_importance_is_the_mean_size_of_the_gates_gradients(
    normalise: bool, torch: ModuleType
) -> None:
    model = model_of(dropout=0.5).train()
    images, labels = images_of(3), np.array([4, 0, 2])
    found = head_importance(model, images, labels, normalise=normalise)
    assert model.training
    state = {name: leaf.detach() for name, leaf in torchs_weights(model).items()}
    sums = np.zeros((3, 3))
    for image, label in zip(images, labels, strict=True):
        gates = torch.ones(3, 3, dtype=torch.double, requires_grad=True)
        gated = dict(state)
        for block in range(3):  # proj(y * gate) = (proj * gate)(y)
            name = f"blocks.{block}.attn.proj.weight"
            gated[name] = state[name] * gates[block].repeat_interleave(4)
        loss = torch_vit.loss(gated, torch.tensor(image[None]), torch.tensor([label]), model.config)
        (slopes,) = torch.autograd.grad(loss, gates)
        sums += slopes.abs().numpy()
    expected = sums / 3
    if normalise:
        expected /= np.sqrt((expected**2).sum(1, keepdims=True))
    assert_close(np.array(found), expected)


def test_importance_does_not_depend_on_how_many_images_are_worked_on_at_once() -> None:
    model, images = model_of(), images_of(40)
    labels = np.arange(40) % 5
    together = np.array(head_importance(model, images, labels, normalise=False))
    halves = [slice(0, 20), slice(20, 40)]
    apart = [head_importance(model, images[h], labels[h], normalise=False) for h in halves]
    assert_close(together, np.mean(apart, 0))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_least_important_heads_go_but_one_of_each_block_stays() -> None:
    importance = [np.array([0.1, 0.2, 0.05]), np.array([0.9, 0.8, 0.7])]
    assert least_important(importance, 0) == {}
    assert least_important(importance, 1) == {0: [2]}
    assert least_important(importance, 3) == {0: [0, 2], 1: [2]}
    assert least_important(importance, 4) == {0: [0, 2], 1: [1, 2]}
    with pytest.raises(ValueError, match="from 0 to 4 heads to remove"):
        least_important(importance, 5)
    with pytest.raises(ValueError, match=r"\[least_important\] expected finite numbers"):
        least_important([np.array([0.1, np.nan])], 1)


def test_heads_that_nothing_depends_on_are_of_no_importance() -> None:
    model = model_of()
    model.head.weight.data[:] = 0
    found = head_importance(model, images_of(2), np.arange(2))
    assert_same_bits(np.array(found), np.zeros((3, 3)))


@pytest.mark.parametrize("heads", [{0: [3]}, {1: [0, 1, 2]}, {3: [0]}, {-1: [0]}, {0: 1}])
def test_heads_that_cannot_go_are_refused(heads: dict[int, Any]) -> None:
    with pytest.raises(ValueError, match=r"\[prune_heads\] expected a list of some, but not all"):
        prune_heads(model_of(), heads)


def test_gates_that_do_not_fit_and_no_images_are_refused() -> None:
    model = model_of()
    with pytest.raises(ValueError, match=r"expected gates for \[3, 3, 3\] heads"):
        gate_heads(model, [np.ones(3), np.ones(2), np.ones(3)])
    gated = gate_heads(model, [np.ones(3), np.ones((3, 3)), np.ones(3)])
    with pytest.raises(ValueError, match="expected gates of 2 images, got those of 3"):
        gated(images_of(2))
    with pytest.raises(ValueError, match="expected at least 1 image"):
        head_importance(model, images_of(1)[:0], np.zeros(0, int))


def test_another_attention_is_refused() -> None:
    model = model_of()
    model.blocks[1].attn = model.blocks[1].mlp
    with pytest.raises(ValueError, match="expected blocks with plain Attention, got Mlp"):
        prune_heads(model, {0: [0]})
