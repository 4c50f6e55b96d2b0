"""timm's names, which are the model's own, and those of DeiT-III, MAE, DINO and DINOv2."""

from __future__ import annotations

from numpyvit.weights.dialects.naming import COUNTERS
from numpyvit.weights.dialects.rules import Dialect, Rule

_TOKENS = ("cls_token", "dist_token", "reg_token", "pos_embed", "attn_pool.latent")
# Of blocks with branches side by side.
_BRANCHES = ("blocks.#", "blocks.#.attns.#", "blocks.#.ffns.#")
_LAYERS = (
    "patch_embed.proj",
    "norm_pre",
    "blocks.#.norm1",
    "blocks.#.attn.qkv",
    "blocks.#.attn.q_norm",
    "blocks.#.attn.k_norm",
    "blocks.#.attn.proj",
    "blocks.#.norm2",
    "blocks.#.mlp.fc1",
    "blocks.#.mlp.fc2",
    *(f"{branch}.norm" for branch in _BRANCHES),
    *(f"blocks.#.attns.#.attn.{layer}" for layer in ("qkv", "q_norm", "k_norm", "proj")),
    "blocks.#.ffns.#.mlp.fc1",
    "blocks.#.ffns.#.mlp.fc2",
    "norm",
    "attn_pool.score",
    "attn_pool.q",
    "attn_pool.kv",
    "attn_pool.proj",
    "attn_pool.norm",
    "attn_pool.mlp.fc1",
    "attn_pool.mlp.fc2",
    "fc_norm",
    "pre_logits.fc",
    "head",
    "head_dist",
)

TIMM = Dialect(
    title="timm",
    anchor=r"patch_embed\.proj\.weight",
    rules=(
        *(Rule(name, name) for name in _TOKENS),
        *(Rule(f"{layer}.*", f"{layer}.*") for layer in _LAYERS),
        Rule("blocks.#.ls#.gamma", "blocks.#.ls#.gamma"),
        *(Rule(f"{branch}.ls.gamma", f"{branch}.ls.gamma") for branch in _BRANCHES),
        Rule("blocks.#.gamma_#", "blocks.#.ls#.gamma"),  # DeiT-III
        Rule("register_tokens", "reg_token"),  # DINOv2
        Rule("blocks.#.mlp.w12.*", "blocks.#.mlp.fc1.*"),
        Rule("blocks.#.mlp.w3.*", "blocks.#.mlp.fc2.*"),
        Rule("linear_head.*", "head.*"),  # DINOv2's classifiers
    ),
    drops=(
        (r"^mask_token$", "the token of masked patches"),
        (r"^decoder_(embed|pos_embed|blocks|norm|pred)\b", "MAE's decoder"),
        (r"^(dino_|ibot_)?head\.(mlp|last_layer)\.", "DINO's projection head"),
        (r"^(dino_loss|ibot_patch_loss|koleo_loss)\.", "a loss"),
        *COUNTERS,
    ),
    prefixes=("module", "backbone", "vit"),
    # DINOv2's training keeps its blocks in chunks.
    respellings=((r"^blocks\.\d+\.(?=\d+\.)", "blocks."),),
)
