"""Losses: one number to walk back from."""

from __future__ import annotations

from numpyvit.backend import Array, array_module
from numpyvit.ops.types import Needs, OpResult

_REDUCTIONS = ("mean", "sum")


def cross_entropy(
    logits: Array, target: Array, /, label_smoothing: float = 0.0, reduction: str = "mean"
) -> OpResult:
    """Cross-entropy of softmax(`logits`) against `target`, over the last axis.

    `logits` (..., C). `target` is class indices (...) or probabilities (..., C). `label_smoothing`
    mixes the target with the uniform distribution (Szegedy et al. 2016). The loss is averaged
    ("mean") or added ("sum") over all axes but the last. Raises ValueError for labels outside
    [0, C), for shapes that do not fit, for smoothing outside [0, 1].
    """
    xp = array_module(logits, target)
    target = xp.asarray(target)
    scale = _scale(reduction, logits.size // logits.shape[-1], "cross_entropy")
    wanted = _target_distribution(logits, target, label_smoothing)
    log_p = logits - logits.max(-1, keepdims=True)
    log_p -= xp.log(xp.exp(log_p).sum(-1, keepdims=True))

    def pullback(dy: Array, needs: Needs = (True, False)) -> tuple[Array | None, ...]:
        dlogits = dtarget = None
        if needs[0]:
            dlogits = xp.exp(log_p) * wanted.sum(-1, keepdims=True)
            dlogits -= wanted
            dlogits *= dy * scale
        if needs[1]:
            dtarget = log_p * (-(1 - label_smoothing) * scale) * dy
        return dlogits, dtarget

    counted = xp.where(wanted, log_p, 0)  # a class of probability 0 counts nothing, even at -inf
    return -(counted * wanted).sum() * scale, pullback


def mse(x: Array, target: Array, /, reduction: str = "mean") -> OpResult:
    """Mean ("mean") or sum ("sum") of squared differences of two arrays of one shape."""
    given = array_module(x, target).shape(target)
    if given != x.shape:
        raise ValueError(f"[mse] expected a target of shape {x.shape}, got {given}")
    scale = _scale(reduction, x.size, "mse")
    difference = x - target

    def pullback(dy: Array, needs: Needs = (True, True)) -> tuple[Array | None, ...]:
        dx = difference * (2 * scale)
        dx *= dy
        return dx if needs[0] else None, -dx if needs[1] else None

    return (difference * difference).sum() * scale, pullback


def _target_distribution(logits: Array, target: Array, label_smoothing: float) -> Array:
    """`target` as probabilities of the shape and dtype of `logits`, smoothed."""
    classes = logits.shape[-1]
    if not 0 <= label_smoothing <= 1:
        raise ValueError(
            f"[cross_entropy] expected 0 <= label_smoothing <= 1, got {label_smoothing}"
        )
    if target.dtype.kind in "iu" and target.shape == logits.shape[:-1]:
        if target.size and not (int(target.min()) >= 0 and int(target.max()) < classes):
            raise ValueError(
                f"[cross_entropy] expected labels from 0 to {classes - 1}, "
                f"got {int(target.min())} to {int(target.max())}"
            )
        xp = array_module(logits)
        wanted = (target[..., None] == xp.arange(classes)).astype(logits.dtype)
    elif target.dtype.kind == "f" and target.shape == logits.shape:
        wanted = target.astype(logits.dtype)
    else:
        raise ValueError(
            f"[cross_entropy] expected class indices of shape {logits.shape[:-1]} or probabilities "
            f"of shape {logits.shape}, got {target.dtype} of shape {target.shape}"
        )
    wanted *= 1 - label_smoothing
    wanted += label_smoothing / classes
    return wanted


def _scale(reduction: str, count: int, op: str) -> float:
    if reduction not in _REDUCTIONS:
        raise ValueError(f"[{op}] expected reduction 'mean' or 'sum', got {reduction!r}")
    if count == 0:
        raise ValueError(f"[{op}] expected at least one value to take the loss of, got none")
    return 1 / count if reduction == "mean" else 1.0
