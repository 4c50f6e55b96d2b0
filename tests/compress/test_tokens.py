"""Merged and dropped tokens, against loops over the tokens of one image written out in PyTorch."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from compress.models import images_of, model_of, torchs_weights
from core import torch_vit
from tolerances import assert_close, assert_same_bits

from numpyvit import Tensor, gradients, no_grad
from numpyvit.compress import (
    ShortenedTransformer,
    attend_locally,
    head_importance,
    merge_tokens,
    prune_heads,
    prune_tokens,
)
from numpyvit.compress.tokens import Merging, Tokens
from numpyvit.explain import observe_attention
from numpyvit.models import create_model, predict

CONFIGS: dict[str, dict[str, Any]] = {
    "class token": {},
    "four in front": {"distillation_token": True, "distillation_head": True, "num_registers": 2},
    "mean": {"pooling": "avg", "final_norm": False},
    "both": {"pooling": "token_avg", "qk_norm": True, "layer_scale": 0.5},
    "attention": {"pooling": "map", "class_token": False},
}
each_config = pytest.mark.parametrize("changes", CONFIGS.values(), ids=CONFIGS)


class Loops:
    """One image's way through the model, a token at a time: [vector, size, where it came from]."""

    def __init__(self, torch: ModuleType, state: dict[str, Any], config: Any) -> None:
        self.torch, self.state, self.config = torch, state, config

    def logits(self, image: Any, shorten: Any) -> Any:
        embedded = torch_vit._embedding(self.state, image[None], self.config)[0]
        tokens = [[vector, 1, [number]] for number, vector in enumerate(embedded)]
        for number in range(self.config.depth):
            block = {
                name.removeprefix(f"blocks.{number}."): tensor
                for name, tensor in self.state.items()
                if name.startswith(f"blocks.{number}.")
            }
            tokens = self.block(block, tokens, lambda *args, n=number: shorten(n, *args))
        where = {member: token[0] for token in tokens for member in token[2]}
        x = self.torch.stack([where[member] for member in sorted(where)])[None]
        if self.config.final_norm:
            x = torch_vit._norm(self.state, "norm", x, self.config)
        return torch_vit._logits(self.state, x, self.config)[0]

    def block(self, block: dict[str, Any], tokens: list[Any], shorten: Any) -> list[Any]:
        torch, config = self.torch, self.config
        x = torch.stack([token[0] for token in tokens])
        sizes = torch.tensor([float(token[1]) for token in tokens], dtype=x.dtype)
        normed = torch_vit._norm(block, "norm1", x, config)
        qkv = normed @ block["attn.qkv.weight"].T + block["attn.qkv.bias"]
        q, k, v = qkv.reshape(len(x), 3, config.num_heads, -1).permute(1, 2, 0, 3)
        if config.qk_norm:
            q = torch_vit._norm(block, "attn.q_norm", q, config)
            k = torch_vit._norm(block, "attn.k_norm", k, config)
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).exp() * sizes
        weights = weights / weights.sum(-1, keepdim=True)
        y = (weights @ v).transpose(0, 1).reshape(len(x), -1)
        y = y @ block["attn.proj.weight"].T + block["attn.proj.bias"]
        x = x + y * block.get("ls1.gamma", 1)
        tokens = [[vector, *token[1:]] for vector, token in zip(x, tokens, strict=True)]
        tokens = shorten(tokens, k.mean(0), weights[:, 0].mean(0))
        x = torch.stack([token[0] for token in tokens])
        mixed = torch_vit._mlp(block, torch_vit._norm(block, "norm2", x, config), config)
        x = x + mixed * block.get("ls2.gamma", 1)
        return [[vector, *token[1:]] for vector, token in zip(x, tokens, strict=True)]


def merging(count: int, front: int) -> Any:
    def shorten(_block: int, tokens: list[Any], keys: Any, _attention: Any) -> list[Any]:
        keys = keys.detach().numpy()
        cosine = lambda a, b: a @ b / np.sqrt((a @ a) * (b @ b))  # noqa: E731
        pairs = []
        for a in range(0, len(tokens), 2):
            others = [b for b in range(1, len(tokens), 2) if b >= front]
            if a >= front and others:
                best = max(others, key=lambda b: cosine(keys[a], keys[b]))
                pairs.append((cosine(keys[a], keys[best]), a, best))
        pairs.sort(reverse=True)
        gone = set()
        for _, a, b in pairs[: min(count, (len(tokens) - front) // 2)]:
            (x, m, own), (y, n, others) = tokens[a], tokens[b]
            tokens[b] = [(x * m + y * n) / (m + n), m + n, own + others]
            gone.add(a)
        return [token for number, token in enumerate(tokens) if number not in gone]

    return shorten


def dropping(rate: float, blocks: tuple[int, ...], front: int, fuse: bool) -> Any:
    def shorten(block: int, tokens: list[Any], _keys: Any, attention: Any) -> list[Any]:
        if block not in blocks:
            return tokens
        count = math.ceil(rate * (len(tokens) - front))
        order = sorted(range(front, len(tokens)), key=lambda n: -attention[n].item())
        staying = [*range(front), *sorted(order[:count])]
        left = [[tokens[n][0], 1, [place]] for place, n in enumerate(staying)]
        if fuse and order[count:]:
            left.append([sum(tokens[n][0] * attention[n] for n in order[count:]), 1, [len(left)]])
        return left

    return shorten


def assert_like_loops(torch: ModuleType, model: ShortenedTransformer, shorten: Any) -> None:
    images = images_of(3)
    state = torchs_weights(model)
    loops = Loops(torch, state, model.config)
    expected = torch.stack([loops.logits(image, shorten) for image in torch.tensor(images)])
    logits = model(images)
    assert_close(logits, expected)
    with no_grad():
        assert_close(model(images), expected)
    dy = np.random.default_rng(2).standard_normal(expected.shape)
    expected.backward(torch.tensor(dy))
    found = gradients(logits, model.parameters(), dy)
    for (name, leaf), gradient in zip(state.items(), found, strict=True):
        expected = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        # What is added to all keys changes no weight: that gradient is zero but for rounding.
        scale = 1.0 if name.endswith("k_norm.bias") else None
        assert_close(gradient, expected, op=name, scale=scale)


@each_config
@pytest.mark.parametrize("count", [3, 7])
def test_merging_is_that_of_loops_over_tokens(
    changes: dict[str, Any], count: int, torch: ModuleType
) -> None:
    model = model_of(**changes)
    shorten = merging(count, model.config.num_prefix_tokens)
    assert_like_loops(torch, merge_tokens(model, count), shorten)


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("rate", [0.3, 0.7])
@pytest.mark.parametrize("changes", [CONFIGS[name] for name in ("class token", "four in front")])
def test_dropping_is_that_of_loops_over_tokens(
    changes: dict[str, Any], rate: float, fuse: bool, torch: ModuleType
) -> None:
    model = model_of(**changes)
    shorten = dropping(rate, (0, 1, 2), model.config.num_prefix_tokens, fuse)
    assert_like_loops(torch, prune_tokens(model, rate, (0, 1, 2), fuse=fuse), shorten)


@each_config
def test_where_nothing_goes_the_bits_are_the_models(changes: dict[str, Any]) -> None:
    model = model_of("float32", **changes)
    images = images_of(2, "float32")
    expected = predict(model, images)
    assert_same_bits(predict(merge_tokens(model, 0), images), expected)
    if model.config.class_token:
        assert_same_bits(predict(prune_tokens(model, 1.0), images), expected)


@pytest.mark.parametrize("front", [0, 1, 3])
def test_sizes_add_up_to_the_tokens_and_places_say_who_went_where(
    front: int, rng: np.random.Generator
) -> None:
    first = rng.standard_normal((4, 19, 5))
    tokens = Tokens(Tensor(first), front)
    for count in (4, 3, 2, 100, 100, 100, 100):
        k = Tensor(rng.standard_normal((4, 2, tokens.x.shape[1], 3)))
        expected = tokens.x.shape[1] - min(count, (tokens.x.shape[1] - front) // 2)
        tokens = Merging((count,))(0, tokens, k, k)
        assert tokens.x.shape == (4, expected, 5)
    assert_close(tokens.sizes.data.sum(1), np.full((4, 1), 19.0))
    assert (tokens.places[:, :front] == np.arange(front)).all()
    for image in range(4):
        for token in range(tokens.x.shape[1]):
            members = first[image][tokens.places[image] == token]
            assert_close(tokens.x.data[image, token], members.mean(0))
            assert tokens.sizes.data[image, token] == len(members)


def test_the_order_within_each_half_does_not_matter(rng: np.random.Generator) -> None:
    x, k = rng.standard_normal((1, 16, 5)), rng.standard_normal((1, 2, 16, 3))
    order = np.empty(16, int)
    order[::2], order[1::2] = 2 * rng.permutation(8), 2 * rng.permutation(8) + 1

    def merged(order: np.ndarray) -> np.ndarray:
        keys = Tensor(k[:, :, order])
        y = Merging((5,))(0, Tokens(Tensor(x[:, order]), 0), keys, keys).x.data[0]
        return y[np.lexsort(y.T)]

    assert_close(merged(order), merged(np.arange(16)))


def test_merging_equal_patches_changes_nothing() -> None:
    model = model_of()
    model.pos_embed.data[:] = 0
    images = images_of(2).reshape(2, 3, 4, 3, 4, 3).copy()  # b c h p w q
    images[..., 1::2, :] = images[..., ::2, :]  # every patch has an equal neighbour
    images = images.reshape(2, 3, 12, 12)
    shortened = merge_tokens(model, (8, 0, 0))
    assert_close(shortened(images), model(images))
    hidden = shortened(images, return_hidden_states=True).hidden_states
    assert [x.shape[1] for x in hidden] == [17, 9, 9, 9]


def test_maps_and_hidden_states_are_of_the_tokens_that_were_there() -> None:
    output = merge_tokens(model_of(), 2)(
        images_of(1), return_attention=True, return_hidden_states=True
    )
    assert [x.shape[1] for x in output.hidden_states] == [17, 15, 13, 11]
    assert [weights.shape for weights in output.attention] == [(1, 3, n, n) for n in (17, 15, 13)]
    for weights in output.attention:
        assert_close(weights.data.sum(-1), np.ones(weights.shape[:-1]))


def test_by_default_patches_go_after_each_quarter_of_the_depth() -> None:
    shortened = prune_tokens(model_of(depth=12), 0.5, fuse=False)
    hidden = shortened(images_of(1), return_hidden_states=True).hidden_states
    assert [x.shape[1] for x in hidden] == [17] * 4 + [9] * 3 + [5] * 3 + [3] * 3


def test_the_weights_are_the_models_own() -> None:
    model = model_of()
    for shortened in (merge_tokens(model, 2), prune_tokens(model, 0.5)):
        assert [*map(id, shortened.parameters())] == [*map(id, model.parameters())]
        assert shortened.state_dict().keys() == model.state_dict().keys()
    assert type(model) is not ShortenedTransformer


def test_a_shortened_model_trains_with_dropout() -> None:
    shortened = merge_tokens(model_of(dropout=0.1, attention_dropout=0.1), 2).train()
    shortened(images_of(2)).sum().backward()
    assert all(np.isfinite(parameter.grad).all() for parameter in shortened.parameters())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda model: merge_tokens(model, -1),
            r"\[merge_tokens\] expected whole numbers of at least 0",
        ),
        (lambda model: merge_tokens(model, (1, 2)), "expected 3 numbers, one a block, got 2"),
        (lambda model: merge_tokens(model, 2.5), "expected whole numbers of at least 0, got .2.5"),
        (lambda model: merge_tokens(model, "333"), "expected whole numbers of at least 0, got"),
        (lambda model: prune_tokens(model, 0.0), r"\[prune_tokens\] expected 0 < keep_rate <= 1"),
        (lambda model: prune_tokens(model, 0.5, [3]), "blocks from 0 to 2"),
        (
            lambda model: prune_tokens(model_of(class_token=False, pooling="avg"), 0.5),
            "expected a model with a class token",
        ),
        (lambda model: merge_tokens(model_of(block="post_norm"), 1), "expected pre-norm blocks"),
        (lambda model: merge_tokens(model_of(positions="rotary"), 1), "places, got Rotary"),
    ],
)
def test_what_cannot_be_shortened_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(model_of())


SHORTENED = [lambda model: merge_tokens(model, 2), lambda model: prune_tokens(model, 0.5)]


@pytest.mark.parametrize("again", [*SHORTENED, lambda model: attend_locally(model, 3)])
@pytest.mark.parametrize("shorten", SHORTENED)
def test_a_shortened_model_is_not_shortened_again(shorten: Any, again: Any) -> None:
    with pytest.raises(ValueError, match="that keeps all its tokens, got ShortenedTransformer"):
        again(shorten(model_of()))


@pytest.mark.parametrize(
    "change",
    [
        *SHORTENED,
        lambda model: attend_locally(model, 3),
        lambda model: prune_heads(model, {0: [0]}),
        lambda model: head_importance(model, images_of(1), np.zeros(1, int)),
    ],
)
def test_another_kind_of_model_is_refused(change: Any) -> None:
    with pytest.raises(ValueError, match=r"a VisionTransformer, got MaskedAutoencoder; .*to_vit"):
        change(create_model("mae_vit_cifar_patch4_32"))


def test_explaining_says_whose_attention_it_cannot_show() -> None:
    with pytest.raises(ValueError, match=r"a ShortenedTransformer, whose .* between all tokens"):
        next(observe_attention(merge_tokens(model_of(), 2), images_of(1)))
