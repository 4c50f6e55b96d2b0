"""The family of ViTs: a few numbers make a model tiny or huge."""

from __future__ import annotations

from matplotlib.figure import Figure
from shared import options

from numpyvit.models import VARIANTS, ViTConfig, count_multiply_adds, count_parameters, list_models

# The plain ones of the papers at 224 pixels, and the tiny one; `numpyvit models` lists all.
NAMES = ["vit_cifar_patch4_32", *list_models("vit_*_patch??_224")]
NAMES = [name for name in NAMES if "clip" not in name and "siglip" not in name]


def main() -> None:
    chosen = options(__file__)
    # Counted from the configuration alone: no model is built.
    plain = {name: VARIANTS[name] for name in NAMES}
    sizes = {
        name: (count_parameters(config), count_multiply_adds(config))
        for name, config in plain.items()
    }
    columns = "model", "image", "patch", "tokens", "width", "depth", "heads"
    line = "{:24} {:>5} {:>5} {:>6} {:>5} {:>5} {:>5} {:>13} {:>17}"
    print(line.format(*columns, "parameters", "multiply-adds"))
    for name, config in plain.items():
        parameters, multiply_adds = sizes[name]
        print(line.format(name, *shape(config), f"{parameters:,}", f"{multiply_adds:,}"))
    print("\nlarger patches cost a quarter of the work and hardly change the parameters")
    draw(sizes).savefig(chosen.picture)
    print(f"saved {chosen.picture}")


def shape(config: ViTConfig) -> tuple[int, ...]:
    return (
        config.image_size,
        config.patch_size,
        config.num_tokens,
        config.embed_dim,
        config.depth,
        config.num_heads,
    )


def draw(sizes: dict[str, tuple[int, int]]) -> Figure:
    figure = Figure(figsize=(9, 5.4), layout="constrained")
    axes = figure.subplots()
    for name, (parameters, multiply_adds) in sizes.items():
        left = "patch1" in name  # so that no two labels meet
        axes.scatter(parameters, multiply_adds, s=60, zorder=3)
        axes.annotate(
            name,
            (parameters, multiply_adds),
            xytext=(-8 if left else 8, 0),
            textcoords="offset points",
            ha="right" if left else "left",
            va="center",
        )
    axes.set(
        xscale="log",
        yscale="log",
        xlim=(5e4, 1e10),
        xlabel="parameters",
        ylabel="multiply-adds an image",
    )
    axes.grid(color="0.9", zorder=0)
    return figure


if __name__ == "__main__":
    main()
