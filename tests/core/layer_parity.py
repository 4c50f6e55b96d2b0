"""A layer beside PyTorch's: shared weights, equal outputs, equal gradients."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from tolerances import assert_close

from numpyvit import Tensor, gradients, nn
from numpyvit.backend import to_device

# PyTorch's names of the parts of an encoder layer, and ours.
_NAMES = {
    "self_attn.": "attn.",
    "in_proj_": "qkv.",
    "out_proj.": "proj.",
    "linear1.": "mlp.fc1.",
    "linear2.": "mlp.fc2.",
}


def our_names(theirs: Any) -> dict[str, str]:
    """By the names of the parameters of PyTorch's attention or encoder layer, ours."""
    names = {}
    for name, _ in theirs.named_parameters():
        ours = name
        for part, other in _NAMES.items():
            ours = ours.replace(part, other)
        names[name] = ours
    return names


def share(
    ours: nn.Module, theirs: Any, dtype: np.dtype, names: dict[str, str] | None = None
) -> Any:
    """`theirs` in `dtype` with the weights of `ours`; `names` maps its names to ours."""
    ours.to(dtype)
    for _, parameter in ours.named_parameters():  # so that norms are not ones and zeros
        noise = np.random.default_rng(parameter.size).standard_normal(parameter.shape)
        parameter.data = parameter.data + (0.1 * noise).astype(dtype)
    torch_dtype = {"float32": "float", "float64": "double"}[np.dtype(dtype).name]
    theirs = getattr(theirs, torch_dtype)()
    state = ours.state_dict()
    for name, tensor in theirs.named_parameters():
        tensor.data[...] = tensor.new_tensor(state[(names or {}).get(name, name)])
    return theirs


def leaf(x: np.ndarray, device: str) -> Tensor:
    return Tensor(to_device(x, device), requires_grad=True)


def assert_parity(
    torch: ModuleType, device: str, ours: Any, theirs: Any, x: np.ndarray, **names: Any
) -> None:
    """Equal outputs, equal gradients of the input and of every parameter; `ours` on `device`."""
    ours.to(device)
    ours_x, theirs_x = leaf(x, device), torch.tensor(x, requires_grad=True)
    y, expected = ours(ours_x), theirs(theirs_x)
    assert_close(y, expected)
    dy = np.random.default_rng(1).standard_normal(y.shape).astype(x.dtype)
    expected.backward(torch.tensor(dy))
    parameters = dict(ours.named_parameters())
    found = gradients(y, [ours_x, *parameters.values()], to_device(dy, device))
    assert_close(found[0], theirs_x.grad)
    translated = {
        names.get("names", {}).get(name, name): tensor for name, tensor in theirs.named_parameters()
    }
    assert translated.keys() == parameters.keys()
    for name, gradient in zip(parameters, found[1:], strict=True):
        assert_close(gradient, translated[name].grad, op=name)
