"""Swin Transformers of timm, torchvision, transformers and in the names of Microsoft's project."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import recording  # isort: skip  # it declares what torchvision lacks, so it comes first
import numpy as np
import timm
import torch
import transformers
from recording import Case, images, randomize
from timm.models.swin_transformer import checkpoint_filter_fn
from timm_cases import hub_folder
from torch import nn
from torchvision.models.swin_transformer import SwinTransformer
from torchvision_cases import saving

WIDTH, DEPTHS, HEADS, RATIO, PATCH, CLASSES = 8, (2, 1), (2, 4), 2, 2, 5

# Name of the case: (image size, window). Grids of 8 and 4 patches: windows of 4 are shifted in the
# first stage and whole in the second, those of 3 have empty places in both, those of 6 shrink in
# the second; 9 patches are odd.
TIMM = {
    "swin_timm": (16, 4),
    "swin_timm_padded": (16, 3),
    "swin_timm_shrunk": (16, 6),
    "swin_timm_odd": (18, 4),
}
TORCHVISION = {
    "swin_torchvision": (16, 4),
    "swin_torchvision_padded": (16, 3),
    "swin_torchvision_window_larger": (16, 5),
}
HUGGING_FACE = {"swin_hf": (16, 4), "swin_hf_padded": (16, 3), "swin_hf_odd": (18, 3)}


def cases() -> Iterator[Case]:
    """Each library's models; one of timm's and of transformers' under their other names."""
    for name, (size, window) in TIMM.items():
        model, arguments = build_timm(name, size, window)
        expected = observe(model, [b for stage in model.layers for b in stage.blocks], size)
        yield Case(name=name, save=hub_folder(model, arguments), expected=expected)
        if name == "swin_timm":
            state = microsoft_names(model)
            save = saving({"model": state}, "swin_tiny_patch2_window4_16.pth")
            yield Case(name="swin_microsoft", save=save, same_as=name)
    for name, (size, window) in TORCHVISION.items():
        model = build_torchvision(name, window)
        blocks = [block for stage in model.features[1::2] for block in stage]
        yield Case(
            name=name,
            save=saving(model.state_dict(), "swin.pth"),
            expected=observe(model, blocks, size),
            overrides={"image_size": size},
        )
    for name, (size, window) in HUGGING_FACE.items():
        model = build_hugging_face(name, size, window)
        blocks = [block for stage in model.swin.encoder.layers for block in stage.blocks]
        expected = observe(model, blocks, size)
        yield Case(name=name, save=saving_folder(model), expected=expected)
        if name == "swin_hf":
            # The names that the library uses inside since version 5.
            save = saving_folder(model, save_original_format=False)
            yield Case(name="swin_hf_new_names", save=save, same_as=name)


def build_timm(name: str, size: int, window: int) -> tuple[nn.Module, dict[str, Any]]:
    """A tiny model and the arguments that made it so."""
    arguments = {
        "img_size": size,
        "patch_size": PATCH,
        "embed_dim": WIDTH,
        "depths": DEPTHS,
        "num_heads": HEADS,
        "window_size": window,
        "mlp_ratio": RATIO,
    }
    overlay = {"input_size": (3, size, size), "num_classes": CLASSES}
    model = timm.create_model(
        "swin_tiny_patch4_window7_224",
        pretrained_cfg_overlay=overlay,
        num_classes=CLASSES,
        **arguments,
    )
    return randomize(model, name), arguments


def microsoft_names(model: nn.Module) -> dict[str, torch.Tensor]:
    """A model of timm as Microsoft's project stores it; timm must read the same out of it."""
    state = {}
    for key, value in model.state_dict().items():
        words = key.replace("head.fc.", "head.").split(".")
        if "downsample" in words:  # there it belongs to the stage before
            words[1] = str(int(words[1]) - 1)
        state[".".join(words)] = value
    state |= dict(model.named_buffers())  # indices and masks are stored there
    read = checkpoint_filter_fn({"model": dict(state)}, model)
    if not all(torch.equal(read[key], value) for key, value in model.state_dict().items()):
        raise RuntimeError("timm did not understand Microsoft's names")
    return state


def build_torchvision(name: str, window: int) -> nn.Module:
    """A tiny model, of no image size."""
    model = SwinTransformer(
        [PATCH, PATCH],
        WIDTH,
        list(DEPTHS),
        list(HEADS),
        [window, window],
        mlp_ratio=RATIO,
        num_classes=CLASSES,
    )
    return randomize(model, name)


def build_hugging_face(name: str, size: int, window: int) -> nn.Module:
    """A tiny classifier."""
    config = transformers.SwinConfig(
        image_size=size,
        patch_size=PATCH,
        embed_dim=WIDTH,
        depths=list(DEPTHS),
        num_heads=list(HEADS),
        window_size=window,
        mlp_ratio=float(RATIO),
        num_labels=CLASSES,
    )
    config._attn_implementation = "eager"
    return randomize(transformers.SwinForImageClassification(config), name)


def observe(model: nn.Module, blocks: Iterable[nn.Module], size: int) -> dict[str, np.ndarray]:
    """Images, logits and the tokens (B, N, C) after each block, all in float64.

    The model is left in float32; its answer in that type is `logits_float32`.
    """
    pictures = images(size)
    hidden: list[torch.Tensor] = []

    def after(_: nn.Module, __: Any, output: Any) -> None:
        tokens = output[0] if isinstance(output, tuple) else output
        hidden.append(tokens.detach().reshape(len(pictures), -1, tokens.shape[-1]))

    hooks = [block.register_forward_hook(after) for block in blocks]
    with torch.no_grad(), recording.recorded_softmax():
        logits = answer(model.double(), torch.from_numpy(pictures))
    for hook in hooks:
        hook.remove()
    with torch.no_grad():
        single = answer(model.float(), torch.from_numpy(pictures).float())
    found = {"images": pictures, "logits": logits.numpy(), "logits_float32": single.numpy()}
    return found | {f"hidden_{i}": tokens.numpy() for i, tokens in enumerate(hidden)}


def answer(model: nn.Module, pictures: torch.Tensor) -> torch.Tensor:
    """The logits."""
    output = model(pictures)
    return output.logits if hasattr(output, "logits") else output


def saving_folder(model: nn.Module, **options: Any) -> Any:
    """A function that writes the folder of `save_pretrained`."""

    def save(folder: Path) -> str:
        model.save_pretrained(folder / "model", **options)
        return "model"

    return save
