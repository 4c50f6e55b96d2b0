"""Write shapes.json.gz: names and shapes of full-size models, and what is true of each.

Run it in the environment that README.md describes: `python tools/reference/write_shapes.py`.
No value is kept, so a rule that tells a model's parts from its file can be tried on all models.
A name with `#` stands for one array in each of `depth` blocks.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import recording  # isort: skip  # it declares what torchvision lacks, so it comes first
import timm
import torch
import torchvision
import transformers
from safetensors import safe_open
from timm.layers import GluMlp, LayerNorm, Mlp, PatchEmbed, RmsNorm
from timm.layers.attention import Attention
from timm.models._hub import save_config_for_hf
from timm.models.vision_transformer import Block, ParallelThingsBlock
from torch import nn

OUT = Path(__file__).resolve().parents[2] / "tests" / "weights" / "fixtures" / "shapes.json.gz"
ACTIVATIONS = {"GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu", "SiLU": "silu", "GELU": "gelu"}
BLOCKS = {Block: "pre_norm", ParallelThingsBlock: "parallel_things"}
NORMS = {LayerNorm: "layer", RmsNorm: "rms"}
TORCHVISION = {
    "vit_b_16": (224, 384),
    "vit_b_32": (224,),
    "vit_l_16": (224, 512),
    "vit_l_32": (224,),
    "vit_h_14": (224, 518),
}
HUGE = {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
SMALL = {"hidden_size": 384, "num_attention_heads": 6}
TINY = {"hidden_size": 192, "num_attention_heads": 3}
GIANT = {"hidden_size": 1536, "num_hidden_layers": 40, "num_attention_heads": 24}
DINOV2 = {"image_size": 518, "patch_size": 14, "num_labels": 1000}
# (class, config, what differs from the config's defaults)
HUGGING_FACE: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("ViTForImageClassification", "ViTConfig", {"num_labels": 1000}),
    ("ViTForImageClassification", "ViTConfig", {**LARGE, "intermediate_size": 4096}),
    ("ViTForImageClassification", "ViTConfig", {"image_size": 384, "patch_size": 32}),
    ("ViTModel", "ViTConfig", {}),
    ("ViTModel", "ViTConfig", {**HUGE, "intermediate_size": 5120, "patch_size": 14}),
    ("DeiTForImageClassification", "DeiTConfig", {**TINY, "intermediate_size": 768}),
    ("DeiTForImageClassificationWithTeacher", "DeiTConfig", {"num_labels": 1000}),
    ("Dinov2Model", "Dinov2Config", {**SMALL, **DINOV2}),
    ("Dinov2ForImageClassification", "Dinov2Config", DINOV2),
    ("Dinov2ForImageClassification", "Dinov2Config", {**LARGE, **DINOV2}),
    ("Dinov2Model", "Dinov2Config", {**GIANT, **DINOV2, "use_swiglu_ffn": True}),
    (
        "Dinov2WithRegistersForImageClassification",
        "Dinov2WithRegistersConfig",
        {**SMALL, **DINOV2, "num_register_tokens": 4},
    ),
    ("ViTMAEModel", "ViTMAEConfig", {**LARGE, "intermediate_size": 4096}),
)


def main() -> None:
    """Write the file."""
    records = [*torchvision_records(), *timm_records(), *hugging_face_records()]
    text = "\n".join(json.dumps(record, sort_keys=True) for record in records)
    OUT.write_bytes(gzip.compress(text.encode(), mtime=0))
    kept = sum("truth" in record for record in records)
    print(f"{kept} models, {len(records) - kept} of other kinds: {OUT.stat().st_size} bytes")


def torchvision_records() -> Iterator[dict[str, Any]]:
    """The five named models, at the sizes of their published weights."""
    for name, sizes in TORCHVISION.items():
        for size in sizes:
            with torch.device("meta"):
                model = getattr(torchvision.models, name)(image_size=size)
            layer = model.encoder.layers[0]
            truth = {
                "image_size": size,
                "patch_size": model.patch_size,
                "embed_dim": model.hidden_dim,
                "depth": len(model.encoder.layers),
                "num_heads": layer.num_heads,
                "num_classes": model.num_classes,
                "mlp_dim": model.mlp_dim,
                "norm_eps": layer.ln_1.eps,
                "activation": "gelu",
                "pooling": "token",
                "positions": "all",
            }
            shapes = _collapsed(model.state_dict(), r"encoder_layer_(\d+)")
            yield {"library": "torchvision", "name": name, "shapes": shapes, "truth": truth}


def timm_records() -> Iterator[dict[str, Any]]:
    """Every registered model of the two files about plain Vision Transformers."""
    modules = ("vision_transformer", "deit")
    for name in [n for module in modules for n in timm.list_models(module=module)]:
        with torch.device("meta"):
            model = timm.create_model(name)
        record = {
            "library": "timm",
            "name": name,
            "shapes": _collapsed(model.state_dict(), r"blocks\.(\d+)"),
            "config": _hub_config(model),
        }
        if _is_plain(model):
            record["truth"] = _timm_truth(model)
        yield record


def _is_plain(model: nn.Module) -> bool:
    """Whether the model is one of the kinds that numpyvit has."""
    block = model.blocks[0]
    if type(block) not in BLOCKS:
        return False
    attn, mlp, norm, _ = _parts(block)
    return (
        type(attn) is Attention
        and type(mlp) in (Mlp, GluMlp)
        and type(norm) in NORMS
        and type(model.patch_embed) is PatchEmbed
        and not isinstance(model.patch_embed.norm, LayerNorm)
        and isinstance(attn.norm, nn.Identity)
        and isinstance(mlp.norm, nn.Identity)
        and model.pos_embed is not None
        and not model.pool_include_prefix
        and model.global_pool in ("token", "avg", "map")
    )


def _parts(block: nn.Module) -> tuple[nn.Module, ...]:
    """Attention, MLP, norm and layer scale of a block, the first ones where there are more."""
    if isinstance(block, Block):
        return block.attn, block.mlp, block.norm1, block.ls1
    first = block.attns[0]
    return first.attn, block.ffns[0].mlp, first.norm, first.ls


def _timm_truth(model: nn.Module) -> dict[str, Any]:
    block, distilled = model.blocks[0], hasattr(model, "dist_token")
    attn, mlp, norm, scale = _parts(block)
    activation = mlp.act
    in_front = model.num_prefix_tokens  # without any, the two ways to add positions are one
    tanh = getattr(activation, "approximate", "none") == "tanh"
    return {
        "image_size": model.patch_embed.img_size[0],
        "patch_size": model.patch_embed.patch_size[0],
        "embed_dim": model.embed_dim,
        "depth": len(model.blocks),
        "num_heads": attn.num_heads,
        "num_classes": model.num_classes,
        "mlp_dim": mlp.fc2.in_features,
        "mlp": "swiglu" if isinstance(mlp, GluMlp) else "mlp",
        "norm_eps": norm.eps,
        "activation": "gelu_tanh" if tanh else ACTIVATIONS[type(activation).__name__],
        "class_token": model.has_class_token,
        "distillation_token": distilled,
        "distillation_head": distilled and model.num_classes > 0,
        "num_registers": model.num_reg_tokens,
        "positions": "patches" if model.no_embed_class or not in_front else "all",
        "pooling": model.global_pool,
        "block": BLOCKS[type(block)],
        "norm": NORMS[type(norm)],
        "final_norm": type(model.norm) in NORMS,
        "head_norm": type(model.fc_norm) in NORMS,
        "pre_norm": isinstance(model.norm_pre, LayerNorm),
        "patch_bias": model.patch_embed.proj.bias is not None,
        "qkv_bias": attn.qkv.bias is not None,
        "qk_norm": type(attn.q_norm) in NORMS,
        "layer_scale": not isinstance(scale, nn.Identity),
    }


def _hub_config(model: nn.Module) -> dict[str, Any]:
    with recording.temporary_folder() as folder:
        save_config_for_hf(model, folder / "config.json")
        return json.loads((folder / "config.json").read_text("utf-8"))


def hugging_face_records() -> Iterator[dict[str, Any]]:
    """Published sizes; a model of one block is saved, for the names that its file has."""
    for kind, config, options in HUGGING_FACE:
        settings = getattr(transformers, config)(**options)
        truth = {
            "image_size": settings.image_size,
            "patch_size": settings.patch_size,
            "embed_dim": settings.hidden_size,
            "depth": settings.num_hidden_layers,
            "num_heads": settings.num_attention_heads,
            "num_classes": settings.num_labels if "Classification" in kind else 0,
            "norm_eps": settings.layer_norm_eps,
            "activation": "silu" if options.get("use_swiglu_ffn") else "gelu",
            "mlp": "swiglu" if options.get("use_swiglu_ffn") else "mlp",
            "distillation_token": config == "DeiTConfig",
            "distillation_head": kind.endswith("WithTeacher"),
            "num_registers": options.get("num_register_tokens", 0),
            "pooling": "token_avg" if kind.startswith("Dinov2") and "For" in kind else "token",
            "layer_scale": kind.startswith("Dinov2"),
        }
        depth = settings.num_hidden_layers
        settings.num_hidden_layers = 1
        with recording.temporary_folder() as folder:
            getattr(transformers, kind)(settings).save_pretrained(folder)
            saved = json.loads((folder / "config.json").read_text("utf-8"))
            with safe_open(folder / "model.safetensors", "pt") as file:
                state = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
                shapes = {
                    re.sub(r"\.layer\.0\.", ".layer.#.", key): value.get_shape()
                    for key, value in state.items()
                }
        saved["num_hidden_layers"] = depth
        for labels in ("id2label", "label2id"):
            saved.pop(labels, None)
        yield {
            "library": "transformers",
            "name": kind,
            "shapes": shapes,
            "config": saved,
            "truth": truth,
        }


def _collapsed(state: dict[str, torch.Tensor], block: str) -> dict[str, list[int]]:
    """Names and shapes, with those of all blocks told once; fails if blocks differ."""
    found: dict[str, list[int]] = {}
    for key, value in state.items():
        match = re.search(block, key)
        general = key if match is None else key[: match.start(1)] + "#" + key[match.end(1) :]
        if found.setdefault(general, list(value.shape)) != list(value.shape):
            raise RuntimeError(f"blocks differ in {key}")
    return found


if __name__ == "__main__":
    main()
