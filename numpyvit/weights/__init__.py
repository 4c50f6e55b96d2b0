"""Weights in the files of others: opened without their libraries, and written for them."""

# Each file imports only from those above it, which is not the alphabet's order.
from __future__ import annotations

from numpyvit.weights.text import printable, shown
from numpyvit.weights.stored import StoredArray, WeightFileError
from numpyvit.weights.json_text import read_object
from numpyvit.weights.zipped import read_directory
from numpyvit.weights.safetensors import read_safetensors, write_safetensors
from numpyvit.weights.npz import read_npz
from numpyvit.weights.recognize import recognize
from numpyvit.weights.torch_names import Name
from numpyvit.weights.torch_values import Inert
from numpyvit.weights.torch_objects import BUILDERS
from numpyvit.weights.torch_machine import Machine
from numpyvit.weights.torch_pickle import unpickle
from numpyvit.weights.torch_file import read_torch_legacy, read_torch_zip
from numpyvit.weights.container import WeightFile, open_weights
from numpyvit.weights.resizing import (
    POSITION_RULES,
    resize_bias_table,
    resize_patch_kernel,
    resize_positions,
    resized,
)
from numpyvit.weights import dialects
from numpyvit.weights.assembling import assemble
from numpyvit.weights.options import check_options
from numpyvit.weights.pretrained import Pretrained, load_pretrained
from numpyvit.weights.masked_autoencoder import load_masked_autoencoder
from numpyvit.weights.conversion import TARGETS, Converted, convert

__all__ = [
    "BUILDERS",
    "POSITION_RULES",
    "TARGETS",
    "Converted",
    "Inert",
    "Machine",
    "Name",
    "Pretrained",
    "StoredArray",
    "WeightFile",
    "WeightFileError",
    "assemble",
    "check_options",
    "convert",
    "dialects",
    "load_masked_autoencoder",
    "load_pretrained",
    "open_weights",
    "printable",
    "read_directory",
    "read_npz",
    "read_object",
    "read_safetensors",
    "read_torch_legacy",
    "read_torch_zip",
    "recognize",
    "resize_bias_table",
    "resize_patch_kernel",
    "resize_positions",
    "resized",
    "shown",
    "unpickle",
    "write_safetensors",
]
