"""Models: the Vision Transformer and the table of its named variants."""

from __future__ import annotations

from numpyvit.models.base import ImageModel, ModelConfig, ViTOutput, check_kinds
from numpyvit.models.config import ViTConfig
from numpyvit.models import components
from numpyvit.models import costs
from numpyvit.models.vit import VisionTransformer
from numpyvit.models.swin import SwinConfig, SwinTransformer
from numpyvit.models.swin_variants import SWIN_VARIANTS
from numpyvit.models.inference import predict
from numpyvit.models.initialization import INITIALIZATIONS, cosine_filters
from numpyvit.models.mae_variants import MAE_VARIANTS, MAEConfig
from numpyvit.models.mae import MAEOutput, MaskedAutoencoder
from numpyvit.models.families import (
    FAMILIES,
    build_model,
    config_from_dict,
    count_multiply_adds,
    count_parameters,
    family_of,
)
from numpyvit.models.archive import (
    Archive,
    packaged_archive,
    read_archive,
    replacing,
    write_archive,
)
from numpyvit.models.saved import (
    Labelling,
    SavedModel,
    load_model,
    load_packaged_model,
    save_model,
)
from numpyvit.models.variants import VARIANTS, create_model, list_models, model_config

__all__ = [
    "FAMILIES",
    "INITIALIZATIONS",
    "MAE_VARIANTS",
    "SWIN_VARIANTS",
    "VARIANTS",
    "Archive",
    "ImageModel",
    "Labelling",
    "MAEConfig",
    "MAEOutput",
    "MaskedAutoencoder",
    "ModelConfig",
    "SavedModel",
    "SwinConfig",
    "SwinTransformer",
    "ViTConfig",
    "ViTOutput",
    "VisionTransformer",
    "build_model",
    "check_kinds",
    "components",
    "config_from_dict",
    "cosine_filters",
    "costs",
    "count_multiply_adds",
    "count_parameters",
    "create_model",
    "family_of",
    "list_models",
    "load_model",
    "load_packaged_model",
    "model_config",
    "packaged_archive",
    "predict",
    "read_archive",
    "replacing",
    "save_model",
    "write_archive",
]
