"""Every combination of block, norm, MLP and pooling as a tiny model, and what it costs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits

from numpyvit import Tensor, functional, gradients, nn
from numpyvit.models import (
    Labelling,
    MAEConfig,
    MaskedAutoencoder,
    VisionTransformer,
    ViTConfig,
    count_multiply_adds,
    load_model,
    save_model,
)
from numpyvit.models.config import CHOICES

TINY = ViTConfig(
    image_size=8, patch_size=4, num_classes=5, embed_dim=12, depth=2, num_heads=3, mlp_ratio=2
)
PARTS = ("block", "norm", "mlp", "pooling")


def tiny(**choices: str) -> ViTConfig:
    return TINY.replace(**choices)


COMBINATIONS = {
    " ".join(names): tiny(**dict(zip(PARTS, names, strict=True)))
    for names in itertools.product(*(CHOICES[part] for part in PARTS))
}
each_combination = pytest.mark.parametrize("config", COMBINATIONS.values(), ids=COMBINATIONS)


def built(config: ViTConfig) -> VisionTransformer:
    """A model whose weights are of the size of trained ones, in float64."""
    rng = np.random.default_rng(0)
    model = VisionTransformer(config, rng=rng).to("float64")
    for parameter in model.parameters():
        parameter.data += 0.1 * rng.standard_normal(parameter.shape)
    return model


def some_images(count: int = 3) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((count, 3, 8, 8))


@each_combination
def test_a_combination_has_logits_and_a_gradient_for_every_parameter(config: ViTConfig) -> None:
    model = built(config)
    logits = model(some_images())
    assert logits.shape == (3, 5)
    loss = functional.cross_entropy(logits, np.array([0, 4, 2]))
    for (name, _), gradient in zip(
        model.named_parameters(), gradients(loss, model.parameters()), strict=True
    ):
        assert np.isfinite(gradient).all(), name
        assert np.linalg.norm(gradient) > np.finfo(float).eps, name


@each_combination
def test_the_tokens_that_are_read_are_enough_for_the_logits(config: ViTConfig) -> None:
    model, images = built(config), some_images()
    assert_close(model(images), model.forward_head(model.forward_features(images)))


@each_combination
def test_a_combination_comes_back_from_a_file(config: ViTConfig, tmp_path: Path) -> None:
    model, images = built(config).to("float32"), some_images().astype(np.float32)
    save_model(tmp_path / "model.npz", "tiny", model, Labelling(class_names=tuple("abcde")))
    loaded = load_model(tmp_path / "model.npz").model
    assert loaded.config == config
    assert_same_bits(loaded(images), model.eval()(images))


def products_of(forward: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> int:
    """Multiply-adds of a forward pass, from the shapes that products are called with."""
    found: list[int] = []

    def watch(owner: Any, name: str, count: Callable[..., int]) -> None:
        op = getattr(owner, name)

        def counted(*args: Any, **options: Any) -> Any:
            y = op(*args, **options)
            found.append(count(y, *args))
            return y

        monkeypatch.setattr(owner, name, counted)

    def attention(_: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> int:
        return math.prod(q.shape[:-1]) * k.shape[-2] * (k.shape[-1] + v.shape[-1])

    watch(functional, "linear", lambda y, x, weight, bias=None: x.size * len(weight))
    watch(functional, "conv2d", lambda y, x, weight, *rest: y.size * math.prod(weight.shape[1:]))
    watch(functional, "packed_attention", lambda y, qkv, *rest: 2 * y.size * qkv.shape[1])
    watch(functional, "_attention", attention)
    watch(Tensor, "__matmul__", lambda y, a, b: y.size * a.shape[-1])
    forward()
    return sum(found)


def assert_counted(config: ViTConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    model = built(config)
    found = products_of(
        lambda: model.forward_head(model.forward_features(some_images(1))), monkeypatch
    )
    assert count_multiply_adds(config) == found


@each_combination
def test_multiply_adds_are_those_of_the_products_that_are_computed(
    config: ViTConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_counted(config, monkeypatch)


OTHERS = [(part, name) for part in CHOICES if part not in PARTS for name in CHOICES[part]]


@pytest.mark.parametrize(("part", "name"), OTHERS)
def test_multiply_adds_of_the_other_parts_are_counted_too(
    part: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_counted(tiny(**{part: name}), monkeypatch)


@pytest.mark.parametrize(
    "options",
    [
        {"distillation_token": True, "distillation_head": True},
        {"distillation_token": True, "distillation_head": True, "pooling": "token_avg"},
        {"distillation_token": True, "distillation_head": True, "pre_logits": 13},
        {"class_token": False, "num_registers": 2, "pooling": "map"},
        {"pooling": "token_avg", "pre_logits": 7, "head_norm": True},
        {"qk_norm": True, "layer_scale": 0.1, "num_classes": 0},
    ],
)
def test_multiply_adds_of_tokens_and_heads_are_counted_too(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_counted(tiny(**options), monkeypatch)


@pytest.mark.parametrize("block", CHOICES["block"])
def test_multiply_adds_of_a_masked_autoencoder_are_counted_too(
    block: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = tiny(block=block, norm="rms", mlp="swiglu").replace(num_classes=0)
    sizes = {"decoder_embed_dim": 8, "decoder_depth": 1, "decoder_num_heads": 2}
    config = MAEConfig(encoder=encoder, **sizes)
    model = MaskedAutoencoder(config, rng=np.random.default_rng(0)).to("float64")
    found = products_of(lambda: model(some_images(1)), monkeypatch)
    assert count_multiply_adds(config) == found
    norms = {type(m) for _, m in model.named_modules() if hasattr(m, "eps")}
    assert norms == {nn.RMSNorm}
    assert type(model.decoder_blocks[0]) is type(model.blocks[0])
