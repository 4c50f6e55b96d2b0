"""Training: recipes, micro-batches on processes, run folders, the loop."""

from __future__ import annotations

from numpyvit.threads import available_cores
from numpyvit.train.memory import keep_freed_memory
from numpyvit.train.process import WorkerProcess
from numpyvit.train.parallel import TreeSum, WorkerPool
from numpyvit.train.step import Evaluation, StepResult, evaluate, micro_batch_for, set_gradients
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
    "WorkerProcess",
    "available_cores",
    "build_model",
    "class_probabilities",
    "evaluate",
    "first_non_finite",
    "keep_freed_memory",
    "micro_batch_for",
    "next_folder",
    "non_finite_gradient",
    "parameter_groups",
    "recipe",
    "set_gradients",
    "write_pictures",
]
