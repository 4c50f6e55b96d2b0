"""Patches that are alike become one token: a trained model goes on with fewer, as it is."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from shared import normalised, options, photo, trained_model

from numpyvit import no_grad
from numpyvit.compress import merge_tokens

MERGED = 8  # tokens fewer after each block


def main() -> None:
    chosen = options(__file__)
    saved = trained_model(chosen.weights)
    model = saved.model
    size, front = model.config.image_size, model.config.num_prefix_tokens
    image = normalised(photo(chosen.photo, size), saved)
    merging = merge_tokens(model, MERGED)  # the same weights

    # Each stage knows where the patches are that it began with: (1, N) numbers of tokens.
    groups = [np.arange(model.patch_embed.num_patches)]
    with no_grad():
        for number, tokens in enumerate(merging.stages(image)):
            if tokens.places is not None:
                groups.append(tokens.places[0, front:] - front)
                count, largest = tokens.x.shape[1] - front, tokens.sizes.numpy().max()
                print(f"after block {number}: {count} tokens, the largest of {largest:.0f} patches")
        plain, merged = (each(image).numpy()[0] for each in (model, merging))
    for name, logits in (("all tokens", plain), ("merged", merged)):
        probabilities = np.exp(logits - logits.max())
        probabilities /= probabilities.sum()
        best = probabilities.argmax()
        print(f"{name:12} {saved.labelling.class_names[best]} {probabilities[best]:.1%}")
    if chosen.photo is None:
        print("(none of its classes is a person: compare the answers, not how sure they are)")
    same = np.array_equal(merge_tokens(model, 0)(image).numpy()[0], plain)
    print(f"merging nothing gives the model's own bits: {same}")

    picture = photo(chosen.photo, 32 * model.patch_embed.grid[0])
    draw(picture, groups, model.patch_embed.grid).savefig(chosen.picture)
    print(f"saved {chosen.picture}")


def draw(picture: np.ndarray, groups: list[np.ndarray], grid: tuple[int, int]) -> Figure:
    """The picture, and after each block every group of patches in its mean colour."""
    rows, columns = grid
    channels, height, width = picture.shape
    cells = picture.reshape(channels, rows, height // rows, columns, width // columns)
    colours = cells.mean((2, 4)).reshape(channels, -1).T  # (N, C)
    figure = Figure(figsize=(2.6 * (len(groups) + 1), 3), layout="constrained")
    axes = figure.subplots(1, len(groups) + 1)
    axes[0].imshow(picture.transpose(1, 2, 0))
    axes[0].set_title("the photo", fontsize=10)
    for number, (place, group) in enumerate(zip(axes[1:], groups, strict=True)):
        means = np.array([colours[group == each].mean(0) for each in group])
        place.imshow(means.reshape(rows, columns, channels))
        borders(place, group.reshape(rows, columns))
        title = "its patches" if number == 0 else f"after block {number}"
        place.set_title(f"{title}: {len(np.unique(group))}", fontsize=10)
    for place in axes:
        place.set_axis_off()
    return figure


def borders(axes: object, group: np.ndarray) -> None:
    """Lines between neighbours of different groups."""
    for r, c in np.argwhere(group[:, 1:] != group[:, :-1]):
        axes.plot([c + 0.5] * 2, [r - 0.5, r + 0.5], color="white", linewidth=1)
    for r, c in np.argwhere(group[1:] != group[:-1]):
        axes.plot([c - 0.5, c + 0.5], [r + 0.5] * 2, color="white", linewidth=1)


if __name__ == "__main__":
    main()
