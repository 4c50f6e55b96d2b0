"""Whose names a file's weights have, and what they are in the model's names."""

# Each file imports only from those above it, which is not the alphabet's order.
from __future__ import annotations

from numpyvit.weights.dialects.rules import (
    Change,
    Dialect,
    Entry,
    Piece,
    Rule,
    Translation,
    translate,
)
from numpyvit.weights.dialects.naming import names_of
from numpyvit.weights.dialects.timm import TIMM
from numpyvit.weights.dialects.torchvision import TORCHVISION
from numpyvit.weights.dialects.hugging_face import HUGGING_FACE
from numpyvit.weights.dialects.google import GOOGLE
from numpyvit.weights.dialects.tutorial import TUTORIAL
from numpyvit.weights.dialects.swin import SWIN_DIALECTS
from numpyvit.weights.dialects.record import Record, find_record
from numpyvit.weights.dialects.choosing import DIALECTS, Chosen, choose
from numpyvit.weights.dialects.families import FAMILIES, Family, find_family
from numpyvit.weights.dialects.stated import contradictions
from numpyvit.weights.dialects.architecture import Architecture
from numpyvit.weights.dialects.swin_architecture import SwinArchitecture
from numpyvit.weights.dialects.evaluation import find_class_names, find_preprocessing
from numpyvit.weights.dialects.targets import (
    to_google,
    to_hugging_face,
    to_timm,
    to_torchvision,
)
from numpyvit.weights.dialects.hub_files import hub_config, hub_processor

__all__ = [
    "DIALECTS",
    "FAMILIES",
    "GOOGLE",
    "HUGGING_FACE",
    "SWIN_DIALECTS",
    "TIMM",
    "TORCHVISION",
    "TUTORIAL",
    "Architecture",
    "Change",
    "Chosen",
    "Dialect",
    "Entry",
    "Family",
    "Piece",
    "Record",
    "Rule",
    "SwinArchitecture",
    "Translation",
    "choose",
    "contradictions",
    "find_class_names",
    "find_family",
    "find_preprocessing",
    "find_record",
    "hub_config",
    "hub_processor",
    "names_of",
    "to_google",
    "to_hugging_face",
    "to_timm",
    "to_torchvision",
    "translate",
]
