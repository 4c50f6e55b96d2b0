"""A picture of what a masked autoencoder sees, and what it paints."""

from __future__ import annotations

import math
import operator

import numpy as np
from numpy.typing import NDArray

from numpyvit.backend import Array, to_numpy
from numpyvit.explain.draw import Path
from numpyvit.explain.sheet import (
    GAP,
    LINE,
    Channels,
    check_count,
    displayable,
    grid,
    magnified,
)

_HIDDEN = 160  # the grey of hidden patches
_TITLES = ("image", "what is visible", "reconstruction", "with what is visible")
_WITHOUT = "without the model"


def draw_reconstruction(
    images: Array,
    reconstruction: Array,
    mask: Array,
    path: Path,
    *,
    mean: Channels = 0.5,
    std: Channels = 0.5,
    title: str = "",
    without: Array | None = None,
) -> None:
    """Each image beside what was visible of it and what was made of that, as a PNG at `path`.

    `images` (B, C, H, W); `reconstruction` of the same shape, what `MaskedAutoencoder.reconstruct`
    gives; `mask` (B, rows, columns), or (B, N) of a square grid, is true where a patch was hidden.
    The last of the four is the reconstruction with the visible patches pasted in: as they have no
    part in the loss, a model may make anything of them. Floats are un-normalised with `mean` and
    `std`, uint8 is shown as it is. `without` is what is known of the hidden patches before the
    model has said anything, and is drawn as a fifth picture: with `norm_pix`, which takes mean and
    contrast from the image itself, the reconstruction of a prediction of zeros. The `title` is for
    what else there is to know.
    """
    true, made = (displayable(array, mean, std) for array in (images, reconstruction))
    check_count("draw_reconstruction", len(true), reconstructions=len(made), masks=len(mask))
    if made.shape != true.shape:
        raise ValueError(
            f"[draw_reconstruction] expected a reconstruction of the images' size "
            f"{true.shape[1:3]}, got {made.shape[1:3]}"
        )
    hidden = _spread(to_numpy(mask).astype(bool), true.shape[1:3])
    seen = np.where(hidden, np.uint8(_HIDDEN), true)
    pasted = np.where(hidden, made, true)
    named = dict(zip(_TITLES, (true, seen, made, pasted), strict=True))
    if without is not None:
        named[_WITHOUT] = np.where(hidden, displayable(without, mean, std), true)
    columns = [magnified(pixels, 128) for pixels in named.values()]
    height, width = columns[0].shape[1:3]
    cell = (len(columns) * (width + 4) - 4, height)
    heading = title or f"Images of which {to_numpy(mask).mean():.0%} is hidden, reconstructed"
    sheet, places = grid(len(true), (cell[0], cell[1] + LINE), columns=2, heading=heading)
    for row, (left, top) in enumerate(places):
        for number, (title, pixels) in enumerate(zip(named, columns, strict=True)):
            x = left + number * (width + 4)
            if row < 2:
                sheet.text(title, x + width / 2, top, align="center", width=width + GAP - 10)
            sheet.image(pixels[row], x, top + LINE)
    sheet.save(path)


def _spread(mask: NDArray[np.bool_], size: tuple[int, ...]) -> NDArray[np.bool_]:
    """A mask of patches as one of pixels (B, H, W, 1)."""
    side = math.isqrt(mask.shape[1])
    if mask.ndim == 2 and side * side == mask.shape[1]:
        mask = mask.reshape(-1, side, side)
    if mask.ndim != 3 or any(map(operator.mod, size, mask.shape[1:])):
        raise ValueError(
            f"[draw_reconstruction] expected a mask of a grid of patches that fit {size}, got "
            f"one of shape {mask.shape[1:]}; (B, N) is of a square grid"
        )
    scale = [pixels // patches for pixels, patches in zip(size, mask.shape[1:], strict=True)]
    return mask.repeat(scale[0], 1).repeat(scale[1], 2)[..., None]
