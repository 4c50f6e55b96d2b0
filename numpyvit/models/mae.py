"""The masked autoencoder (He et al. 2022): an encoder learns by painting what it did not see."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Self

import numpy
from numpy.random import Generator, default_rng

from numpyvit import functional
from numpyvit.backend import Array, to_device, to_numpy
from numpyvit.models.base import ImageModel
from numpyvit.models.config import ViTConfig
from numpyvit.models.mae_variants import MAEConfig
from numpyvit.models.vit import VisionTransformer
from numpyvit.nn import (
    Conv2d,
    Identity,
    Linear,
    Parameter,
    current_generator,
    init,
    sincos_positions,
)
from numpyvit.tensor import Tensor

VARIANCE_EPS = 1e-6  # of the patches that are normalised


class MAEOutput(NamedTuple):
    """What a forward pass gives back.

    `prediction` (B, N, P*P*C) is what the model makes of every patch, in the order (row, column,
    channel) and normalised if the targets are. `mask` (B, N) is True where a patch was hidden: the
    `loss` is of these alone.
    """

    loss: Tensor
    prediction: Tensor
    mask: Array


class MaskedAutoencoder(ImageModel):
    """Most patches are hidden; the encoder sees the others, a small decoder predicts the hidden.

    The names are those of the paper's code. The encoder's parts are a VisionTransformer's, so what
    was learned goes into one: see `encoder_state` and `to_vit`. Positions are fixed sines and
    cosines: stored, but never trained.
    """

    def __init__(self, config: MAEConfig, *, rng: Generator | None = None) -> None:
        rng = rng or default_rng()
        self.config = config
        with init.undrawn():  # `_start` draws
            encoder, decoder = VisionTransformer(config.encoder), VisionTransformer(config.decoder)
        self.cls_token = Parameter(init.trunc_normal((1, 1, config.encoder.embed_dim), rng))
        self.pos_embed: Parameter = _fixed_positions(config.encoder)
        self.patch_embed, self.blocks, self.norm = encoder.patch_embed, encoder.blocks, encoder.norm
        self.decoder_embed = Linear(config.encoder.embed_dim, config.decoder_embed_dim, rng=rng)
        self.mask_token = Parameter(init.trunc_normal((1, 1, config.decoder_embed_dim), rng))
        self.decoder_pos_embed = _fixed_positions(config.decoder)
        self.decoder_blocks, self.decoder_norm = decoder.blocks, decoder.norm
        self.decoder_pred = Linear(config.decoder_embed_dim, config.encoder.patch_values, rng=rng)
        self.pos_drop = self.head = Identity()
        self._start(rng)

    def _start(self, rng: Generator) -> None:
        """Xavier's uniform weights (Glorot and Bengio 2010) and biases of 0: appendix A.1."""
        for _, module in self.named_modules():
            if isinstance(module, Linear | Conv2d):
                rows, columns = module.weight.shape[0], math.prod(module.weight.shape[1:])
                bound = math.sqrt(6 / (rows + columns))
                module.weight.data = init.uniform(module.weight.shape, rng, bound)
                if module.bias is not None:
                    module.bias.data = init.zeros(module.bias.shape)

    def requires_grad_(self, wanted: bool = True) -> Self:
        """Freeze or thaw all parameters; the positions stay frozen."""
        super().requires_grad_(wanted)
        self.pos_embed.requires_grad = self.decoder_pos_embed.requires_grad = False
        return self

    def forward(  # type: ignore[override]
        self, images: Tensor | Array, noise: Array | None = None, *, reduction: str = "mean"
    ) -> MAEOutput:
        """Images (B, C, H, W), each with some patches hidden: loss, prediction and mask.

        The patches with the least `noise` (B, N) stay visible; by default it is drawn from
        `current_generator()`. An image's loss is the mean of the squared errors of its hidden
        patches; over images it is averaged ("mean") or added ("sum").
        """
        x = self._as_input(images)
        order = self._order(len(x), noise)
        visible, hidden = numpy.split(order, [self.config.num_visible], axis=1)
        places = order.argsort(1)
        latent = self.forward_encoder(x, visible)
        prediction = self.forward_decoder(latent, places)
        loss = self.forward_loss(x, prediction, hidden, reduction)
        mask = to_device(places >= self.config.num_visible, self.device)
        return MAEOutput(loss, prediction, mask)

    def forward_encoder(self, images: Tensor, visible: Array) -> Tensor:
        """Images (B, C, H, W), and which patches (B, K) are seen: tokens (B, 1+K, D)."""
        positions = self.pos_embed
        patches = self.patch_embed(images) + positions[:, 1:]
        patches = functional.take_along(patches, to_device(visible, self.device))
        first = self.cls_token + positions[:, :1]
        x = functional.concat([first.expand(len(patches), *first.shape[1:]), patches], axis=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def forward_decoder(self, latent: Tensor, places: Array) -> Tensor:
        """Tokens (B, 1+K, D) of the encoder to predictions (B, N, P*P*C) of all patches.

        `places` (B, N) says where each patch is found: the visible ones come first, in the order
        of the tokens, and the mask token stands for each of the others.
        """
        x = self.decoder_embed(latent)
        b, count, width = x.shape
        hidden = self.mask_token.expand(b, 1 + self.config.num_patches - count, width)
        after_class = numpy.insert(1 + places, 0, 0, axis=1)  # the class token stays in front
        x = functional.concat([x, hidden], axis=1)
        x = functional.take_along(x, to_device(after_class, self.device))
        x = x + self.decoder_pos_embed
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_pred(self.decoder_norm(x))[:, 1:]

    def forward_loss(
        self, images: Tensor, prediction: Tensor, hidden: Array, reduction: str = "mean"
    ) -> Tensor:
        """The mean squared error at the `hidden` patches (B, M), averaged or added over images."""
        hidden = to_device(hidden, self.device)
        target = functional.take_along(self.patchify(images), hidden)
        if self.config.norm_pix:
            mean, deviation = _statistics(target)
            target = (target - mean) / deviation
        loss = functional.mse(functional.take_along(prediction, hidden), target, reduction)
        return loss if reduction == "mean" else loss / math.prod(target.shape[1:])

    def patchify(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, N, P*P*C): (row, column, channel), other than a kernel's order."""
        b, c, h, w = images.shape
        p, q = self.config.encoder.patch_shape
        x = images.reshape(b, c, h // p, p, w // q, q)
        return x.permute(0, 2, 4, 3, 5, 1).reshape(b, -1, p * q * c)  # b (h w) (p q c)

    def unpatchify(self, patches: Tensor) -> Tensor:
        """(B, N, P*P*C) -> (B, C, H, W): the way back from `patchify`."""
        config = self.config.encoder
        x = patches.reshape(-1, *config.grid, *config.patch_shape, config.in_channels)
        x = x.permute(0, 5, 1, 3, 2, 4)  # b h w p q c -> b c h p w q
        return x.reshape(-1, config.in_channels, *config.image_shape)

    def reconstruct(self, images: Tensor | Array, prediction: Tensor) -> Tensor:
        """A `prediction` of `images` as pictures (B, C, H, W), values as those of the images.

        Normalised patches get the mean and deviation that they have in the images.
        """
        if self.config.norm_pix:
            mean, deviation = _statistics(self.patchify(self._as_input(images)))
            prediction = prediction * deviation + mean
        return self.unpatchify(prediction)

    def encoder_state(self) -> dict[str, Array]:
        """The encoder's arrays under the names of a VisionTransformer: not copies.

        For `load_state_dict(..., strict=False)`, as there is no head. A model without a final norm
        leaves it out.
        """
        return {
            name: array
            for name, array in self.state_dict().items()
            if not name.startswith(("decoder_", "mask_token"))
        }

    def to_vit(self, *, rng: Generator | None = None, **changes: Any) -> VisionTransformer:
        """A VisionTransformer with copies of the encoder's weights, to train further.

        `changes` are of the encoder's configuration: `num_classes=10` for a head, and with
        `pooling="avg", final_norm=False, head_norm=True` the form in which the paper's code trains
        it. What the encoder does not have is drawn from `rng`. Raises ValueError for weights that
        do not fit.
        """
        config = self.config.encoder.replace(**changes)
        model = VisionTransformer(config, rng=rng or default_rng()).to(self.dtype, self.device)
        model.load_state_dict(self.encoder_state(), strict=False)
        return model

    def backbone(self) -> ImageModel:
        """The encoder, as `to_vit` gives it."""
        return self.to_vit()

    def left_out(self) -> str:
        """The decoder, and what was learned with it."""
        config = self.config
        return (
            f"the decoder of a masked autoencoder (depth {config.decoder_depth}, width "
            f"{config.decoder_embed_dim}), which drew the {config.mask_ratio:.0%} of the patches "
            "that the encoder did not see"
        )

    def _order(self, count: int, noise: Array | None) -> numpy.ndarray:
        """The patches of `count` images by rising noise: (B, N), on the CPU."""
        shape = (count, self.config.num_patches)
        if noise is None:
            noise = current_generator().random(shape)
        noise = to_numpy(noise)
        if noise.shape != shape:
            raise ValueError(
                f"[MaskedAutoencoder] expected noise (B, N) of shape {shape}, got {noise.shape}"
            )
        return noise.argsort(1, kind="stable")  # the same on every machine, equal values or not


def _fixed_positions(config: ViTConfig) -> Parameter:
    """Sines and cosines (1, 1+N, D), zeros for the class token; not trained."""
    patches = sincos_positions(config.grid, config.embed_dim)
    positions = Parameter(numpy.pad(patches, ((1, 0), (0, 0)))[None].astype("float32"))
    positions.requires_grad = False
    return positions


def _statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each patch (..., P*P*C); the variance is the unbiased one."""
    variance = patches.var(-1, keepdims=True)
    return patches.mean(-1, keepdims=True), (variance + VARIANCE_EPS).sqrt()
