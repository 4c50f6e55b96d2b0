"""Write tests/weights/fixtures/mae_pretraining: a tiny ViTMAEForPreTraining and its answers.

`write_fixtures.py` calls it; alone it is run in the environment that README.md describes. The model
is saved as transformers does it (`model`) and as the paper's code does it (`weights.pth`, under its
names); `expected.npz` holds images, noise and what transformers makes of them in float64: mask,
prediction, the loss with and without normalised pixels, and the gradient of the former to every
weight that is trained, under the paper's names.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import torch
from recording import DEPTH, HEADS, MLP, PATCH, WIDTH, images, randomize, recorded_softmax
from transformers import ViTMAEConfig, ViTMAEForPreTraining

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "weights" / "fixtures" / "mae_pretraining"
SIZE, COUNT = 16, 2

# From names inside transformers 5 to those of the paper's code.
BLOCK = (
    (r"attention\.o_proj", "attn.proj"),
    (r"attention\.([qkv])_proj", r"attn.\1"),
    ("layernorm_before", "norm1"),
    ("layernorm_after", "norm2"),
)
NAMES = (
    (r"^vit\.layers\.", "blocks."),
    (r"^decoder\.decoder_layers\.", "decoder_blocks."),
    *BLOCK,
    (r"^vit\.embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
    (r"^vit\.embeddings\.position_embeddings", "pos_embed"),
    (r"^vit\.embeddings\.", ""),
    (r"^vit\.layernorm", "norm"),
    (r"^decoder\.", ""),
)


def main() -> None:
    """Write the folder anew."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    model = ViTMAEForPreTraining(configuration())
    fixed = fixed_positions(model)
    randomize(model, "mae_pretraining")
    model.save_pretrained(FOLDER / "model")
    torch.save({"model": papers(model)}, FOLDER / "weights.pth")
    found = {name: value.numpy() for name, value in fixed.items()} | answers(model)
    np.savez_compressed(FOLDER / "expected.npz", **found)
    size = sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file())
    print(f"mae_pretraining {size / 1024:.1f} KiB")


def fixed_positions(model: ViTMAEForPreTraining) -> dict[str, torch.Tensor]:
    """The positions that transformers starts with, which it leaves at 0 when it builds a model."""
    embeddings = model.vit.embeddings
    for module in model.modules():
        module._is_hf_initialized = False
    for parameter in model.parameters():
        parameter._is_hf_initialized = False
    embeddings.initialize_weights()
    model.decoder.initialize_weights(embeddings.patch_embeddings.num_patches)
    values = papers(model)
    return {f"start_{name}": values[name] for name in ("pos_embed", "decoder_pos_embed")}


def configuration() -> ViTMAEConfig:
    """Other sizes in the decoder than in the encoder; eager, so that softmax is replaced."""
    settings = ViTMAEConfig(
        hidden_size=WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        intermediate_size=MLP,
        image_size=SIZE,
        patch_size=PATCH,
        decoder_hidden_size=4,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=1,
        decoder_intermediate_size=12,
        norm_pix_loss=True,
    )
    settings._attn_implementation = "eager"
    return settings


def answers(model: ViTMAEForPreTraining) -> dict[str, np.ndarray]:
    """What the model makes of images and noise, in float64."""
    pictures = images(SIZE, COUNT)
    noise = np.random.default_rng(0).random((COUNT, (SIZE // PATCH) ** 2))
    given = {"pixel_values": torch.from_numpy(pictures), "noise": torch.from_numpy(noise)}
    with recorded_softmax():
        output = model.double()(**given)
        output.loss.backward()
        model.config.norm_pix_loss = False
        raw = model(**given).loss
    found = {"images": pictures, "noise": noise, "mask": output.mask, "prediction": output.logits}
    found |= {"loss": output.loss, "loss_of_raw_pixels": raw}
    found |= {f"gradient.{name}": value for name, value in papers(model, gradient=True).items()}
    return {
        name: value.detach().numpy() if isinstance(value, torch.Tensor) else value
        for name, value in found.items()
    }


def papers(model: ViTMAEForPreTraining, gradient: bool = False) -> dict[str, torch.Tensor]:
    """The model's values, or its gradients, under the names of the paper's code."""
    found: dict[str, torch.Tensor] = {}
    for key, parameter in model.named_parameters():
        value = parameter.grad if gradient else parameter.detach()
        if value is None:
            continue
        for pattern, new in NAMES:
            key = re.sub(pattern, new, key)
        found[key] = value.clone()
    for key in [key for key in found if ".attn.q." in key]:
        rows = [found.pop(key.replace(".attn.q.", f".attn.{part}.")) for part in "qkv"]
        found[key.replace(".attn.q.", ".attn.qkv.")] = torch.cat(rows)
    return found


if __name__ == "__main__":
    main()
