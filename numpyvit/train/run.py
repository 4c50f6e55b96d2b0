"""A run folder: configuration, metrics, checkpoints, pictures; and where the run stands."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from numpyvit import models
from numpyvit.data import Preprocessing
from numpyvit.data.catalogue import NAMES
from numpyvit.models import Labelling, check_kinds, load_model, save_model
from numpyvit.train.distillation import Teaching
from numpyvit.train.recipes import Recipe
from numpyvit.train.state import TrainingState
from numpyvit.train.tuning import ALL, HEAD, last_blocks

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What a run does; with the same one, every run ends in the same bits.

    `data` and `data_dir` as for `load_dataset`. `validation_split` images of the training data are
    held out and validated on instead of the test data; 0 for none. Of the others the first
    `train_images` are trained on; 0 for all.

    `model_settings` replace fields of the named model's configuration. With `weights`, a path,
    training starts from these; `weights_sha256` tells whether they are still the same, and
    `weights_settings` correct what `load_pretrained` concludes. `tune` says what of them is trained
    (see `last_blocks`) and `preprocessing` how pictures become what they take. `teaching` names a
    teacher to learn from.
    """

    data: str = "shapes"
    data_dir: str | None = None
    model: str = "vit_cifar_patch4_32"
    model_settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    recipe_name: str = "default"
    recipe: Recipe = Recipe()
    seed: int = 0
    device: str = "cpu"
    validation_split: int = 0
    train_images: int = 0
    weights: str | None = None
    weights_sha256: str | None = None
    weights_settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    tune: str = ALL
    preprocessing: Preprocessing | None = None
    teaching: Teaching | None = None

    def __post_init__(self) -> None:
        check_kinds(self, Recipe, Preprocessing, Teaching)
        for name in ("seed", "validation_split", "train_images"):
            if (value := getattr(self, name)) < 0:
                raise ValueError(f"[RunConfig] expected {name} >= 0, got {value}")
        last_blocks(self.tune)
        if self.weights is None and self.tune != ALL:
            raise ValueError(f"[RunConfig] expected weights with tune {self.tune!r}, got none")
        if self.tune == HEAD and self.recipe.augments:
            raise ValueError(
                "[RunConfig] expected a recipe that leaves pictures as they are for 'head', whose "
                f"features are computed once, got {', '.join(self.recipe.augmentation)}; take "
                "--recipe probe alone"
            )
        if self.tune == HEAD and self.teaching:
            raise ValueError("[RunConfig] expected no teacher with tune 'head', got one")
        if self.weights is not None and self.preprocessing is None:
            raise ValueError("[RunConfig] expected a preprocessing with weights, got none")

    def named_model(self) -> Any:
        """The configuration of the model to train from nothing; ValueError for unknown names."""
        return models.model_config(self.model, **self.model_settings)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON holds them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Any) -> RunConfig:
        """What `to_dict` gave, after a way through JSON; ValueError for anything else."""
        try:
            recipe: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in fields["recipe"].items()
            }
            parts: dict[str, Any] = {"recipe": Recipe(**recipe)}
            if (rule := fields.get("preprocessing")) is not None:
                parts["preprocessing"] = Preprocessing.from_dict(rule)
            if (teaching := fields.get("teaching")) is not None:
                parts["teaching"] = Teaching(**teaching)
            return cls(**{**fields, **parts})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"[RunConfig] expected the configuration of a run, got something else ({error})"
            ) from error


@dataclasses.dataclass
class Progress:
    """Where a run stands: finished epochs, and the running sums of the epoch under way."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    count: int = 0
    epoch_seconds: float = 0.0
    seconds: float = 0.0
    best_accuracy: float = -1.0
    best_loss: float | None = None  # where there are no accuracies

    def is_best(self, row: Row) -> bool:
        """Whether an epoch's row of metrics is better than all before; it is noted if so."""
        accuracy, loss = row["val_accuracy"], row["val_loss"]
        if accuracy is None:
            is_best = self.best_loss is None or loss < self.best_loss
            self.best_loss = loss if is_best else self.best_loss
        else:
            is_best = accuracy > self.best_accuracy
            self.best_accuracy = max(accuracy, self.best_accuracy)
        return is_best

    def start_epoch(self, epoch: int) -> None:
        """Begin `epoch` with empty sums."""
        self.epoch, self.batch = epoch, 0
        self.loss_sum, self.correct, self.count, self.epoch_seconds = 0.0, 0, 0, 0.0


class RunFolder:
    """The files of one run. What is written appears whole or not at all."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.json"
        self.metrics_file = self.path / "metrics.jsonl"
        self.last = self.path / "last.npz"
        self.best = self.path / "best.npz"
        self.features = self.path / "features.npz"

    def create(self, config: RunConfig) -> None:
        """Make the folder and write its configuration.

        Raises FileExistsError where a run or a part of one lies there already, OSError where it
        cannot be written.
        """
        if self.config_file.exists():
            raise FileExistsError(
                f"[RunFolder] expected an unused folder, but {self.path} holds a run; "
                f"continue it with --resume {self.path} or give another --out"
            )
        files = (self.last, self.best, self.metrics_file, self.features)
        if found := [file.name for file in files if file.exists()]:
            raise FileExistsError(
                f"[RunFolder] expected an unused folder, but {self.path} holds {', '.join(found)} "
                "of another run; give another --out"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        self.write_config(config)

    def locate(self, name: str) -> Path:
        """A file that the configuration names: in the folder, wherever that lies now, or not."""
        inside = self.path / name
        return inside if inside.exists() else Path(name)

    def relative(self, path: Path) -> str:
        """The name of an absolute `path` in a configuration, from which `locate` finds it."""
        own = self.path.resolve()
        return str(path.relative_to(own) if path.is_relative_to(own) else path)

    def write_config(self, config: RunConfig) -> None:
        """Write the configuration, in the place of the former one if there is one."""
        with models.replacing(self.config_file) as file:
            file.write(json.dumps(config.to_dict(), indent=2).encode() + b"\n")

    def config(self) -> RunConfig:
        """The run's configuration; FileNotFoundError or ValueError where there is none."""
        if not self.config_file.is_file():
            raise FileNotFoundError(
                f"[RunFolder] expected a run folder with a config.json, found none in {self.path}"
            )
        try:
            return RunConfig.from_dict(json.loads(self.config_file.read_text()))
        except ValueError as error:
            raise ValueError(
                f"[RunFolder] expected a configuration that `numpyvit train` wrote, but "
                f"{self.config_file} is not one ({error})"
            ) from error

    def rows(self) -> list[Row]:
        """The rows of metrics.jsonl, one an epoch; an unfinished last line is left out.

        Raises ValueError where another line is damaged.
        """
        if not self.metrics_file.is_file():
            return []
        lines = self.metrics_file.read_bytes().split(b"\n")[:-1]  # what follows is unfinished
        try:
            rows = [json.loads(line) for line in lines]
            return sorted(rows, key=lambda row: int(row["epoch"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"[RunFolder] expected one JSON object with an 'epoch' a line, but "
                f"{self.metrics_file} has others ({error}); delete those lines"
            ) from error

    def append(self, row: Row) -> None:
        """Add a row to metrics.jsonl; it is on disk before the checkpoint that counts on it."""
        with self.metrics_file.open("a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def keep_rows(self, epochs: int) -> None:
        """Drop the rows of epochs after number `epochs`: they will be run again."""
        rows = [row for row in self.rows() if row["epoch"] <= epochs]
        with models.replacing(self.metrics_file) as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows).encode())

    def remove_leftovers(self) -> None:
        """Remove the unfinished files that a run left when it was killed while writing."""
        for file in (self.metrics_file, self.last, self.best, self.features):
            for unfinished in self.path.glob(f".{file.name}.*"):
                unfinished.unlink(missing_ok=True)

    def save(
        self,
        path: Path,
        config: RunConfig,
        state: TrainingState,
        labelling: Labelling,
        progress: Progress,
        training_images: int,
    ) -> None:
        """Write a checkpoint from which the run continues to the same bits."""
        record = {
            "run": config.to_dict(),
            "progress": dataclasses.asdict(progress),
            "training_images": training_images,
        }
        rule = config.preprocessing.to_dict() if config.preprocessing else None
        with state.checkpointed() as arrays:
            save_model(
                path,
                config.model,
                state.model,
                labelling,
                preprocessing=rule,
                record=record,
                arrays=arrays,
            )

    def restore(
        self,
        config: RunConfig,
        state: TrainingState,
        labelling: Labelling,
        training_images: int,
    ) -> Progress:
        """Load the last checkpoint into `state`; where the run stood.

        A run that was stopped before its first checkpoint starts anew. Raises ValueError where the
        checkpoint is damaged, belongs to something else, or was made with other settings or data:
        what differs is listed.
        """
        if not self.last.exists():
            return Progress()
        saved = load_model(self.last)
        try:
            progress = Progress(**saved.archive.record["progress"])
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"[RunFolder] expected a training checkpoint, but {self.last} does not say where "
                f"the run stood ({error}); give a folder that `numpyvit train` wrote"
            ) from error
        before = RunConfig.from_dict(saved.archive.record.get("run"))
        faults = _differences(before, config)
        if saved.labelling.class_names != labelling.class_names:
            names = (", ".join(part.class_names) for part in (labelling, saved.labelling))
            faults.append("classes {} (were {})".format(*names))
        # Checkpoints written before this was recorded are accepted.
        count = saved.archive.record.get("training_images", training_images)
        if count != training_images:
            faults.append(f"training images {training_images} (were {count})")
        if faults:
            raise ValueError(
                f"[RunFolder] expected the settings and data that {self.last} was made with, got "
                f"{'; '.join(faults)}; put them back, or start another run"
            )
        state.load(saved.archive)
        return progress


def _differences(before: RunConfig, now: RunConfig) -> list[str]:
    """In which fields two configurations differ, in words; where the files lie does not matter."""
    old, new = _flat(before), _flat(now)
    places = {"data_dir", "weights", "teaching.weights"}
    if before.data not in NAMES and now.data not in NAMES:
        places.add("data")  # folders
    return [
        f"{name} {new.get(name)!r} (was {old.get(name)!r})"
        for name in {**new, **old}
        if name not in places and new.get(name) != old.get(name)
    ]


def _flat(config: RunConfig) -> dict[str, Any]:
    """The fields by name, those of its parts as `recipe.lr`."""
    fields = config.to_dict()
    for part in ("recipe", "preprocessing", "teaching"):
        fields |= {f"{part}.{name}": value for name, value in (fields.pop(part) or {}).items()}
    return fields


def next_folder(parent: str | os.PathLike[str], stem: str) -> Path:
    """The first of `parent/stem-1`, `parent/stem-2`, ... that does not exist yet."""
    number = 1
    while (path := Path(parent) / f"{stem}-{number}").exists():
        number += 1
    return path
