"""Blocks of every kind, their norms and MLPs: PyTorch's layers, and the papers' equations."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from core import naive
from core.layer_parity import assert_parity, leaf, our_names, share
from tolerances import assert_close, assert_same_bits

from numpyvit import Tensor, gradients, nn
from numpyvit.backend import to_device
from numpyvit.models import ViTConfig, components
from numpyvit.models.config import CHOICES

SMALL = ViTConfig(image_size=8, patch_size=4, embed_dim=12, depth=2, num_heads=3, mlp_ratio=2)
each_block = pytest.mark.parametrize("kind", CHOICES["block"])


def a_block(kind: str, seed: int = 0, **options: Any) -> Any:
    """The last block of a model of two, and its configuration."""
    config = SMALL.replace(block=kind, layer_scale=0.5, **options)
    block = components.block(config, 1, np.random.default_rng(seed)).to("float64")
    rng = np.random.default_rng(3)
    for parameter in block.parameters():
        parameter.data += 0.1 * rng.standard_normal(parameter.shape)
    return block, config


@pytest.fixture
def oracle(torch: ModuleType) -> ModuleType:
    return importlib.import_module("core.torch_vit")  # not before PyTorch is known to be there


def test_rms_norm_is_pytorchs(
    torch: ModuleType, device: str, rng: np.random.Generator, dtype: np.dtype
) -> None:
    ours = nn.RMSNorm(8, eps=1e-5)
    theirs = share(ours, torch.nn.RMSNorm(8, eps=1e-5), dtype)
    assert_parity(torch, device, ours, theirs, 3 + rng.standard_normal((2, 4, 8)).astype(dtype))


@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "quick_gelu", "relu", "silu"])
@pytest.mark.parametrize("kind", [nn.Mlp, nn.SwiGLU])
def test_mlps_with_any_activation_are_pytorchs(
    kind: Any,
    name: str,
    torch: ModuleType,
    oracle: ModuleType,
    device: str,
    rng: np.random.Generator,
    dtype: np.dtype,
) -> None:
    class Theirs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1 = torch.nn.Linear(6, 20 if kind is nn.SwiGLU else 10)
            self.fc2 = torch.nn.Linear(10, 6)

        def forward(self, x: Any) -> Any:
            y = self.fc1(x)
            hidden = oracle.ACTIVATIONS[name](y[..., :10])
            return self.fc2(hidden * y[..., 10:] if kind is nn.SwiGLU else hidden)

    ours = kind(6, 10, activation_name=name, rng=rng)
    x = rng.standard_normal((2, 3, 6)).astype(dtype)
    assert_parity(torch, device, ours, share(ours, Theirs(), dtype), x)


@pytest.mark.parametrize("kind", [nn.Block, nn.PostNormBlock])
def test_pre_and_post_norm_blocks_are_pytorchs_encoder_layers(
    kind: Any, torch: ModuleType, device: str, rng: np.random.Generator, dtype: np.dtype
) -> None:
    norm = functools.partial(nn.LayerNorm, eps=1e-5)
    ours = kind(12, nn.Attention(12, 3, rng=rng), nn.Mlp(12, 20, rng=rng), norm=norm)
    options = {"activation": "gelu", "batch_first": True, "norm_first": kind is nn.Block}
    layer = torch.nn.TransformerEncoderLayer(12, 3, 20, dropout=0.0, **options)
    names = our_names(layer)
    theirs = share(ours, layer, dtype, names)
    x = rng.standard_normal((2, 5, 12)).astype(dtype)
    assert_parity(torch, device, ours, theirs, x, names=names)


@each_block
def test_a_dropped_branch_of_a_block_is_the_equation_s(
    kind: str, torch: ModuleType, oracle: ModuleType, device: str, rng: np.random.Generator
) -> None:
    p = 0.4
    block, config = a_block(kind, drop_path=p)
    block.to(device)
    x, seed = rng.standard_normal((9, 5, 12)), 7
    bits = np.random.default_rng(seed)

    def drop(y: Any) -> Any:
        return y * torch.tensor(naive.keep_mask((9,), p, bits))[:, None, None] / (1 - p)

    state, theirs = oracle.leaves(block.state_dict()), torch.tensor(x, requires_grad=True)
    expected, _ = oracle.block(state, theirs, config, drop)
    ours = leaf(x, device)
    with nn.use_generator(np.random.default_rng(seed)):
        y = block(ours)
    assert_close(y, expected)
    dy = rng.standard_normal(x.shape)
    expected.backward(torch.tensor(dy))
    found = gradients(y, [ours, *block.parameters()], to_device(dy, device))
    for gradient, tensor in zip(found, [theirs, *state.values()], strict=True):
        assert_close(gradient, tensor.grad)
    assert_close(block.eval()(ours), oracle.block(state, theirs, config)[0])


@each_block
@pytest.mark.parametrize("with_maps", [False, True])
def test_the_first_tokens_of_a_block_are_those_of_all_cut_off(
    kind: str, with_maps: bool, device: str, rng: np.random.Generator
) -> None:
    block, _ = a_block(kind)
    block.to(device)
    x = leaf(rng.standard_normal((2, 5, 12)), device)
    whole, cut = block(x)[:, :2], block(x, [] if with_maps else None, 2)
    assert_close(cut, whole)
    dy = to_device(rng.standard_normal(cut.shape), device)
    sources = [x, *block.parameters()]
    pairs = zip(gradients(cut, sources, dy), gradients(whole, sources, dy), strict=True)
    for found, expected in pairs:
        assert_close(found, expected)


@each_block
def test_each_attention_of_a_block_gives_its_weights(kind: str, rng: np.random.Generator) -> None:
    block, _ = a_block(kind)
    maps: list[Tensor] = []
    block(Tensor(rng.standard_normal((2, 5, 12))), maps)
    assert [weights.shape for weights in maps] == [(2, 3, 5, 5)] * (1 + (kind == "parallel_things"))


def test_a_parallel_block_is_timm_s_with_its_first_layers_joined(
    torch: ModuleType, oracle: ModuleType, rng: np.random.Generator
) -> None:
    """timm's ParallelScalingBlock, written out: one product gives the MLP's input and q, k, v."""
    block, config = a_block("parallel", norm="rms", qk_norm=True)
    state = oracle.leaves(block.state_dict())
    x = rng.standard_normal((2, 5, 12))
    t = torch.tensor(x)
    linear = torch.nn.functional.linear
    weight, bias = (
        torch.cat([state[f"mlp.fc1.{kind}"], state[f"attn.qkv.{kind}"]])
        for kind in ("weight", "bias")
    )
    normed = torch.nn.functional.rms_norm(t, (12,), state["norm.weight"], config.norm_eps)
    hidden, qkv = linear(normed, weight, bias).split([24, 36], dim=-1)
    q, k, v = qkv.reshape(2, 5, 3, 3, 4).permute(2, 0, 3, 1, 4)
    q, k = (
        torch.nn.functional.rms_norm(y, (4,), state[f"attn.{name}.weight"], config.norm_eps)
        for y, name in ((q, "q_norm"), (k, "k_norm"))
    )
    attended = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    y = linear(attended.transpose(1, 2).reshape(2, 5, 12), state["attn.proj.weight"])
    y = y + linear(torch.nn.functional.gelu(hidden), state["mlp.fc2.weight"])
    y = y + state["attn.proj.bias"] + state["mlp.fc2.bias"]
    assert_close(block(Tensor(x)), t + state["ls.gamma"] * y)


@each_block
def test_a_block_has_the_norm_it_is_told_to_have_everywhere(kind: str) -> None:
    block, _ = a_block(kind, norm="rms", qk_norm=True, norm_eps=1e-3)
    norms = [module for _, module in block.named_modules() if hasattr(module, "eps")]
    assert {(type(norm), norm.eps) for norm in norms} == {(nn.RMSNorm, 1e-3)}


def test_the_norms_of_a_res_post_block_start_as_its_layer_scale() -> None:
    config = SMALL.replace(block="res_post_norm", layer_scale=0.25)
    block = components.block(config, 0, np.random.default_rng(0))
    for norm in (block.norm1, block.norm2):
        assert_same_bits(norm.weight, np.full(12, 0.25, np.float32))
    names = [name for name, _ in block.named_parameters()]
    assert not any("ls" in name for name in names)


def test_a_layer_scale_of_zero_leaves_the_norms_of_a_res_post_block_at_one() -> None:
    block = components.block(SMALL.replace(block="res_post_norm"), 0, np.random.default_rng(0))
    assert_same_bits(block.norm1.weight, np.ones(12, np.float32))


def test_parallel_things_have_timm_s_names() -> None:
    block, _ = a_block("parallel_things")
    layers = {"attns": ("attn.qkv", "attn.proj"), "ffns": ("mlp.fc1", "mlp.fc2")}
    expected = {
        f"{kind}.{number}.{name}"
        for kind, inner in layers.items()
        for number in (0, 1)
        for layer in ("norm", *inner)
        for name in (f"{layer}.weight", f"{layer}.bias", "ls.gamma")
    }
    assert set(block.state_dict()) == expected
