"""Training: recipes, micro-batches on processes, run folders, the loop."""

from __future__ import annotations

from numpyvit.threads import available_cores
from numpyvit.train.memory import keep_freed_memory
from numpyvit.train.process import WorkerProcess
from numpyvit.train.parallel import TreeSum, WorkerPool
from numpyvit.train.probe import FeatureData, Probe, head_inputs
from numpyvit.train.objectives import (
    OBJECTIVES,
    Classification,
    Objective,
    Reconstruction,
    objective_of,
)
from numpyvit.train.distillation import KINDS, Distillation, Teacher, Teaching
from numpyvit.train.step import Evaluation, StepResult, evaluate, micro_batch_for, set_gradients
from numpyvit.train.recipes import RECIPES, Recipe, recipe
from numpyvit.train.tuning import (
    HEAD,
    check_tune,
    freeze,
    last_blocks,
    parameter_groups,
    start_training,
    with_new_head,
)
from numpyvit.train.state import TrainingState
from numpyvit.train.prepared import PreparedPictures, training_view, tuning_rule
from numpyvit.train.run import Progress, RunConfig, RunFolder, next_folder
from numpyvit.train.starting import fingerprint, new_model, starting_model
from numpyvit.train.diagnose import NonFiniteError, first_non_finite, non_finite_gradient
from numpyvit.train.interrupt import Interruption
from numpyvit.train.progress import ProgressBar, counting
from numpyvit.train.features import compute_features, probe_data
from numpyvit.train.trainer import Trainer, TrainingInterrupted
from numpyvit.train.pictures import class_probabilities, write_pictures

__all__ = [
    "HEAD",
    "KINDS",
    "OBJECTIVES",
    "RECIPES",
    "Classification",
    "Distillation",
    "Evaluation",
    "FeatureData",
    "Interruption",
    "NonFiniteError",
    "Objective",
    "PreparedPictures",
    "Probe",
    "Progress",
    "ProgressBar",
    "Recipe",
    "Reconstruction",
    "RunConfig",
    "RunFolder",
    "StepResult",
    "Teacher",
    "Teaching",
    "Trainer",
    "TrainingInterrupted",
    "TrainingState",
    "TreeSum",
    "WorkerPool",
    "WorkerProcess",
    "available_cores",
    "check_tune",
    "class_probabilities",
    "compute_features",
    "counting",
    "evaluate",
    "fingerprint",
    "first_non_finite",
    "freeze",
    "head_inputs",
    "keep_freed_memory",
    "last_blocks",
    "micro_batch_for",
    "new_model",
    "next_folder",
    "non_finite_gradient",
    "objective_of",
    "parameter_groups",
    "probe_data",
    "recipe",
    "set_gradients",
    "start_training",
    "starting_model",
    "training_view",
    "tuning_rule",
    "with_new_head",
    "write_pictures",
]
