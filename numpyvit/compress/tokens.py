"""Fewer tokens from block to block: alike ones merged, or unimportant ones dropped."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from numpyvit import functional
from numpyvit.backend import Array, array_module
from numpyvit.compress.sharing import check_whole, plain_attention
from numpyvit.models import VisionTransformer
from numpyvit.nn import Attention, AttentionPositions, Block
from numpyvit.tensor import Tensor


class Tokens(NamedTuple):
    """Tokens `x` (B, M, D) on their way; the first `front` of them are no patches.

    `sizes` (B, M, 1) says how many tokens of the beginning each one stands for, and `places` (B, N)
    where each of these is now; both are None as long as nothing was merged.
    """

    x: Tensor
    front: int
    sizes: Tensor | None = None
    places: Array | None = None


class Shorten(Protocol):
    """What happens to the tokens between a block's attention and its MLP."""

    def wants(self, block: int) -> bool:
        """Whether block number `block` passes on fewer tokens."""

    def __call__(self, block: int, tokens: Tokens, q: Tensor, k: Tensor) -> Tokens:
        """Fewer tokens, by the queries and keys (B, H, M, K) of the block's attention."""


@dataclasses.dataclass(frozen=True)
class Merging:
    """Bipartite soft matching (Bolya et al. 2023, section 3): `counts[i]` tokens fewer in block i.

    Every second token finds the most similar one of the others, by the cosine of their keys (mean
    over heads). The pairs that are most alike become one token each, their mean weighted by size.
    """

    counts: tuple[int, ...]

    def wants(self, block: int) -> bool:
        """Whether tokens are to be merged here."""
        return self.counts[block] > 0

    def __call__(self, block: int, tokens: Tokens, q: Tensor, k: Tensor) -> Tokens:
        """At most half of the patches go; the others keep their order."""
        x, front, sizes, places = tokens
        xp = array_module(x.data)
        count = min(self.counts[block], (x.shape[1] - front) // 2)
        if not count:
            return tokens
        kept, merged, targets = _most_alike(k.data, front, count)
        onto = Tensor((kept[:, :, None] == targets[:, None]).astype(x.dtype))  # b kept merged

        def together(values: Tensor) -> Tensor:
            return functional.take_along(values, kept) + onto @ functional.take_along(
                values, merged
            )

        sizes = Tensor(xp.ones((*x.shape[:2], 1), x.dtype)) if sizes is None else sizes
        new_sizes = together(sizes)
        rows = xp.arange(len(x))[:, None]
        rank = xp.empty(x.shape[:2], kept.dtype)
        rank[rows, kept] = xp.arange(kept.shape[1])
        rank[rows, merged] = rank[rows, targets]
        places = rank if places is None else rank[rows, places]
        return Tokens(together(x * sizes) / new_sizes, front, new_sizes, places)


@dataclasses.dataclass(frozen=True)
class Dropping:
    """Inattentive tokens go (Liang et al. 2022, section 3): a share `keep_rates[i]` stays.

    What counts is the attention that the class token pays to a patch, mean over heads. With `fuse`
    one token more takes the place of those that go: their sum, weighted by that attention.
    """

    keep_rates: tuple[float, ...]
    fuse: bool

    def wants(self, block: int) -> bool:
        """Whether tokens are to be dropped here."""
        return self.keep_rates[block] < 1

    def __call__(self, block: int, tokens: Tokens, q: Tensor, k: Tensor) -> Tokens:
        """The tokens in front stay; the patches that do keep their order."""
        x, front = tokens.x, tokens.front
        xp = array_module(x.data)
        weights = functional.attention_weights(q[:, :, :1], k)[:, :, 0].mean(1)  # b n
        count = math.ceil(self.keep_rates[block] * (x.shape[1] - front))
        order = front + _descending(weights.data[:, front:])
        in_front = xp.broadcast_to(xp.arange(front), (len(x), front))
        staying = xp.concatenate([in_front, xp.sort(order[:, :count])], 1)
        parts = [functional.take_along(x, staying)]
        going = order[:, count:]
        if self.fuse and going.shape[1]:
            shares = functional.take_along(weights, going).reshape(len(x), 1, -1)
            parts.append(shares @ functional.take_along(x, going))
        return Tokens(functional.concat(parts, axis=1), front)


class ShortenedTransformer(VisionTransformer):
    """`model` with the same modules and weights, whose blocks pass on fewer tokens.

    `save_model` refuses it; save `model`.
    """

    attends_globally = False  # weights between tokens that stand for several, or for a part

    def __init__(self, model: VisionTransformer, shorten: Shorten) -> None:
        parts = [*model.blocks, *(attention.rel_pos for attention in plain_attention(model))]
        for part in parts:
            if type(part) not in (Block, AttentionPositions):
                raise ValueError(
                    "[compress] expected pre-norm blocks, and attention that knows no places, got "
                    f"{type(part).__name__}"
                )
        check_whole(model)
        vars(self).update(vars(model))
        self.shorten = shorten

    def forward_features(
        self,
        images: Tensor | Array,
        maps: list[Tensor] | None = None,
        hidden_states: list[Tensor] | None = None,
        keep: int | None = None,
    ) -> Tensor:
        """(B, C, H, W) -> tokens (B, M, D) after the final norm.

        Merged ones are put back, each wherever one of its tokens was, unless only `keep` are read:
        pooling then weighs them by their size. Maps and hidden states are of what there was.
        """
        for tokens in self.stages(images, maps, keep):
            if hidden_states is not None:
                hidden_states.append(tokens.x)
        x = self.norm(tokens.x)
        if keep is None and tokens.places is not None:
            return functional.take_along(x, tokens.places)
        return x

    def stages(
        self,
        images: Tensor | Array,
        maps: list[Tensor] | None = None,
        keep: int | None = None,
    ) -> Iterator[Tokens]:
        """The tokens before the first block and after each, with who went where."""
        x = self.forward_embedding(self._as_input(images))
        tokens = Tokens(x, self.config.num_prefix_tokens)
        yield tokens
        last = len(self.blocks) - 1
        for number in range(len(self.blocks)):
            tokens = self._forward_block(number, tokens, maps, keep if number == last else None)
            yield tokens

    def _forward_block(
        self, number: int, tokens: Tokens, maps: list[Tensor] | None, keep: int | None
    ) -> Tokens:
        block, x = self.blocks[number], tokens.x
        shortens = keep is None and self.shorten.wants(number)
        if tokens.sizes is None and not shortens:
            return tokens._replace(x=block(x, maps, keep))
        y, q, k = _attend(block.attn, block.norm1(x), tokens.sizes, maps, keep)
        x = (x if keep is None else x[:, :keep]) + block.drop_path(block.ls1(y))
        tokens = tokens._replace(x=x)
        if shortens:
            tokens = self.shorten(number, tokens, q, k)
        mixed = block.ls2(block.mlp(block.norm2(tokens.x)))
        return tokens._replace(x=tokens.x + block.drop_path(mixed))


def merge_tokens(model: VisionTransformer, count: int | Iterable[int]) -> ShortenedTransformer:
    """`model` with ToMe (Bolya et al. 2023): each block merges `count` tokens; nothing is trained.

    Attention weighs a token by its size (equation 1). `count` may be a number for each block. The
    last block merges nothing where only the class token is read after it. Weights are shared with
    `model`. Raises ValueError for numbers below 0, other than pre-norm blocks, positions inside
    attention, and a model that is shortened already.
    """
    return ShortenedTransformer(model, Merging(_for_blocks(model, count)))


def prune_tokens(
    model: VisionTransformer,
    keep_rate: float,
    blocks: Iterable[int] | None = None,
    *,
    fuse: bool = True,
) -> ShortenedTransformer:
    """`model` with EViT's token reorganisation (Liang et al. 2022); nothing is trained.

    Of the patches, the share `keep_rate` with most attention of the class token stays in each of
    `blocks`: those after a quarter, a half and three quarters of the depth by default, as there.
    Weights are shared with `model`. Raises ValueError for a rate outside (0, 1], a block that is
    not there, a model without a class token, other than pre-norm blocks, positions inside
    attention, and a model that is shortened already.
    """
    depth = len(plain_attention(model))
    chosen = {depth * part // 4 for part in (1, 2, 3)} if blocks is None else set(blocks)
    if not 0 < keep_rate <= 1 or not chosen <= set(range(depth)):
        raise ValueError(
            f"[prune_tokens] expected 0 < keep_rate <= 1 and blocks from 0 to {depth - 1}, got "
            f"{keep_rate} and {sorted(chosen)}"
        )
    if not model.config.class_token:
        raise ValueError("[prune_tokens] expected a model with a class token, got one without")
    rates = tuple(keep_rate if number in chosen else 1.0 for number in range(depth))
    return ShortenedTransformer(model, Dropping(rates, fuse))


def _for_blocks(model: VisionTransformer, count: int | Iterable[int]) -> tuple[int, ...]:
    depth = len(plain_attention(model))
    counts: tuple[Any, ...] = tuple(count) if isinstance(count, Iterable) else (count,) * depth
    if len(counts) != depth:
        raise ValueError(f"[merge_tokens] expected {depth} numbers, one a block, got {len(counts)}")
    if not all(isinstance(each, numbers.Integral) and int(each) >= 0 for each in counts):
        raise ValueError(f"[merge_tokens] expected whole numbers of at least 0, got {counts}")
    return counts


def _attend(
    attention: Attention, x: Tensor, sizes: Tensor | None, maps: Any, keep: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """What `attention` gives, each key counted `sizes` times; its queries and keys."""
    qkv = attention.qkv(x)
    bias = None if sizes is None else sizes.log().transpose(1, 2)[:, None]  # b n 1 -> b 1 1 n
    y = attention.proj_drop(attention.proj(attention.attend(qkv, bias, maps, keep)))
    heads = qkv.reshape(*x.shape[:2], 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    return y, attention.q_norm(heads[0]), attention.k_norm(heads[1])  # b h n k


def _most_alike(keys: Array, front: int, count: int) -> tuple[Array, Array, Array]:
    """Which tokens stay (in order), which ones go, and onto which: `keys` (B, H, N, K)."""
    xp = array_module(keys)
    keys = xp.einsum("bhnk->bnk", keys)  # a cosine does not tell a sum from a mean
    length = xp.sqrt(xp.einsum("bnk,bnk->bn", keys, keys))[..., None]
    keys /= xp.maximum(length, xp.finfo(keys.dtype).tiny)
    b, n, _ = keys.shape
    alike = keys[:, ::2] @ keys[:, 1::2].swapaxes(-1, -2)  # b even odd
    alike[:, : (front + 1) // 2] = -xp.inf  # what is no patch stays, and takes nothing up
    alike[:, :, : front // 2] = -xp.inf
    best = alike.argmax(-1)
    order = _descending(xp.take_along_axis(alike, best[..., None], 2)[..., 0])
    going = order[:, :count]
    targets = 2 * xp.take_along_axis(best, going, 1) + 1
    odd = xp.broadcast_to(xp.arange(1, n, 2), (b, n // 2))
    kept = xp.sort(xp.concatenate([2 * order[:, count:], odd], 1))
    return kept, 2 * going, targets


def _descending(values: Array) -> Array:
    """The order of each row's values, largest first; equal ones as they come."""
    return array_module(values).argsort(-values, axis=-1, kind="stable")
