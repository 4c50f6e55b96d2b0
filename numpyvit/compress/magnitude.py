"""Weights near zero made zero, and held there."""

from __future__ import annotations

from collections.abc import Mapping

from numpyvit.backend import Array, array_module
from numpyvit.nn import Module, Parameter


def _matrices(model: Module) -> dict[str, Parameter]:
    """The weights of all linear layers and convolutions; ValueError where there are none."""
    found = {
        name: parameter
        for name, parameter in model.named_parameters()
        if name.endswith("weight") and parameter.ndim > 1
    }
    if not found:
        raise ValueError(
            "[compress] expected a model with linear layers or convolutions, got "
            f"{type(model).__name__}"
        )
    return found


def magnitude_masks(model: Module, sparsity: float, *, per_layer: bool = False) -> dict[str, Array]:
    """Which weights stay (True) when the share `sparsity` of smallest ones goes (Han et al. 2015).

    Of all matrices together, or of each alone `per_layer`; vectors, tokens and positions are left
    out. Of equal weights the first ones go. Raises ValueError unless 0 <= sparsity < 1.
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f"[magnitude_masks] expected 0 <= sparsity < 1, got {sparsity}")
    sizes = {name: abs(parameter.data) for name, parameter in _matrices(model).items()}
    if per_layer:
        return {name: _largest(size, sparsity) for name, size in sizes.items()}
    xp = array_module(*sizes.values())
    together = _largest(xp.concatenate([size.ravel() for size in sizes.values()]), sparsity)
    masks, start = {}, 0
    for name, size in sizes.items():
        masks[name] = together[start : start + size.size].reshape(size.shape)
        start += size.size
    return masks


def apply_masks(model: Module, masks: Mapping[str, Array]) -> None:
    """Set what `masks` leave out to zero, in place: once, and after every step of training.

    Momentum would move pruned weights even without gradients. Raises ValueError for masks that do
    not fit, before any is applied.
    """
    parameters = _matrices(model)
    shapes = {name: parameter.shape for name, parameter in parameters.items()}
    if strange := [name for name, mask in masks.items() if shapes.get(name) != mask.shape]:
        raise ValueError(
            "[apply_masks] expected masks of this model's weights, got another name or shape for "
            f"{', '.join(strange[:5])}"
        )
    for name, mask in masks.items():
        parameters[name].data *= mask


def sparsity(model: Module) -> float:
    """The share of zeros in the weights of all linear layers and convolutions."""
    weights = [parameter.data for parameter in _matrices(model).values()]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return zeros / sum(weight.size for weight in weights)


def _largest(sizes: Array, without: float) -> Array:
    """True for all but the share `without` of smallest ones."""
    xp = array_module(sizes)
    order = xp.argsort(sizes.ravel(), kind="stable")
    mask = xp.ones(sizes.size, bool)
    mask[order[: round(without * sizes.size)]] = False
    return mask.reshape(sizes.shape)
