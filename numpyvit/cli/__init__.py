"""The command line: `numpyvit train`, `predict`, `attention` and the others, one file each."""

# Each file imports only from those above it, which is not the alphabet's order.
from __future__ import annotations

from numpyvit.cli import errors
from numpyvit.cli import parsing
from numpyvit.cli import output
from numpyvit.cli import progress
from numpyvit.cli import opening
from numpyvit.cli import classes
from numpyvit.cli import losses
from numpyvit.cli import photos
from numpyvit.cli import run_data
from numpyvit.cli import prepared
from numpyvit.cli import train_options
from numpyvit.cli import train
from numpyvit.cli import evaluate
from numpyvit.cli import predict
from numpyvit.cli import maps
from numpyvit.cli import attention
from numpyvit.cli import features
from numpyvit.cli import inspect
from numpyvit.cli import convert
from numpyvit.cli import models
from numpyvit.cli import recipes
from numpyvit.cli import bench
from numpyvit.cli.app import main

__all__ = [
    "attention",
    "bench",
    "classes",
    "convert",
    "errors",
    "evaluate",
    "features",
    "inspect",
    "losses",
    "main",
    "maps",
    "models",
    "opening",
    "output",
    "parsing",
    "photos",
    "predict",
    "prepared",
    "progress",
    "recipes",
    "run_data",
    "train",
    "train_options",
]
