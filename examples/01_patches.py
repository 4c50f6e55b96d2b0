"""A Vision Transformer's words are patches: a photo is cut into squares and read row by row."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from shared import options, photo

from numpyvit import Tensor, functional

PATCH = 32


def main() -> None:
    chosen = options(__file__)
    image = photo(chosen.photo, 224)
    channels, height, width = image.shape
    rows, columns = height // PATCH, width // PATCH

    # (1, 3, 224, 224) -> (1, 49, 3072): one flat vector for each patch
    tokens = functional.patches(Tensor(image[None]), (PATCH, PATCH)).numpy()
    print(f"photo   {image.shape}: {image.size:,} numbers")
    print(f"patches {tokens.shape}: {rows} x {columns} of {channels} x {PATCH} x {PATCH} numbers")

    # Nothing is lost: the patches, put back in their places, are the photo.
    squares = tokens.reshape(rows, columns, channels, PATCH, PATCH)
    rebuilt = squares.transpose(2, 0, 3, 1, 4).reshape(image.shape)
    print(f"put together again, equal to the photo: {np.array_equal(rebuilt, image)}")

    draw(image, squares).savefig(chosen.picture)
    print(f"saved {chosen.picture}")


def draw(image: np.ndarray, squares: np.ndarray) -> Figure:
    rows, columns = squares.shape[:2]
    figure = Figure(figsize=(10, 6.4))
    grid = figure.add_gridspec(1, 2, top=0.95, bottom=0.22, left=0.02, right=0.98, wspace=0.04)
    left, right = grid.subplots()
    left.imshow(image.transpose(1, 2, 0))
    left.set_title("the photo")
    right.imshow(spread(squares, gap=6))
    right.set_title(f"{rows * columns} patches")

    sentence = figure.add_axes((0.02, 0.03, 0.96, 0.14))
    first = squares.reshape(1, -1, *squares.shape[2:])[:, 2 * columns : 4 * columns]
    sentence.imshow(spread(first, gap=6))
    sentence.set_title("the sequence that the transformer reads (rows 3 and 4 of it)", fontsize=10)
    for axes in (left, right, sentence):
        axes.set_axis_off()
    return figure


def spread(squares: np.ndarray, gap: int) -> np.ndarray:
    """Patches (rows, columns, C, P, P) side by side on white, `gap` pixels apart."""
    padded = np.pad(squares, [(0, 0)] * 3 + [(gap // 2, gap // 2)] * 2, constant_values=1)
    rows, columns, channels, side, _ = padded.shape
    lines = padded.transpose(0, 3, 1, 4, 2)  # r c k p q -> r p c q k
    return lines.reshape(rows * side, columns * side, channels)


if __name__ == "__main__":
    main()
