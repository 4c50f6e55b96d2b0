"""Models: the Vision Transformer and the table of its named variants."""

from numpyvit.models.config import ViTConfig
from numpyvit.models.vit import VisionTransformer, ViTOutput
from numpyvit.models.costs import count_multiply_adds, count_parameters
from numpyvit.models.archive import (
    Archive,
    packaged_archive,
    read_archive,
    replacing,
    write_archive,
)
from numpyvit.models.variants import VARIANTS, create_model, list_models, model_config

__all__ = [
    "VARIANTS",
    "Archive",
    "ViTConfig",
    "ViTOutput",
    "VisionTransformer",
    "count_multiply_adds",
    "count_parameters",
    "create_model",
    "list_models",
    "model_config",
    "packaged_archive",
    "read_archive",
    "replacing",
    "write_archive",
]
