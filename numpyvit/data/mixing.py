"""Mixup and CutMix: every picture of a batch mixed with another, its label in proportion."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numpyvit.backend import suggest

MODES = ("batch", "pair")

Images = NDArray[Any]
Targets = NDArray[np.float32]


class Mixing:
    """Mixup or CutMix: `(images, labels, rng) -> (images, targets)`.

    Picture i meets picture B - 1 - i, its partner. Mixup (Zhang et al. 2018) blends the two,

        lam * picture + (1 - lam) * partner,    lam ~ Beta(alpha, alpha)

    and CutMix (Yun et al. 2019, algorithm 1) pastes a box of the partner's, whose sides are
    sqrt(1 - lam) of the picture's; what the border cuts off counts as the picture's own. Targets
    are mixed by the shares that are seen. Images (B, C, H, W), float or uint8 (rounded), keep their
    dtype; labels (B,) become probabilities (B, num_classes), float32. Inputs stay as they are.

    An alpha of 0 switches that kind off. Where both are on, `switch_probability` is that of CutMix.
    Nothing is mixed with probability 1 - `probability`. In mode "batch" one draw serves the whole
    batch, in mode "pair" each two pictures that mix have their own. In an odd batch the picture in
    the middle stays itself. `label_smoothing` acts as in `functional.cross_entropy`: do not use it
    in both. Defaults are those of DeiT (Touvron et al. 2021, table 9), without its smoothing.

    Raises ValueError for settings out of range, for labels that are not classes, and where there
    is not one for each picture.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        mixup_alpha: float = 0.8,
        cutmix_alpha: float = 1.0,
        probability: float = 1.0,
        switch_probability: float = 0.5,
        mode: str = "batch",
        label_smoothing: float = 0.0,
    ) -> None:
        if num_classes < 1:
            raise ValueError(f"[Mixing] expected at least 1 class, got {num_classes}")
        alphas = (mixup_alpha, cutmix_alpha)
        if not (all(0 <= alpha < np.inf for alpha in alphas) and any(alphas)):
            raise ValueError(
                f"[Mixing] expected alphas of at least 0, one of them above 0, got mixup_alpha="
                f"{mixup_alpha} and cutmix_alpha={cutmix_alpha}"
            )
        for name, value in (
            ("probability", probability),
            ("switch_probability", switch_probability),
            ("label_smoothing", label_smoothing),
        ):
            if not 0 <= value <= 1:
                raise ValueError(f"[Mixing] expected {name} from 0 to 1, got {value}")
        if mode not in MODES:
            raise ValueError(f"[Mixing] unknown mode {mode!r}; {suggest(mode, MODES)}")
        self.num_classes, self.mode = num_classes, mode
        self.mixup_alpha, self.cutmix_alpha = mixup_alpha, cutmix_alpha
        self.probability, self.label_smoothing = probability, label_smoothing
        self.switch_probability = switch_probability if all(alphas) else float(cutmix_alpha > 0)

    def __call__(
        self, images: Images, labels: NDArray[np.integer], rng: np.random.Generator
    ) -> tuple[Images, Targets]:
        """Mixed images, and how much of each class is in them."""
        own = one_hot(labels, self.num_classes, self.label_smoothing)
        if len(own) != len(images):
            raise ValueError(
                f"[Mixing] expected a label for each of {len(images)} pictures, got {len(own)}"
            )
        share, cuts = self._draw(1 if self.mode == "batch" else len(images) // 2, rng)
        boxes = cutmix_boxes(share, images.shape[-2:], rng)
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        seen = np.where(cuts, 1 - area / (images.shape[-2] * images.shape[-1]), share)
        mixed = _blended(images, self._spread(np.where(cuts, 1.0, share), len(images)))
        for number in np.flatnonzero(cuts & (area > 0)):
            pair = [number, len(images) - 1 - number]
            rows = slice(None) if self.mode == "batch" else np.array(pair)
            top, left, bottom, right = boxes[number]
            place = (rows, slice(None), slice(top, bottom), slice(left, right))
            mixed[place] = images[::-1][place]
        weights = self._spread(seen, len(images))[:, None]
        return mixed, own * weights + own[::-1] * (1 - weights)

    def __repr__(self) -> str:
        return (
            f"Mixing({self.num_classes}, mixup_alpha={self.mixup_alpha}, "
            f"cutmix_alpha={self.cutmix_alpha}, probability={self.probability}, "
            f"switch_probability={self.switch_probability}, mode={self.mode!r}, "
            f"label_smoothing={self.label_smoothing})"
        )

    def _draw(
        self, count: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """The picture's own shares (count,), and which are cut instead of blended."""
        mixes = rng.random(count) < self.probability
        cuts = rng.random(count) < self.switch_probability  # nothing, where the share is 1
        alphas = np.where(cuts, self.cutmix_alpha, self.mixup_alpha)
        alphas = np.where(alphas > 0, alphas, 1.0)  # of what is not mixed: Beta takes no 0
        return np.where(mixes, rng.beta(alphas, alphas), 1.0), cuts

    def _spread(self, values: NDArray[np.float64], count: int) -> Targets:
        """What was drawn, for each of the `count` pictures; 1 for one without a partner."""
        if self.mode == "batch":
            return np.full(count, values[0], np.float32)
        middle = np.ones(count % 2)
        return np.concatenate([values, middle, values[::-1]]).astype(np.float32)


def one_hot(labels: NDArray[np.integer], num_classes: int, label_smoothing: float = 0.0) -> Targets:
    """Labels (B,) as probabilities (B, num_classes), float32; smoothed as Szegedy et al. 2016.

    Raises ValueError for labels of another kind, and for those outside 0 to `num_classes` - 1.
    """
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(
            f"[one_hot] expected whole numbers (B,) as labels, got {labels.dtype} of shape "
            f"{labels.shape}; mix pictures once"
        )
    if labels.size and not (labels.min() >= 0 and labels.max() < num_classes):
        raise ValueError(
            f"[one_hot] expected labels from 0 to {num_classes - 1}, got {labels.min()} to "
            f"{labels.max()}"
        )
    off = label_smoothing / num_classes
    result = np.full((len(labels), num_classes), off, np.float32)
    result[np.arange(len(labels)), labels] = 1 - label_smoothing + off
    return result


def cutmix_boxes(
    share: NDArray[np.float64], size: tuple[int, ...], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Boxes (n, 4) as (top, left, bottom, right) that leave about `share` (n,) of a picture.

    Each side is sqrt(1 - share) of the picture's `size` (height, width), cut down to whole pixels;
    the centre lies anywhere, and what sticks out is cut off (Yun et al. 2019, equation 2).
    """
    sides = np.array(size)
    cut = (sides * np.sqrt(1 - share)[:, None]).astype(np.int64)
    centre = rng.integers(0, sides, (len(share), 2))
    low = np.maximum(centre - cut // 2, 0)
    high = np.minimum(centre + (cut + 1) // 2, sides)
    return np.concatenate([low, high], 1)


def _blended(images: Images, own: NDArray[np.float32]) -> Images:
    """A copy, of each picture `own` (B,) and of its partner the rest."""
    if (own == 1).all():
        return images.copy()
    weights = own[:, None, None, None]
    mixed = images * weights
    mixed += images[::-1] * (1 - weights)
    if images.dtype.kind != "f":
        np.rint(mixed, out=mixed)
    return mixed.astype(images.dtype, copy=False)
