"""A model whose patches look at patches near them only."""

from __future__ import annotations

from numpyvit.compress.sharing import check_whole, plain_attention, share
from numpyvit.models import VisionTransformer
from numpyvit.nn import LocalAttention, Locality


def attend_locally(
    model: VisionTransformer, size: int, kind: str = "neighbourhood", shifted: bool = False
) -> VisionTransformer:
    """`model` with its weights shared and its attention made local; see `nn.Locality`.

    With `shifted`, every second block moves its windows by half their size (Liu et al. 2021).
    `save_model` refuses what comes out. Raises ValueError for another attention than the plain one,
    merged or dropped tokens, and sizes that do not fit.
    """
    check_whole(model)
    if shifted and kind != "window":
        raise ValueError(f"[attend_locally] expected kind='window' with shifted, got {kind!r}")
    local = share(model)
    for number, attention in enumerate(plain_attention(local)):
        shift = size // 2 if shifted and number % 2 else 0
        locality = Locality(model.patch_embed.grid, size, kind, shift)
        local.blocks[number].attn = LocalAttention.of(attention, locality)
    return local
