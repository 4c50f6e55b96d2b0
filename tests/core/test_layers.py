"""Layers against PyTorch's with shared weights, and what only this package has."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from core.layer_parity import assert_parity, leaf, our_names, share
from tolerances import assert_close, assert_same_bits

from numpyvit import Tensor, functional, nn
from numpyvit.backend import to_device


@pytest.mark.parametrize("bias", [True, False])
def test_linear_is_pytorchs(
    bias: bool, torch: ModuleType, device: str, rng: np.random.Generator, dtype: np.dtype
) -> None:
    ours = nn.Linear(5, 7, bias=bias, rng=rng)
    theirs = share(ours, torch.nn.Linear(5, 7, bias=bias), dtype)
    assert_parity(torch, device, ours, theirs, rng.standard_normal((2, 3, 5)).astype(dtype))


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3},
        {"kernel_size": (2, 3), "stride": (2, 1), "padding": (0, 2)},
        {"kernel_size": 4, "stride": 4, "bias": False},
    ],
)
def test_conv2d_is_pytorchs(
    options: dict[str, Any],
    torch: ModuleType,
    device: str,
    rng: np.random.Generator,
    dtype: np.dtype,
) -> None:
    ours = nn.Conv2d(3, 5, **options, rng=rng)
    theirs = share(ours, torch.nn.Conv2d(3, 5, **options), dtype)
    assert_parity(torch, device, ours, theirs, rng.standard_normal((2, 3, 8, 9)).astype(dtype))


def test_layer_norm_is_pytorchs(
    torch: ModuleType, device: str, rng: np.random.Generator, dtype: np.dtype
) -> None:
    ours = nn.LayerNorm(8, eps=1e-5)
    theirs = share(ours, torch.nn.LayerNorm(8, eps=1e-5), dtype)
    assert_parity(torch, device, ours, theirs, 3 + rng.standard_normal((2, 4, 8)).astype(dtype))


def test_attention_is_pytorchs_multi_head_attention(
    torch: ModuleType, device: str, rng: np.random.Generator, dtype: np.dtype
) -> None:
    ours = nn.Attention(12, 3, rng=rng)
    theirs = torch.nn.MultiheadAttention(12, 3, batch_first=True)
    names = our_names(theirs)
    theirs = share(ours, theirs, dtype, names)
    x = rng.standard_normal((2, 5, 12)).astype(dtype)
    maps: list[Tensor] = []
    ours.to(device)
    y = ours(leaf(x, device), maps)
    t = torch.tensor(x)
    expected, weights = theirs(t, t, t, average_attn_weights=False)
    assert_close(y, expected)
    assert_close(ours(leaf(x, device)), expected)
    assert_close(maps[0], weights)

    dy = rng.standard_normal(y.shape).astype(dtype)
    expected.backward(torch.tensor(dy))
    ours(leaf(x, device)).backward(to_device(dy, device))
    state = dict(ours.named_parameters())
    for name, tensor in theirs.named_parameters():
        assert_close(state[names[name]].grad, tensor.grad, op=name)


@pytest.mark.parametrize("qkv_bias", [True, False])
def test_attention_head_by_head_is_the_fused_one(
    qkv_bias: bool, device: str, rng: np.random.Generator, dtype: np.dtype
) -> None:
    fused = nn.Attention(12, 3, qkv_bias=qkv_bias, rng=rng).to(dtype, device)
    by_head = nn.HeadwiseAttention.from_fused(fused)
    x = rng.standard_normal((2, 5, 12)).astype(dtype)
    a, b = leaf(x, device), leaf(x, device)
    y, z = fused(a), by_head(b)
    assert_close(z, y)
    dy = to_device(rng.standard_normal(y.shape).astype(dtype), device)
    y.backward(dy)
    z.backward(dy)
    assert_close(b.grad, a.grad)
    assert_close(by_head.proj.weight.grad, fused.proj.weight.grad)
    rows = fused.qkv.weight.grad.reshape(3, 3, 4, 12)  # (3 h k) d -> 3 h k d
    for number, head in enumerate(by_head.heads):
        for part, role in enumerate([head.query, head.key, head.value]):
            assert_close(role.weight.grad, rows[part, number])


def test_the_head_by_head_form_has_weights_of_its_own(rng: np.random.Generator) -> None:
    fused = nn.Attention(4, 2, rng=rng)
    by_head = nn.HeadwiseAttention.from_fused(fused)
    before = fused.qkv.weight.data.copy()
    by_head.heads[0].query.weight.data += 1
    assert_same_bits(fused.qkv.weight, before)


def test_patch_embedding_as_convolution_as_linear_layer_and_in_pytorch_are_one(
    torch: ModuleType, device: str, rng: np.random.Generator, dtype: np.dtype
) -> None:
    linear = nn.PatchEmbed(8, 4, 3, 6, rng=rng)
    conv = nn.PatchEmbed(8, 4, 3, 6, as_convolution=True)

    class Theirs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.proj = torch.nn.Conv2d(3, 6, 4, stride=4)

        def forward(self, x: Any) -> Any:
            return self.proj(x).flatten(2).transpose(1, 2)

    x = rng.standard_normal((2, 3, 8, 8)).astype(dtype)
    assert_parity(torch, device, linear, share(linear, Theirs(), dtype), x)
    conv.to(dtype).load_state_dict(linear.state_dict())
    fresh = Theirs().to(getattr(torch, dtype.name))
    for name, tensor in fresh.named_parameters():
        tensor.data[...] = torch.tensor(conv.state_dict()[name])
    assert_parity(torch, device, conv, fresh, x)
    assert linear.num_patches == 4


@pytest.mark.parametrize("kind", [nn.Dropout, nn.DropPath])
def test_noise_is_drawn_in_training_only_and_keeps_the_mean(kind: Any, device: str) -> None:
    layer, x = kind(0.3), leaf(np.ones((20_000, 4), np.float32), device)
    with nn.use_generator(np.random.default_rng(0)):
        y = layer(x)
    assert set(np.unique(y.numpy())) == {np.float32(0), np.float32(1 / 0.7)}
    assert abs(y.data.mean() - 1) < 0.02
    by_sample = y.data == y.data[:, :1]
    assert bool(by_sample.all()) == (kind is nn.DropPath)
    assert layer.eval()(x) is x
    assert kind(0.0)(x) is x


def test_the_gradient_of_dropout_is_dropped_alike(device: str) -> None:
    x = leaf(np.ones((50, 4)), device)
    y = nn.Dropout(0.5)(x)
    y.sum().backward()
    assert_same_bits(x.grad, y.data)


def noisy_block() -> nn.Block:
    rng = np.random.default_rng(0)
    attention = nn.Attention(8, 2, attention_dropout=0.2, dropout=0.2, rng=rng)
    return nn.Block(8, attention, nn.Mlp(8, 16, dropout=0.2, rng=rng), drop_path=0.2)


def noisy_output(block: nn.Block, seed: int) -> np.ndarray:
    x = Tensor(np.random.default_rng(1).standard_normal((4, 5, 8)).astype("float32"))
    with nn.use_generator(np.random.default_rng(seed)):
        return block(x).data


def test_a_generator_makes_dropout_repeatable() -> None:
    block = noisy_block()
    assert_same_bits(noisy_output(block, 3), noisy_output(block, 3))
    assert (noisy_output(block, 3) != noisy_output(block, 4)).any()


def test_eval_switches_all_randomness_off_and_train_on_again() -> None:
    block = noisy_block()
    assert_same_bits(noisy_output(block.eval(), 3), noisy_output(block, 4))
    assert not any(module.training for _, module in block.named_modules())
    assert (noisy_output(block.train(), 3) != noisy_output(block, 4)).any()


def test_the_generator_is_the_threads_own() -> None:
    block = noisy_block()
    alone = [noisy_output(block, seed) for seed in range(20)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda seed: noisy_output(block, seed), range(20)))
    for expected, found in zip(alone, together, strict=True):
        assert_same_bits(found, expected)


def test_use_generator_gives_back_the_one_before() -> None:
    outer, inner = np.random.default_rng(0), np.random.default_rng(1)
    with nn.use_generator(outer):
        with nn.use_generator(inner):
            assert nn.current_generator() is inner
        assert nn.current_generator() is outer
        with pytest.raises(KeyError), nn.use_generator(inner):
            raise KeyError
        assert nn.current_generator() is outer
    assert nn.current_generator() not in (outer, inner)


def test_starting_weights_are_pytorchs_in_distribution() -> None:
    weight = nn.Linear(100, 400, rng=np.random.default_rng(0)).weight.data
    assert np.abs(weight).max() <= 0.1
    assert abs(weight.std() - 0.1 / 3**0.5) < 1e-3
    normal = nn.init.trunc_normal((200, 200), np.random.default_rng(0))
    assert np.abs(normal).max() <= 0.04
    assert normal.dtype == np.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.Linear(0, 3), r"\[Linear\] 'in_features' must be positive but got 0"),
        (lambda: nn.Linear(3, -1), "'out_features' must be positive but got -1"),
        (lambda: nn.Conv2d(3, 4, 0), "'kernel_size' must be positive"),
        (lambda: nn.LayerNorm(-1), "'dim' must be positive"),
        (lambda: nn.LayerNorm(4, eps=0), "'eps' must be positive"),
        (lambda: nn.RMSNorm(4, eps=0), r"\[RMSNorm\] 'eps' must be positive"),
        (lambda: nn.Dropout(1.0), r"\[Dropout\].*0 <= p < 1, got 1.0"),
        (lambda: nn.DropPath(-0.1), r"\[DropPath\].*got -0.1"),
        (lambda: nn.Attention(10, 4), r"4 heads divide, got 10; take 8 or 12"),
        (lambda: nn.AttentionPool(10, 4, 8), r"4 heads divide, got 10; take 8 or 12"),
        (lambda: nn.HeadwiseAttention(10, 0), "'num_heads' must be positive"),
        (lambda: nn.PatchEmbed(10, 4, 3, 8), "multiple of the patch size 4, got 10"),
        (lambda: nn.PatchEmbed(8, 0, 3, 8), "'patch_size' must be positive"),
        (lambda: nn.Mlp(4, 8, activation_name="gleu"), "unknown name 'gleu'; did you mean 'gelu'"),
        (
            lambda: nn.PatchEmbed(8, 4, 3, 8)(Tensor(np.zeros((1, 3, 10, 10), "float32"))),
            r"images \(B, 3, 8, 8\), got \(1, 3, 10, 10\); resize",
        ),
        (
            lambda: nn.PatchEmbed(8, 4, 3, 8)(Tensor(np.zeros((3, 8, 8), "float32"))),
            r"images \(B, 3, 8, 8\), got \(3, 8, 8\)",
        ),
        (
            lambda: nn.Linear(4, 2)(Tensor(np.zeros((1, 3), "float32"))),
            r"\[linear\] expected inputs of width 4",
        ),
    ],
)
def test_a_wrong_size_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_functional_layers_and_modules_do_the_same(rng: np.random.Generator) -> None:
    layer = nn.Linear(4, 3, rng=rng)
    x = Tensor(rng.standard_normal((2, 4)).astype("float32"))
    assert_same_bits(layer(x), functional.linear(x, layer.weight, layer.bias))
