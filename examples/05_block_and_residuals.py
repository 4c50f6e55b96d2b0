"""A block only ever adds: the tokens flow straight through, attention and MLP write onto them."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from shared import normalised, options, photo, trained_model

from numpyvit import Tensor, no_grad


def main() -> None:
    chosen = options(__file__)
    saved = trained_model(chosen.weights)
    model = saved.model
    image = normalised(photo(chosen.photo, model.config.image_size), saved)
    with no_grad():
        expected = model(image, return_hidden_states=True).hidden_states
        x = model.forward_embedding(Tensor(image))
        stream, written = [norms(x)], []
        for block in model.blocks:
            # The block's two lines. (Dropout rests in evaluation mode.)
            from_attention = block.attn(block.norm1(x))
            x = x + from_attention
            from_mlp = block.mlp(block.norm2(x))
            x = x + from_mlp
            stream.append(norms(x))
            written.append((norms(from_attention), norms(from_mlp)))
    difference = np.abs(x.numpy() - expected[-1].numpy()).max()
    print(f"blocks written out, difference to the model's own: {difference:.1e}\n")

    print("length of vectors (mean over tokens) in, added by attention, added by the MLP, out")
    for depth, (attention, mlp) in enumerate(written):
        lengths = (stream[depth], attention, mlp, stream[depth + 1])
        print(f"block {depth}  " + "  ".join(f"{length.mean():6.2f}" for length in lengths))
    print("\nadded up, lengths do not sum: the parts point in different directions")
    draw(np.stack(stream), np.array(written)).savefig(chosen.picture)
    print(f"saved {chosen.picture}")


def norms(x: Tensor) -> np.ndarray:
    """The length of each token's vector: (1, N, D) -> (N,)."""
    return np.linalg.norm(x.numpy()[0], axis=-1)


def draw(stream: np.ndarray, written: np.ndarray) -> Figure:
    """`stream` (blocks + 1, tokens); `written` (blocks, 2, tokens) by attention and by the MLP."""
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    depths = np.arange(len(stream))
    left.plot(depths, stream[:, 1:], color="tab:blue", alpha=0.15, linewidth=1)
    left.plot(depths, stream[:, 1:].mean(1), color="tab:blue", label="patches, and their mean")
    left.plot(depths, stream[:, 0], color="tab:red", marker="o", label="class token")
    left.set(title="length of each token by depth", xlabel="blocks passed", xticks=depths, ylim=0)
    left.legend(frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.14))

    blocks = np.arange(len(written))
    parts = (("attention", -0.2, "tab:orange"), ("MLP", 0.2, "tab:green"))
    for part, (name, offset, color) in enumerate(parts):
        added = written[:, part].mean(1)
        right.bar(blocks + offset, added, width=0.36, color=color, label=f"added by {name}")
    right.set(title="length of what a block adds (mean)", xlabel="block", xticks=blocks)
    right.legend(frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    return figure


if __name__ == "__main__":
    main()
