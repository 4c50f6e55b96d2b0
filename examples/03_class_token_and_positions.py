"""The class token collects the answer; without positions a picture is a bag of patches."""

from __future__ import annotations

import numpy as np
from shared import normalised, options, photo, trained_model

from numpyvit import Tensor, functional, no_grad
from numpyvit.explain import draw_positions, position_similarity
from numpyvit.models import VisionTransformer


def main() -> None:
    chosen = options(__file__)
    saved = trained_model(chosen.weights)
    model = saved.model
    image = Tensor(normalised(photo(chosen.photo, model.config.image_size), saved))
    with no_grad():
        patches = model.patch_embed(image)  # (1, 64, 48)
    print(f"patches {patches.shape} + 1 class token = {model.pos_embed.shape[1]} tokens")

    shuffled = patches[:, np.random.default_rng(0).permutation(patches.shape[1])]
    no_positions = Tensor(np.zeros_like(model.pos_embed.data))
    print("\nhow far the logits move when the patches are shuffled:")
    for name, positions in (("with", model.pos_embed), ("without", no_positions)):
        logits = answer(model, patches, positions)
        moved = np.abs(logits - answer(model, shuffled, positions)).max()
        print(f"  {name:>7} positions: {moved:.1e} (logits are about {np.abs(logits).max():.1f})")

    similarity = position_similarity(model.pos_embed.data)  # (8, 8, 8, 8)
    row, column = 3, 3
    print(f"\ncosine of the position in row {row}, column {column} with those to its right:")
    print("  " + "  ".join(f"{value:+.2f}" for value in similarity[row, column, row, column:]))
    print("the nearer two patches lie, the more alike their positions are")

    draw_positions(similarity, chosen.picture)
    print(f"saved {chosen.picture}")


def answer(model: VisionTransformer, patches: Tensor, positions: Tensor) -> np.ndarray:
    """The model's logits for these patches: what VisionTransformer.forward does, written out."""
    with no_grad():
        tokens = functional.concat([model.cls_token, patches], axis=1) + positions
        for block in model.blocks:
            tokens = block(tokens)
        # Only the class token is read: it had to collect what the patches know.
        return model.head(model.norm(tokens)[:, 0]).numpy()


if __name__ == "__main__":
    main()
