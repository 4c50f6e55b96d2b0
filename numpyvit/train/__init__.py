"""Training: recipes, micro-batches on threads, run folders, the loop."""

from __future__ import annotations

from numpyvit.train.parallel import TreeSum, WorkerPool, available_cores
from numpyvit.train.step import Evaluation, StepResult, evaluate, set_gradients
from numpyvit.train.recipes import RECIPES, Recipe, recipe
from numpyvit.train.run import Progress, RunConfig, RunFolder, next_folder
from numpyvit.train.diagnose import NonFiniteError, first_non_finite, non_finite_gradient
from numpyvit.train.interrupt import Interruption
from numpyvit.train.progress import ProgressBar
from numpyvit.train.trainer import Trainer, TrainingInterrupted, build_model, parameter_groups
from numpyvit.train.pictures import class_probabilities, write_pictures

__all__ = [
    "RECIPES",
    "Evaluation",
    "Interruption",
    "NonFiniteError",
    "Progress",
    "ProgressBar",
    "Recipe",
    "RunConfig",
    "RunFolder",
    "StepResult",
    "Trainer",
    "TrainingInterrupted",
    "TreeSum",
    "WorkerPool",
    "available_cores",
    "build_model",
    "class_probabilities",
    "evaluate",
    "first_non_finite",
    "next_folder",
    "non_finite_gradient",
    "parameter_groups",
    "recipe",
    "set_gradients",
    "write_pictures",
]
