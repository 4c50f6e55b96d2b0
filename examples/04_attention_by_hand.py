"""Attention in four lines: compare, scale, normalise, mix. Here patches compare their colours."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from shared import options, photo

from numpyvit import Tensor, functional

PATCH = 28
LOOKING = (9, 35, 46)  # patches whose attention is shown


def main() -> None:
    chosen = options(__file__)
    image = photo(chosen.photo, 224)
    side = image.shape[1] // PATCH
    patches = functional.patches(Tensor(image[None]), (PATCH, PATCH)).numpy()[0]

    # A token is the patch's mean colour, seen from the photo's, as a direction of length 1.
    tokens = patches.reshape(side * side, 3, -1).mean(axis=2)
    tokens -= tokens.mean(axis=0)
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    # A trained model has learned matrices for these three; here each is the token itself.
    query, key, value = 40 * tokens, tokens, tokens

    scores = query @ key.T  # how well does each query fit each key?
    scores /= np.sqrt(query.shape[1])  # else wide vectors would make the softmax too sharp
    weights = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)  # softmax: rows sum to 1
    mixed = weights @ value  # each token becomes a mean of those that it looks at

    expected = functional.scaled_dot_product_attention(Tensor(query), Tensor(key), Tensor(value))
    print(f"tokens {tokens.shape} -> scores {scores.shape} -> mixed {mixed.shape}")
    print(f"rows of the weights sum to {weights.sum(axis=1).min():.6f}..{weights.sum(1).max():.6f}")
    print(f"difference to the library: {np.abs(mixed - expected.numpy()).max():.1e}")
    for patch in LOOKING:
        most = np.argsort(weights[patch])[::-1][:4]
        print(f"patch {patch:2} looks most at {', '.join(map(str, most))}")
    draw(image, weights, side).savefig(chosen.picture)
    print(f"saved {chosen.picture}")


def draw(image: np.ndarray, weights: np.ndarray, side: int) -> Figure:
    figure = Figure(figsize=(11, 4.9))
    grid = figure.add_gridspec(
        2, 4, width_ratios=(2.2, 1, 1, 1), left=0.06, right=0.99, top=0.93, bottom=0.04
    )
    matrix = figure.add_subplot(grid[:, 0])
    matrix.imshow(np.sqrt(weights), cmap="magma", interpolation="nearest")
    matrix.set(title="weights (square root)", xlabel="patch looked at", ylabel="patch that looks")
    for column, patch in enumerate(LOOKING, start=1):
        upper, lower = (figure.add_subplot(grid[row, column]) for row in (0, 1))
        upper.imshow(image.transpose(1, 2, 0))
        row_of, column_of = divmod(patch, side)
        corner = (column_of * PATCH, row_of * PATCH)
        upper.add_patch(Rectangle(corner, PATCH, PATCH, fill=False, color="yellow", linewidth=2))
        lower.imshow(weights[patch].reshape(side, side), cmap="magma", interpolation="nearest")
        upper.set_title(f"patch {patch}", fontsize=10)
        lower.set_title("looks at", fontsize=10)
        for axes in (upper, lower):
            axes.set_axis_off()
    return figure


if __name__ == "__main__":
    main()
