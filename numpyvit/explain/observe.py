"""Runs a model, a few images at a time, and notes its attention and the gradients of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from numpyvit.backend import Array, to_device, to_numpy
from numpyvit.explain.tokens import Floats
from numpyvit.models import ImageModel, ViTOutput
from numpyvit.nn import Module
from numpyvit.tensor import Tensor, gradients, no_grad

Target = int | Sequence[int] | NDArray[np.integer] | None

ALL = slice(None)  # blocks
# Images at a time: more would not be faster. A ViT-B/16 keeps 25 MB of weights for each, and a tape
# of 200 MB where gradients are asked for.
_AT_ONCE, _WITH_TAPE = 4, 2


@dataclass(frozen=True)
class Observed:
    """Attention weights (B, H, N, N) by block, and the gradients of the targets' logits to them.

    Of a block with several attentions side by side, the heads of all, in their order.
    `gradients` is empty where not asked for; `targets` (B,) are the classes that they belong to.
    """

    attention: list[Floats]
    gradients: list[Floats]
    targets: NDArray[np.intp]


@contextlib.contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """Evaluation mode inside the block; after it, every module is in the mode that it was in."""
    modes = [(module, module.training) for _, module in model.named_modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def observe_attention(model: ImageModel, images: Array, blocks: slice = ALL) -> Iterator[Observed]:
    """The attention of `images` (B, C, H, W), a few images after the other, in evaluation mode."""
    _check_attends_globally(model)
    for start in range(0, _checked(images), _AT_ONCE):
        with evaluating(model), no_grad():
            group = to_device(images[start : start + _AT_ONCE], model.device)
            output: ViTOutput = model(group, return_attention=True)
        groups = _by_block(model, output)[blocks]
        attention = [_as_one([weights.data for weights in each]) for each in groups]
        yield Observed(attention, [], to_numpy(output.logits.data).argmax(-1))


def observe_gradients(
    model: ImageModel, images: Array, target: Target = None, blocks: slice = ALL
) -> Iterator[Observed]:
    """Attention and the gradient of the target class's logit with respect to it, after softmax.

    `target` is a class for all images, one for each, or None: the class that the model predicts.
    Of a model with two heads the logit is their mean. No parameter's gradient is computed or
    changed. Raises ValueError for a class that the model does not have, and for one whose attention
    is not between all tokens, RuntimeError inside no_grad().
    """
    _check_attends_globally(model)
    for output, seed, chosen in _with_tape(model, images, target, return_attention=True):
        groups = _by_block(model, output)[blocks]
        weights = [tensor for each in groups for tensor in each]
        found = iter(gradients(output.logits, weights, seed))
        attention = [_as_one([tensor.data for tensor in each]) for each in groups]
        slopes = [_as_one([next(found) for _ in each]) for each in groups]
        del output, groups, weights  # what is left of the tape, before the caller works
        yield Observed(attention, slopes, chosen)


def observe_tokens(
    model: ImageModel, images: Array, target: Target, block: int
) -> Iterator[tuple[Floats, Floats]]:
    """The tokens (B, N, D) that come out of a block, and the gradient of a logit to them.

    Errors and everything else as in `observe_gradients`.
    """
    for output, seed, _ in _with_tape(model, images, target, return_hidden_states=True):
        tokens = output.hidden_states[1:][block]
        (slopes,) = gradients(output.logits, [tokens], seed)
        yield to_numpy(tokens.data), to_numpy(slopes)


def _with_tape(
    model: ImageModel, images: Array, target: Target, **asked: bool
) -> Iterator[tuple[ViTOutput, Array, NDArray[np.intp]]]:
    """Outputs of a few images at a time, what the logits' gradient starts from, and the classes."""
    count = _checked(images)
    wanted = _targets(model, target, count)
    for start in range(0, count, _WITH_TAPE):
        group = to_device(images[start : start + _WITH_TAPE], model.device)
        with evaluating(model):
            # The images ask for a gradient so that a frozen model leaves a tape as well.
            output: ViTOutput = model(Tensor(group, requires_grad=True), **asked)
        logits = to_numpy(output.logits.data)
        chosen = logits.argmax(-1) if wanted is None else wanted[start : start + len(group)]
        seed = np.zeros_like(logits)
        # Images do not influence each other, so one walk back serves all of them.
        seed[np.arange(len(chosen)), chosen] = 1
        yield output, to_device(seed, model.device), chosen


def check_block(component: str, model: ImageModel, block: int) -> int:
    """The block's number counted from the first; IndexError for one that does not exist."""
    depth = len(model.blocks)
    if not -depth <= block < depth:
        raise IndexError(
            f"[{component}] expected a block from {-depth} to {depth - 1}, got {block}"
        )
    return block % depth


def _by_block(model: ImageModel, output: ViTOutput) -> list[list[Tensor]]:
    """The weights of each block's attentions: of one, as a rule."""
    maps = output.attention
    count = len(maps) // len(model.blocks)
    return [maps[start : start + count] for start in range(0, len(maps), count)]


def _as_one(arrays: list[Array]) -> Floats:
    """What several attentions side by side add up is that of one with the heads of all."""
    found = [to_numpy(array) for array in arrays]
    return found[0] if len(found) == 1 else np.concatenate(found, axis=1)


def _check_attends_globally(model: ImageModel) -> None:
    if not model.attends_globally:
        raise ValueError(
            f"[explain] expected a model whose tokens all attend to each other, got a "
            f"{type(model).__name__}, whose attention is not between all tokens of the image; take "
            "the method gradcam"
        )


def _checked(images: Array) -> int:
    if images.ndim != 4 or len(images) == 0:
        raise ValueError(
            f"[explain] expected at least one image (B, C, H, W), got shape {images.shape}"
        )
    return len(images)


def _targets(model: ImageModel, target: Target, count: int) -> NDArray[np.intp] | None:
    """One class for each image; None where the model is to choose."""
    classes = model.config.num_classes or model.config.num_features
    if target is None:
        if not model.config.num_classes:
            raise ValueError(
                "[explain] expected a model with a head, got one without classes; "
                "name the feature to explain as the target"
            )
        return None
    chosen = np.asarray(target)
    if chosen.dtype.kind not in "iu" or chosen.shape not in ((), (count,)):
        raise ValueError(
            f"[explain] expected a class, or one for each of {count} images, got {target!r}"
        )
    if np.any((chosen < 0) | (chosen >= classes)):
        raise ValueError(f"[explain] expected a class from 0 to {classes - 1}, got {target!r}")
    return np.broadcast_to(chosen, count).astype(np.intp)
