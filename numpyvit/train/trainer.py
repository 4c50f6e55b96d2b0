"""The training loop."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable

import numpy
from numpy.random import SFC64, Generator

from numpyvit.data import Dataset, Loader, Transform
from numpyvit.explain import evaluating
from numpyvit.models import ImageModel, Labelling
from numpyvit.optim import LambdaLR, clip_grad_norm_, constant, warmup_cosine
from numpyvit.train.diagnose import NonFiniteError, first_non_finite, non_finite_gradient
from numpyvit.train.distillation import Distillation
from numpyvit.train.features import probe_data
from numpyvit.train.interrupt import Interruption
from numpyvit.train.objectives import Objective, objective_of
from numpyvit.train.parallel import WorkerPool
from numpyvit.train.probe import Learner, Probe
from numpyvit.train.progress import ProgressBar
from numpyvit.train.recipes import Recipe
from numpyvit.train.run import Row, RunConfig, RunFolder
from numpyvit.train.starting import fingerprint, starting_model
from numpyvit.train.state import TrainingState
from numpyvit.train.step import Evaluation, StepResult, evaluate, micro_batch_for, set_gradients
from numpyvit.train.tuning import HEAD, start_training


class TrainingInterrupted(Exception):  # noqa: N818 (it is no error: the work is saved)
    """The run was stopped and its work saved; it can be resumed."""


class Trainer:
    """Trains a model on a data set and writes what happens into a run folder.

    Everything random comes from (seed, step, micro-batch) or (seed, epoch, batch), so a run gives
    the same bits with any number of workers, and when it was stopped and resumed.

    Pictures are of the size that the model takes; those to train on may be larger where the recipe
    cuts random crops from them. `backbone` as for `starting_model`.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        train_data: Dataset,
        val_data: Dataset,
        *,
        workers: int | None = None,
        backbone: ImageModel | None = None,
    ) -> None:
        recipe = config.recipe
        self.config, self.folder, self.recipe = config, folder, recipe
        self.train_data, self.val_data = train_data, val_data
        _check_alike(train_data, val_data, sizes=config.weights is None)
        self.model = starting_model(config, folder, val_data, backbone)
        # A model without classes has no names for them.
        names = train_data.class_names if self.model.config.num_classes else ()
        self.labelling = Labelling(class_names=names, mean=recipe.mean, std=recipe.std)
        self.loader = Loader(
            train_data,
            recipe.batch_size,
            transform=recipe.train_transform(self.model.config.image_size),
            seed=config.seed,
            mixing=recipe.mixing(len(train_data.class_names)),
            repeats=recipe.repeats,
        )
        self.state = TrainingState(self.model, recipe)
        self.optimizer = self.state.optimizer
        self.schedule = LambdaLR(self.optimizer, _schedule(recipe, len(self.loader)))
        on_gpu = config.device != "cpu"
        self.micro_batch = recipe.batch_size if on_gpu else micro_batch_for(self.model.config)
        self.pool = WorkerPool(1 if on_gpu else workers)
        # What a step trains, and on what: for a probe, the head on features (see `_use_features`).
        self._learner: Learner = self.model
        self._val_inputs: Dataset = val_data
        self._prepare: Transform = recipe.normalize()
        self.progress = folder.restore(config, self.state, self.labelling, len(train_data))
        self.objective = self._objective()

    def _objective(self) -> Objective:
        """What is minimised. A finished run needs its teacher no more.

        Raises FileNotFoundError for a teacher that is gone, ValueError for one that does not fit.
        """
        smoothing, teaching = self.recipe.label_smoothing, self.config.teaching
        kind = objective_of(self.model.config)
        if teaching is None or self.progress.epoch >= self.recipe.epochs:
            return kind(smoothing)
        if not kind.classifies:
            raise ValueError(
                f"[train] expected no teacher for {self.config.model}, which learns no classes; "
                "leave it out"
            )
        path = self.folder.locate(teaching.weights)
        if not path.exists():
            raise FileNotFoundError(
                f"[train] expected the teacher of the run {self.folder.path} at "
                f"{teaching.weights}, found none; --teacher FILE with --resume says where it is now"
            )
        sha256 = fingerprint(path)
        if teaching.sha256 not in (None, sha256):
            raise ValueError(
                f"[train] expected the teacher that the run was set up with, but "
                f"{path} has changed; put it back, or start another run"
            )
        teaching = dataclasses.replace(teaching, weights=str(path), sha256=sha256)
        objective = Distillation(smoothing, teaching=teaching, labelling=self.labelling)
        objective.teacher(self.model)
        return objective

    def fit(self) -> list[Row]:
        """Train to the last epoch and return the rows of metrics, one an epoch.

        The model has its averaged weights then, where the recipe asks for an average.
        Raises TrainingInterrupted after a Ctrl-C, with the work saved, and NonFiniteError.
        """
        done = self.progress
        self.folder.remove_leftovers()
        self.folder.keep_rows(done.epoch)
        quiet = numpy.errstate(all="ignore")  # what is not finite is looked for, and named
        with self.pool, quiet:
            if self.config.tune == HEAD and done.epoch < self.recipe.epochs:
                self._use_features()
            self._train()
        self.state.finish()
        return self.folder.rows()

    def _use_features(self) -> None:
        """Let the head alone be trained, on what it reads of each picture."""
        started = time.perf_counter()
        data = self.train_data, self.val_data
        train, self._val_inputs = probe_data(self.config, self.folder, self.model, data, self.pool)
        self._learner, self._prepare = Probe(self.model), _unchanged
        self.loader = Loader(train, self.recipe.batch_size, seed=self.config.seed, prefetch=0)
        self.micro_batch = self.recipe.batch_size
        self.progress.seconds += time.perf_counter() - started

    def _train(self) -> None:
        """The epochs that are left."""
        done = self.progress
        bar = ProgressBar(
            self.recipe.epochs * len(self.train_data),
            done.epoch * len(self.train_data) + done.count,
            self.recipe.epochs,
            unit="features" if self.config.tune == HEAD else "images",
            classifies=self.objective.classifies,
        )
        with Interruption() as interruption:
            try:
                while done.epoch < self.recipe.epochs:
                    self._train_epoch(bar, interruption)
                    bar.epoch(self._finish_epoch())
                    if interruption.requested and done.epoch < self.recipe.epochs:
                        raise self._interrupted()
            finally:
                bar.close()

    def _train_epoch(self, bar: ProgressBar, interruption: Interruption) -> None:
        done = self.progress
        start_training(self.model)
        started = time.perf_counter()
        for images, labels in self.loader.epoch(done.epoch, done.batch):
            result = self._train_step(images, labels)
            elapsed = time.perf_counter() - started  # with the wait for the batch, if any
            started += elapsed
            done.step += 1
            done.batch += 1
            done.loss_sum += result.loss_sum
            done.correct += result.correct
            done.count += result.count
            done.epoch_seconds += elapsed
            done.seconds += elapsed
            bar.batch(done, len(images))
            if interruption.requested:
                self._save()
                raise self._interrupted()

    def _train_step(self, images: numpy.ndarray, labels: numpy.ndarray) -> StepResult:
        seed = (self.config.seed, self.progress.step)
        self.schedule.set_step(self.progress.step)
        result = set_gradients(
            self._learner,
            images,
            labels,
            self.pool,
            seed=seed,
            objective=self.objective,
            micro_batch=self.micro_batch,
        )
        fault = None
        if not numpy.isfinite(result.loss_sum):
            fault = self._locate(images, seed) or "the loss"
        fault = fault or non_finite_gradient(self.model)
        if fault:
            raise self._non_finite(f"loss is {result.loss:g} at", self.progress.step + 1, fault)
        if self.recipe.clip_norm:
            clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.state.step()
        return result

    def _interrupted(self) -> TrainingInterrupted:
        done = self.progress
        return TrainingInterrupted(
            f"stopped in epoch {done.epoch + 1}, step {done.step}; the work is saved: "
            f"continue with --resume {self.folder.path}"
        )

    def _non_finite(self, what: str, step: int, fault: str) -> NonFiniteError:
        kept = f" (what was reached before is kept in {self.folder.path})"
        return NonFiniteError(
            f"[train] the {what} step {step} with learning rate "
            f"{self.optimizer.param_groups[0]['lr']:g}: the first value that is not finite is in "
            f"{fault}; start again with a lower --lr{kept if self.folder.last.exists() else ''}"
        )

    def _locate(self, images: numpy.ndarray, seed: tuple[int, int]) -> str | None:
        """Run the micro-batches again, one after the other, and look at every layer."""
        for index, start in enumerate(range(0, len(images), self.micro_batch)):
            part = images[start : start + self.micro_batch]
            fault = first_non_finite(self._learner, part, Generator(SFC64((*seed, index))))
            if fault:
                return fault
        return None

    def _locate_in_validation(self) -> str | None:
        """The same for the validation images, without dropout."""
        rng = numpy.random.default_rng(0)
        with evaluating(self.model):
            for start in range(0, len(self.val_data), self.micro_batch):
                chosen = numpy.arange(start, min(start + self.micro_batch, len(self.val_data)))
                images = self._prepare(self._val_inputs.images(chosen), rng)
                if fault := first_non_finite(self._learner, images, rng):
                    return fault
        return None

    def _validate(self) -> Evaluation:
        """How well the model does on the validation images; NonFiniteError for no finite loss."""
        result = evaluate(
            self._learner,
            self._val_inputs,
            self._prepare,
            self.pool,
            objective=self.objective,
            micro_batch=self.micro_batch,
        )
        if not numpy.isfinite(result.loss):
            fault = self._locate_in_validation() or "the validation loss"
            what = f"validation loss is {result.loss:g} after"
            raise self._non_finite(what, self.progress.step, fault)
        return result

    def _finish_epoch(self) -> Row:
        """Validate, write the row of metrics and the checkpoints, go on to the next epoch."""
        done = self.progress
        started = time.perf_counter()
        with self.state.averaged():
            result = self._validate()
        done.seconds += time.perf_counter() - started
        classifies = self.objective.classifies
        row = {
            "epoch": done.epoch + 1,
            "step": done.step,
            "train_loss": done.loss_sum / done.count,
            "train_accuracy": done.correct / done.count if classifies else None,
            "val_loss": result.loss,
            "val_accuracy": result.accuracy if classifies else None,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "images_per_second": round(done.count / done.epoch_seconds, 1),
            "seconds": round(done.seconds, 2),
        }
        is_best = done.is_best(row)
        done.start_epoch(done.epoch + 1)
        self.folder.append(row)
        if is_best:
            self._save(best=True)
        self._save()
        return row

    def _save(self, best: bool = False) -> None:
        path = self.folder.best if best else self.folder.last
        self.folder.save(
            path,
            self.config,
            self.state,
            self.labelling,
            self.progress,
            len(self.train_data),
        )


def _unchanged(images: numpy.ndarray, rng: numpy.random.Generator) -> numpy.ndarray:
    """Features are what they are."""
    return images


def _check_alike(train_data: Dataset, val_data: Dataset, *, sizes: bool) -> None:
    for what in ("image_shape", "class_names") if sizes else ("class_names",):
        wanted, got = getattr(train_data, what), getattr(val_data, what)
        if got != wanted:
            raise ValueError(
                f"[train] expected validation data of the {what} {wanted} that the training data "
                f"has, got {got}; give both the same classes and sizes"
            )


def _schedule(recipe: Recipe, batches: int) -> Callable[[int], float]:
    """The factor of the learning rate by step, for epochs of `batches` steps."""
    warmup = round(recipe.warmup_epochs * batches)
    if recipe.schedule == "constant":
        return functools.partial(constant, warmup_steps=warmup)
    total = recipe.epochs * batches
    return functools.partial(warmup_cosine, total_steps=total, warmup_steps=min(warmup, total))
