"""The families of models: which configuration makes which model, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from numpy.random import Generator

from numpyvit.models.base import ImageModel, ModelConfig
from numpyvit.models.config import ViTConfig
from numpyvit.models.costs import count_vit_multiply_adds
from numpyvit.models.mae import MaskedAutoencoder
from numpyvit.models.mae_variants import MAEConfig, count_mae_multiply_adds
from numpyvit.models.swin import SwinConfig, SwinTransformer
from numpyvit.models.swin_variants import count_swin_multiply_adds
from numpyvit.models.vit import VisionTransformer
from numpyvit.nn import init


class Family(NamedTuple):
    """A configuration's class, the class of its models, and how their products are counted.

    `objective` is what its models are trained for: a row of `train.OBJECTIVES`.
    """

    config: type[ModelConfig]
    model: Callable[..., ImageModel]
    count_multiply_adds: Callable[[Any], int]
    objective: str = "classification"


# By the name that checkpoints give them; what says nothing is a ViT.
FAMILIES: dict[str, Family] = {
    "vit": Family(ViTConfig, VisionTransformer, count_vit_multiply_adds),
    "swin": Family(SwinConfig, SwinTransformer, count_swin_multiply_adds),
    "mae": Family(MAEConfig, MaskedAutoencoder, count_mae_multiply_adds, "reconstruction"),
}


def family_of(config: ModelConfig) -> str:
    """The family that a configuration is of."""
    return next(name for name, family in FAMILIES.items() if isinstance(config, family.config))


def build_model(config: ModelConfig, *, rng: Generator | None = None) -> ImageModel:
    """The model that a configuration describes, with starting weights."""
    return FAMILIES[family_of(config)].model(config, rng=rng)


def config_from_dict(family: str, fields: Mapping[str, Any]) -> ModelConfig:
    """What `ModelConfig.to_dict` gave; KeyError, TypeError or ValueError for anything else."""
    return FAMILIES[family].config.from_dict(fields)


def count_parameters(config: ModelConfig) -> int:
    """Numbers that training changes."""
    with init.undrawn():  # zeros that take no memory
        model = build_model(config)
    return sum(parameter.size for parameter in model.parameters() if parameter.requires_grad)


def count_multiply_adds(config: ModelConfig) -> int:
    """Multiply-adds of the matrix products in one image's forward pass.

    Attention's two products are counted; biases, norms, softmax and GELU are not, as is usual:
    17.56 billion for ViT-B/16.
    """
    return FAMILIES[family_of(config)].count_multiply_adds(config)
