"""Which parts of a model are trained, and how fast: its head, its last blocks, or all of it."""

from __future__ import annotations

from typing import Any

from numpyvit.models import ImageModel, build_model
from numpyvit.nn import init
from numpyvit.train.recipes import Recipe

ALL, HEAD, LAST = "all", "head", "last:"
# Weight decay would pull these towards zero as if they were matrices of a linear layer: they are
# known by the ends of their names.
_EXEMPT = (
    "cls_token",
    "dist_token",
    "reg_token",
    "mask_token",
    "pos_embed",
    "latent",
    "bias_table",
)


def last_blocks(tune: str) -> int | None:
    """How many blocks at the end `tune` names: 0 for "head", N for "last:N", None for "all".

    Raises ValueError for anything else.
    """
    if tune == ALL:
        return None
    if tune == HEAD:
        return 0
    count = tune.removeprefix(LAST)
    if tune.startswith(LAST) and count.isascii() and count.isdecimal() and int(count) > 0:
        return int(count)
    raise ValueError(f"[tuning] expected 'all', 'head' or 'last:N' with N blocks, got {tune!r}")


def check_tune(tune: str, depth: int) -> None:
    """ValueError unless `tune` is what `last_blocks` takes and a model of `depth` blocks has."""
    count = last_blocks(tune)
    if count is not None and count > depth:
        raise ValueError(
            f"[tuning] expected last:1 to last:{depth}, the model's blocks, got {tune}"
        )


def freeze(model: ImageModel, tune: str) -> None:
    """Leave a gradient to what `tune` names, and to nothing else.

    "head" is the heads alone; "last:N" the last N blocks and all that follows them; "all" all.
    What is frozen leaves nothing on the tape: no gradient of it is formed, and none goes through
    it. Raises ValueError for an unknown `tune` and for more blocks than there are.
    """
    depth = len(model.blocks)
    check_tune(tune, depth)
    count = last_blocks(tune)
    lowest = 0 if count is None else depth + 1 - count
    for name, parameter in model.named_parameters():
        is_head = name.startswith(model.head_names)
        parameter.requires_grad = is_head or (tune != HEAD and model.layer_of(name) >= lowest)


def start_training(model: ImageModel) -> None:
    """Training mode for what is trained; what is frozen gives the same values every time."""
    model.train()
    model.pos_drop.train(model.patch_embed.proj.weight.requires_grad)
    for block in model.blocks:
        block.train(any(parameter.requires_grad for parameter in block.parameters()))


def with_new_head(model: ImageModel, num_classes: int, **changes: Any) -> ImageModel:
    """The model with heads of zeros for `num_classes` classes; `changes` of its configuration.

    Zeros, and no hidden layer in front of them: Dosovitskiy et al. 2021, section 3.2. The other
    weights are shared with `model`, not copied.
    """
    dropped = (*model.head_names, "pre_logits.")  # what belongs to the task it comes from
    kept = {
        name: array for name, array in model.state_dict().items() if not name.startswith(dropped)
    }
    with init.undrawn():
        tuned = build_model(model.config.for_classes(num_classes, **changes))
    tuned.load_state_dict(kept, strict=False, assign=True)
    for name, parameter in tuned.named_parameters():
        if name.startswith(tuned.head_names):
            parameter.data = init.zeros(parameter.shape)
    return tuned


def parameter_groups(model: ImageModel, recipe: Recipe) -> list[dict[str, Any]]:
    """The parameters that are not frozen, in groups of one weight decay and one learning rate.

    Weight matrices decay, everything else does not, unless the recipe decays everything. Layer i
    learns at lr * layer_decay ** (depth + 1 - i) (Bao et al. 2022, BEiT, appendix; see
    `ImageModel.layer_of`).
    The fastest group comes first.
    """
    depth = len(model.blocks)
    found: dict[tuple[int, bool], list[Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decays = recipe.decay_vectors or (parameter.ndim > 1 and not name.endswith(_EXEMPT))
        below = 0 if recipe.layer_decay == 1 else depth + 1 - model.layer_of(name)
        found.setdefault((below, not decays), []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": 0.0 if exempt else recipe.weight_decay,
            "lr": recipe.lr * recipe.layer_decay**below,
        }
        for (below, exempt), parameters in sorted(found.items(), key=lambda item: item[0])
    ]
