"""The whole model against one written out in PyTorch: logits, loss, every gradient, training."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tolerances import as_numpy, assert_close, relative_l2, tolerance

from numpyvit import Tensor, create_model, functional, gradients
from numpyvit.backend import to_device
from numpyvit.check import gradcheck
from numpyvit.models import VisionTransformer, ViTConfig
from numpyvit.optim import AdamW

WITH_FINAL_NORM = ViTConfig(
    image_size=12, patch_size=4, num_classes=5, embed_dim=24, depth=3, num_heads=3
)


def cifar_model(dtype: Any) -> VisionTransformer:
    model = create_model("vit_cifar_patch4_32", dropout=0.0, attention_dropout=0.0)
    return roughened(model, dtype)


def roughened(model: VisionTransformer, dtype: Any) -> VisionTransformer:
    """Weights of a size that training gives them, so that no part of the model is near zero."""
    rng = np.random.default_rng(5)
    for parameter in model.to(dtype).parameters():
        parameter.data += (0.1 * rng.standard_normal(parameter.shape)).astype(dtype)
    return model


# Each has several of the parts that published ViTs differ in.
VARIED: dict[str, dict[str, Any]] = {
    "with final norm": {},
    "oblong images and patches": {"image_size": (8, 12), "patch_size": (4, 2)},
    "without qkv bias": {"qkv_bias": False, "norm_eps": 1e-5, "mlp_ratio": 2.5},
    "distilled": {"distillation_token": True, "distillation_head": True, "layer_scale": 0.1},
    "mean of patches": {"pooling": "avg", "final_norm": False, "head_norm": True},
    "no class token": {
        "class_token": False,
        "pooling": "avg",
        "positions": "patches",
        "pre_logits": 7,
    },
    "registers": {
        "num_registers": 2,
        "positions": "patches",
        "mlp": "swiglu",
        "activation": "silu",
        "pooling": "token_avg",
        "head_norm": True,
    },
    "attention pool": {
        "class_token": False,
        "pooling": "map",
        "qk_norm": True,
        "activation": "gelu_tanh",
    },
    "norm before the blocks": {
        "pre_norm": True,
        "patch_bias": False,
        "activation": "quick_gelu",
        "qk_norm": True,
    },
    "norms after the sums": {"block": "post_norm", "final_norm": False, "layer_scale": 0.5},
    "norms after the branches": {
        "block": "res_post_norm",
        "norm": "rms",
        "layer_scale": 0.5,
        "pooling": "max",
    },
    "attention beside an MLP": {
        "block": "parallel",
        "norm": "rms",
        "qk_norm": True,
        "mlp": "swiglu",
        "activation": "silu",
        "layer_scale": 0.5,
        "pooling": "score",
    },
    "two attentions, then two MLPs": {
        "block": "parallel_things",
        "class_token": False,
        "pooling": "map",
        "norm": "rms",
        "activation": "relu",
        "layer_scale": 0.5,
    },
    "no positions": {"positions": "none"},
    "sines and cosines": {"positions": "sincos", "num_registers": 1},
    "sines and cosines of MAE": {"positions": "sincos_mae", "class_token": False, "pooling": "avg"},
    "relative bias": {"positions": "relative", "num_registers": 2, "image_size": (8, 16)},
    "relative bias between patches alone": {
        "positions": "relative",
        "class_token": False,
        "pooling": "avg",
        "qk_norm": True,
    },
    "rotary": {"positions": "rotary", "num_registers": 2, "image_size": (8, 16)},
    "rotary after normed queries and keys": {"positions": "rotary", "qk_norm": True},
}


def varied_model(name: str) -> Callable[[Any], VisionTransformer]:
    config = WITH_FINAL_NORM.replace(**VARIED[name])
    return lambda dtype: roughened(VisionTransformer(config), dtype)


MODELS = {"cifar": cifar_model, **{name: varied_model(name) for name in VARIED}}


def a_batch(
    model: VisionTransformer, size: int, dtype: Any, seed: int = 0, device: str = "cpu"
) -> Any:
    rng = np.random.default_rng(seed)
    config = model.config
    images = rng.standard_normal((size, config.in_channels, *config.image_shape)).astype(dtype)
    labels = rng.integers(0, config.num_classes, size)
    return to_device(images, device), to_device(labels, device)


def torchs(torch: ModuleType, array: Any, **options: Any) -> Any:
    """`array`, wherever it is, as a tensor of PyTorch's on the CPU."""
    return torch.tensor(as_numpy(array), **options)


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest, dtype: np.dtype, device: str) -> VisionTransformer:
    return MODELS[request.param](dtype).to(device)


@pytest.fixture
def oracle(torch: ModuleType) -> ModuleType:
    return importlib.import_module("core.torch_vit")  # not before PyTorch is known to be there


def test_logits_attention_and_hidden_states_are_pytorchs(
    model: VisionTransformer,
    oracle: ModuleType,
    torch: ModuleType,
    dtype: np.dtype,
    device: str,
) -> None:
    images, _ = a_batch(model, 3, dtype, device=device)
    state = oracle.leaves(model.state_dict())
    expected = oracle.forward(state, torchs(torch, images), model.config)
    assert_close(model(images), expected["logits"])
    out = model(images, return_attention=True, return_hidden_states=True)
    assert_close(out.logits, expected["logits"])
    for name in ("attention", "hidden_states"):
        for ours, theirs in zip(getattr(out, name), expected[name], strict=True):
            assert_close(ours, theirs)


def test_the_loss_and_every_gradient_are_pytorchs(
    model: VisionTransformer,
    oracle: ModuleType,
    torch: ModuleType,
    dtype: np.dtype,
    device: str,
) -> None:
    images, labels = a_batch(model, 4, dtype, device=device)
    state = oracle.leaves(model.state_dict())
    expected = oracle.loss(state, torchs(torch, images), torchs(torch, labels), model.config)
    expected.backward()

    loss = functional.cross_entropy(model(images), labels)
    loss.backward()
    assert_close(loss, expected)
    assert list(state) == [name for name, _ in model.named_parameters()]
    for name, parameter in model.named_parameters():
        scale = None
        if name.endswith("k_norm.bias"):  # adds the same to all scores of a row: no effect
            scale = float(state[name.replace("k_norm", "q_norm")].grad.norm())
        assert_close(parameter.grad, state[name].grad, op=name, scale=scale)


def test_the_gradient_of_the_image_is_pytorchs(
    oracle: ModuleType, torch: ModuleType, dtype: np.dtype, device: str
) -> None:
    model = cifar_model(dtype).to(device)
    images, labels = a_batch(model, 2, dtype, device=device)
    theirs = torchs(torch, images, requires_grad=True)
    state = oracle.leaves(model.state_dict())
    oracle.loss(state, theirs, torchs(torch, labels), model.config).backward()
    ours = Tensor(images, requires_grad=True)
    found = gradients(functional.cross_entropy(model(ours), labels), [ours])[0]
    assert_close(found, theirs.grad)


def test_a_gradient_step_in_any_one_direction_is_what_the_loss_does(device: str) -> None:
    model = MODELS["with final norm"]("float64").to(device)
    images, labels = a_batch(model, 2, "float64", device=device)

    class Loss(type(model)):  # type: ignore[misc]
        def __init__(self) -> None:
            self.model = model

        def forward(self, x: Any) -> Any:
            return functional.cross_entropy(self.model(x), labels)

    assert gradcheck(Loss(), [images], directions=1).ok


@pytest.mark.parametrize("image_size", [16, pytest.param(32, marks=pytest.mark.slow)])
def test_100_training_steps_have_pytorchs_losses(
    oracle: ModuleType, torch: ModuleType, image_size: int
) -> None:
    options = {"image_size": image_size, "dropout": 0.0, "attention_dropout": 0.0}
    model = create_model("vit_cifar_patch4_32", **options).to("float64")
    state = oracle.leaves(model.state_dict())
    settings = {"lr": 1e-3, "weight_decay": 1e-2}
    ours = AdamW(model.parameters(), **settings)
    theirs = torch.optim.AdamW(state.values(), **settings)
    losses: list[tuple[float, float]] = []
    for step in range(100):
        images, labels = a_batch(model, 4, "float64", seed=step % 5)
        loss = functional.cross_entropy(model(images), labels)
        ours.zero_grad()
        loss.backward()
        ours.step()

        expected = oracle.loss(state, torch.tensor(images), torch.tensor(labels), model.config)
        theirs.zero_grad()
        expected.backward()
        theirs.step()
        losses.append((loss.item(), expected.item()))
    found, expected_losses = np.array(losses).T
    assert found[-1] < found[0] / 2  # it learned something
    worst = max(relative_l2(a, b) for a, b in zip(found, expected_losses, strict=True))
    assert worst <= tolerance("float64"), f"relative distance {worst:.1e}"
