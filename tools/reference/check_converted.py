"""Let the real libraries open what numpyvit converts for them, and compare the answers.

    python tools/reference/check_converted.py [WEIGHTS...]

Needs numpyvit on the path besides what the README names. Tiny models with random values, and the
weights that are named, are written for timm, torchvision, Hugging Face and Google; each library
opens its files by its own means, every array must find its place, and the float64 logits must be
numpyvit's. Exits with 1 where something is not so.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import recording
import timm
import torch
import transformers
from safetensors.torch import load_file
from timm.models.swin_transformer import SwinTransformer as TimmSwinTransformer
from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer
from torch import nn
from torchvision.models import VisionTransformer as TorchvisionVisionTransformer

from numpyvit.data import PREPROCESSINGS
from numpyvit.models import Labelling, SwinConfig, ViTConfig, build_model
from numpyvit.tensor import no_grad
from numpyvit.weights import Pretrained, convert, load_pretrained

ALLOWED = 1e-10  # relative, in float64
SIZES: dict[str, Any] = {
    "image_size": 16,
    "patch_size": 4,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 3,
    "num_classes": 5,
}
DINOV2: dict[str, Any] = {"layer_scale": 1.0, "pooling": "token_avg"}
MODELS: dict[str, dict[str, Any]] = {
    "plain": {},
    "pre_logits": {"pre_logits": 16},
    "positions_of_patches": {"positions": "patches"},
    "tanh": {"activation": "gelu_tanh", "norm_eps": 1e-12},
    "no_head": {"num_classes": 0},
    "distilled": {"distillation_token": True, "distillation_head": True},
    "distilled_one_head": {"distillation_token": True},
    "dinov2": DINOV2,
    "dinov2_without_scale": {"pooling": "token_avg"},
    "dinov2_registers": {**DINOV2, "num_registers": 4, "positions": "patches"},
    "dinov2_gated": {**DINOV2, "mlp": "swiglu", "activation": "silu", "mlp_ratio": 64 / 24},
    "mean": {"class_token": False, "pooling": "avg", "positions": "patches"},
    "map": {"class_token": False, "pooling": "map", "positions": "patches"},
    "layer_scale": {"layer_scale": 1.0},
}
SWIN = SwinConfig(
    image_size=16,
    patch_size=2,
    num_classes=5,
    embed_dim=24,
    depths=(2, 2),
    num_heads=(2, 4),
    window_size=3,
)
ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_tanh", "silu": "silu", "quick_gelu": "quick_gelu"}


def tiny(name: str, config: ViTConfig | SwinConfig) -> Pretrained:
    """A model with random values everywhere."""
    model = build_model(config).eval()
    rng = np.random.default_rng(len(name))
    for key, parameter in model.named_parameters():
        values = rng.standard_normal(parameter.shape) * 0.3
        parameter.data = (values + key.endswith(("norm.weight", "gamma"))).astype(np.float32)
    preprocessing = PREPROCESSINGS["timm_vit"].at(config.image_size)
    names = tuple(f"thing {index}" for index in range(config.num_classes))
    labelling = Labelling(class_names=names, mean=preprocessing.mean, std=preprocessing.std)
    return Pretrained(name, model, labelling, preprocessing, [])


def timm_model(config: Any) -> nn.Module:
    """The timm model of a configuration."""
    options = {
        "img_size": config.image_size,
        "patch_size": config.patch_size,
        "in_chans": config.in_channels,
        "num_classes": config.num_classes,
        "embed_dim": config.embed_dim,
        "num_heads": config.num_heads,
        "mlp_ratio": config.mlp_ratio,
        "qkv_bias": config.qkv_bias,
    }
    if isinstance(config, SwinConfig):
        sizes = {"depths": config.depths, "window_size": config.window_size}
        return TimmSwinTransformer(**options, **sizes).eval()
    options |= {
        "depth": config.depth,
        "class_token": config.class_token,
        "no_embed_class": config.positions == "patches",
        "reg_tokens": config.num_registers,
        "global_pool": config.pooling,
        "fc_norm": False,
        "init_values": 1.0 if config.layer_scale else None,
        "act_layer": ACTIVATIONS[config.activation],
        "norm_layer": functools.partial(nn.LayerNorm, eps=config.norm_eps),
    }
    if config.distillation_token:
        model = timm.models.deit.VisionTransformerDistilled(**options)
    else:
        model = TimmVisionTransformer(**options)
    return model.eval()


def timm_lacks(config: Any) -> str:
    """What timm's models have nothing for, in words."""
    if isinstance(config, SwinConfig):
        return ""
    if config.pooling == "token_avg":
        return "head of class token and mean"
    if config.pre_logits:
        return "layer before the head"
    one = config.distillation_token and not config.distillation_head
    return "distillation token without a head" if one else ""


def by_timm(converted: Path, config: ViTConfig) -> nn.Module:
    """Canonical names, by timm's own loader."""
    model = timm_model(config)
    timm.models.load_checkpoint(model, str(converted), strict=True)
    return model


def by_timm_as_google(converted: Path, config: ViTConfig) -> nn.Module:
    """Google's .npz, by timm's reader of them; what it leaves out keeps its random start."""
    model = timm_model(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float("nan"))  # what is not read shows
    model.load_pretrained(str(converted))
    return model


def by_torchvision(converted: Path, config: ViTConfig) -> nn.Module:
    """Names of torchvision, by a strict load_state_dict."""
    model = TorchvisionVisionTransformer(
        config.image_size,
        config.patch_size,
        config.depth,
        config.num_heads,
        config.embed_dim,
        config.mlp_dim,
        num_classes=config.num_classes,
        representation_size=config.pre_logits or None,
        norm_layer=functools.partial(nn.LayerNorm, eps=config.norm_eps),
    )
    model.load_state_dict(load_file(converted), strict=True)
    return model.eval()


def by_transformers(converted: Path, config: ViTConfig) -> nn.Module:
    """A folder, by `from_pretrained` of the class that its config.json names."""
    described = json.loads((converted / "config.json").read_text("utf-8"))
    kind = getattr(transformers, described["architectures"][0])
    model, info = kind.from_pretrained(converted, output_loading_info=True)
    missing = {key for key in info["missing_keys"] if "pooler" not in key}
    if missing or info["unexpected_keys"] or info["mismatched_keys"]:
        raise RuntimeError(f"not all keys fit: {info}")
    transformers.AutoImageProcessor.from_pretrained(converted)
    return model.eval()


def logits(model: nn.Module, pictures: np.ndarray) -> np.ndarray:
    """What a library's model answers in float64; the class token where there is no head."""
    with torch.no_grad(), recording.recorded_softmax():
        output = model.double()(torch.from_numpy(pictures))
    if not isinstance(output, torch.Tensor):
        no_head = not hasattr(output, "logits")
        output = output.last_hidden_state[:, 0] if no_head else output.logits
    return output.numpy()


Reader = Callable[[Path, ViTConfig], nn.Module]
READERS: tuple[tuple[str, str, Reader], ...] = (
    ("timm", "model.safetensors", by_timm),
    ("torchvision", "model.safetensors", by_torchvision),
    ("hugging-face", "folder", by_transformers),
    ("google", "model.npz", by_timm_as_google),
)


def differences(source: Pretrained) -> Iterator[tuple[str, str, bool]]:
    """For each target: its name, what was seen, and whether that is well."""
    config = source.model.config
    shape = (2, config.in_channels, config.image_size, config.image_size)
    pictures = np.random.default_rng(0).standard_normal(shape)
    for target, name, read in READERS:
        with recording.temporary_folder() as folder:
            try:
                convert(source, target, folder / name)
            except ValueError as error:
                yield target, f"refused: {str(error).partition('got ')[2]}", True
                continue
            if target in ("timm", "google") and (lacks := timm_lacks(config)):
                yield target, f"timm has no {lacks}", True
                continue
            found = logits(read(folder / name, config), pictures)
        # torchvision has one activation; `convert` says so.
        activation = "gelu" if target == "torchvision" else config.activation
        own = build_model(config.replace(activation=activation)).to("float64").eval()
        own.load_state_dict(source.model.state_dict())
        with no_grad():
            expected = own(pictures).data
        distance = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        yield target, f"{distance:.1e}", bool(distance <= ALLOWED)


def main() -> int:
    """Print a line for each model and target."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", nargs="*", metavar="WEIGHTS", help="weights to convert as well")
    options = parser.parse_args()
    configs = {name: ViTConfig(**{**SIZES, **changes}) for name, changes in MODELS.items()}
    sources = [tiny(name, config) for name, config in {**configs, "swin": SWIN}.items()]
    sources += [
        dataclasses.replace(load_pretrained(path), name=Path(path).name) for path in options.weights
    ]
    good = True
    for source in sources:
        for target, seen, is_well in differences(source):
            print(f"{'ok ' if is_well else 'BAD'} {source.name:<22} {target:<13} {seen}")
            good &= is_well
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
