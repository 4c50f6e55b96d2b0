"""Patch embedding, twice: as a convolution that strides by its kernel, and as a linear layer."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from shared import normalised, options, photo, trained_model

from numpyvit import Tensor, functional, no_grad

SHOWN = 6  # features in the picture


def main() -> None:
    chosen = options(__file__)
    saved = trained_model(chosen.weights)
    projection = saved.model.patch_embed.proj
    weight, bias = projection.weight, projection.bias
    width, channels, patch, _ = weight.shape
    image = photo(chosen.photo, 128)
    x = Tensor(normalised(image, saved))

    with no_grad():
        # One filter slides over the image, a patch at a step.
        features = functional.conv2d(x, weight, bias, stride=patch)  # (1, 48, 32, 32)
        from_convolution = features.reshape(1, width, -1).transpose(1, 2)  # b d h w -> b (h w) d

        # Every patch is a vector; one matrix maps them all.
        patches = functional.patches(x, (patch, patch))  # (1, 1024, 48)
        from_linear = functional.linear(patches, weight.reshape(width, -1), bias)

    print(f"image        {x.shape}")
    print(f"convolution  kernel {weight.shape}, stride {patch} -> {from_convolution.shape}")
    print(f"linear       {patches.shape} @ {(channels * patch**2, width)} -> {from_linear.shape}")
    difference = np.abs(from_convolution.numpy() - from_linear.numpy()).max()
    print(f"largest difference: {difference:.1e}")

    grid = features.shape[2:]
    maps = [y.numpy()[0].T.reshape(width, *grid) for y in (from_convolution, from_linear)]
    draw(image, weight.numpy(), *maps).savefig(chosen.picture)
    print(f"saved {chosen.picture}")


def draw(
    image: np.ndarray, weight: np.ndarray, convolution: np.ndarray, linear: np.ndarray
) -> Figure:
    """The strongest filters, and what each says about every patch, computed both ways."""
    strongest = np.argsort(weight.std(axis=(1, 2, 3)))[::-1][:SHOWN]
    figure = Figure(figsize=(11, 5))
    grid = figure.add_gridspec(3, SHOWN + 2, left=0.01, right=0.99, top=0.94, bottom=0.02)
    photograph = figure.add_subplot(grid[:, :2])
    photograph.imshow(image.transpose(1, 2, 0))
    photograph.set_title("image", fontsize=10)
    photograph.set_axis_off()
    for column, feature in enumerate(strongest):
        kernel = weight[feature].transpose(1, 2, 0)
        kernel = 0.5 + 0.5 * kernel / np.abs(kernel).max()
        pictures = (kernel, convolution[feature], linear[feature])
        for row, (picture, title) in enumerate(
            zip(pictures, ("filter", "convolution", "linear"), strict=True)
        ):
            axes = figure.add_subplot(grid[row, column + 2])
            axes.imshow(picture, cmap="gray", interpolation="nearest")
            axes.set_title(f"{title} {feature}", fontsize=9)
            axes.set_axis_off()
    return figure


if __name__ == "__main__":
    main()
