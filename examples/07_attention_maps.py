"""What the class token looks at in a photo, head by head and block by block."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from shared import normalised, options, photo, trained_model

from numpyvit.explain import class_attention, displayable, fuse_heads, overlay


def main() -> None:
    chosen = options(__file__)
    saved = trained_model(chosen.weights)
    model = saved.model
    image = normalised(photo(chosen.photo, model.config.image_size), saved)
    # (1, heads, 8, 8) a block: the class token's row of the weights, folded to the patches' grid
    maps = [class_attention(model, image, block) for block in range(len(model.blocks))]

    print("share of its attention that the class token gives to patches, and evenness of that")
    print("(1: the same to every patch, 0: all to one), mean over the heads")
    for block, heads in enumerate(maps):
        share = heads.sum(axis=(2, 3)).mean()
        print(
            f"block {block}: {share:.0%}, evenness {np.mean([evenness(m) for m in heads[0]]):.2f}"
        )
    mean, std = saved.labelling.mean, saved.labelling.std
    # 256 x 256 pixels, so that the overlays are smooth
    pixels = displayable(image, mean, std).repeat(8, 1).repeat(8, 2)
    draw(pixels, maps).savefig(chosen.picture)
    print(f"saved {chosen.picture}")


def evenness(weights: np.ndarray) -> float:
    """Entropy of a map over that of an even one, from 0 to 1."""
    p = weights.ravel() / weights.sum()
    return float(-(p * np.log(p + np.finfo(p.dtype).tiny)).sum() / np.log(p.size))


def draw(pixels: np.ndarray, maps: list[np.ndarray]) -> Figure:
    heads = maps[0].shape[1]
    figure = Figure(figsize=(2 * (heads + 2), 2.1 * len(maps)), layout="constrained")
    axes = figure.subplots(len(maps), heads + 2)
    for row, block_maps in enumerate(maps):
        titled = {"image": pixels, "mean of heads": overlay(pixels, fuse_heads(block_maps))}
        for head in range(heads):
            titled[f"head {head}"] = overlay(pixels, block_maps[:, head])
        for place, (title, picture) in zip(axes[row], titled.items(), strict=True):
            place.imshow(picture[0])
            place.set_title(title if title == "image" else f"block {row}, {title}", fontsize=9)
            place.set_axis_off()
    return figure


if __name__ == "__main__":
    main()
