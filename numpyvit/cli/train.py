"""`numpyvit train`: train a model, or continue a run."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import shlex
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path

import numpy

from numpyvit.backend import to_device
from numpyvit.cli import errors, output, parsing, run_data
from numpyvit.cli.opening import weights_file
from numpyvit.cli.output import note
from numpyvit.cli.train_options import add_options, configuration, open_weights
from numpyvit.data.catalogue import NAMES
from numpyvit.models import VARIANTS, ImageModel
from numpyvit.train import (
    HEAD,
    Distillation,
    RunConfig,
    RunFolder,
    Teaching,
    Trainer,
    TrainingInterrupted,
    fingerprint,
    next_folder,
    write_pictures,
)
from numpyvit.train.run import Row

ABOUT = """\
Train a Vision Transformer. Without options: the tiny one, on built-in pictures
that are made from a seed, in a few minutes and without a network.

With --weights, fine-tune: start from a model that was trained before, with a
new head for the classes of --data, and the preprocessing of that model.

A masked autoencoder (--model mae_...) learns from pictures alone, by drawing
what was hidden of them; fine-tune its run to have a model that knows classes.

The run folder gets the configuration, the metrics of every epoch, the last and
the best checkpoint, and pictures: curves, training images, attention maps (of
a masked autoencoder: what it draws).
Ctrl-C stops cleanly; --resume continues as if nothing had happened."""

EXAMPLES = """
numpyvit train
numpyvit train --data cifar10 --epochs 100
numpyvit train --data photos/ --out runs/photos --lr 0.001
numpyvit train --weights deit_tiny.safetensors --data photos/
numpyvit train --weights deit_tiny.safetensors --data photos/ --tune head
numpyvit train --data cifar10 --recipe cifar_long --epochs 100
numpyvit train --data cifar10 --mixup 0.8 --cutmix 1 --ema 0.999
numpyvit train --data cifar10 --teacher TEACHER.npz --distillation soft
numpyvit train --data cifar10 --model mae_vit_cifar_patch4_32 --out runs/mae
numpyvit train --data cifar10 --weights runs/mae
numpyvit train --resume runs/photos
"""

# What may be given together with --resume: all else is settled by the run's configuration.
WITH_RESUME = ("resume", "workers", "data", "data_dir", "teacher")
# What the summary needs of a row of metrics, beside what tells how good the model is.
SUMMED_UP = ("epoch", "seconds")


def add_parser(commands: parsing.Commands) -> None:
    """Add the command."""
    parser = parsing.add_command(commands, "train", "train a model", ABOUT, EXAMPLES)
    parser.set_defaults(run=run)
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Train; results on stdout."""
    if args.resume is not None:
        _refuse_with_resume(args)
        folder = RunFolder(args.resume)
        before = folder.config()
        config = _moved(before, args.data, args.data_dir)
        if args.teacher is not None:
            config = _with_teacher_at(config, folder, args.teacher)
        output.writable_folder(folder.path)
        if not _named_teacher(config):
            trainer = _prepared(config, folder, args.workers)
        if config != before:
            folder.write_config(config)
    else:
        source = open_weights(args)
        config = configuration(args, source)
        folder = RunFolder(args.out or next_folder("runs", Path(config.data).name))
        with _created(folder, config):
            model = None if source is None else source.model
            alone = dataclasses.replace(config, teaching=None) if _named_teacher(config) else config
            trainer = _prepared(alone, folder, args.workers, model)
    try:
        if _named_teacher(config):
            config = _taught(config, folder, args.workers)
            trainer = _prepared(config, folder, args.workers)
        rows = _fit(trainer)
    except TrainingInterrupted as stop:
        note(
            f"numpyvit: {str(stop).partition(': continue with')[0]}; continue with\n  "
            f"{_suggested('train', '--resume', folder.path)}"
        )
        return errors.INTERRUPTED
    pictures = write_pictures(trainer)
    print(_summary(trainer, rows, pictures))
    return errors.SUCCESS


def _fit(trainer: Trainer) -> list[Row]:
    """Train, with the plan on stderr."""
    _check_rows(trainer)
    note(_plan(trainer))
    return trainer.fit()


def _named_teacher(config: RunConfig) -> Teaching | None:
    """The teacher that is only named, and still to be trained, if there is one."""
    teaching = config.teaching
    return teaching if teaching and teaching.weights in VARIANTS else None


def _taught(config: RunConfig, folder: RunFolder, workers: int | None) -> RunConfig:
    """Train the teacher that is named, on the same data in the same way, in the folder's teacher/.

    From then on the run's configuration names its weights.
    """
    teaching, own = _named_teacher(config), RunFolder(folder.path / "teacher")
    if teaching is None:
        return config
    settings = dataclasses.replace(config, model=teaching.weights, model_settings={}, teaching=None)
    if not own.config_file.exists():
        own.create(settings)
    note(f"\nfirst the teacher, {teaching.weights}, as the student will be trained")
    _fit(_prepared(settings, own, workers))
    note("\nnow the student")
    path = own.last.resolve()
    weights, sha256 = folder.relative(path), fingerprint(path)
    teaching = dataclasses.replace(teaching, weights=weights, sha256=sha256)
    config = dataclasses.replace(config, teaching=teaching)
    folder.write_config(config)
    return config


def _refuse_with_resume(args: argparse.Namespace) -> None:
    given = [
        f"--{name.replace('_', '-')}"
        for name, value in vars(args).items()
        if name not in WITH_RESUME and value is not None and not callable(value)
    ]
    if given:
        errors.report(
            f"--resume takes the run's own settings, so {', '.join(given)} cannot be given with "
            "it; only --workers can, and --data, --data-dir or --teacher for what has moved"
        )
        raise SystemExit(errors.USAGE)


def _moved(config: RunConfig, data: str | None, data_dir: str | None) -> RunConfig:
    """The configuration with another place of its data; UsageError for other data by name."""
    name, place = run_data.absolute_data(data or config.data, data_dir)
    if name != config.data and {name, config.data} & {*NAMES}:
        raise errors.UsageError(
            f"expected --data {config.data}, which the run was trained on, got {data}; with "
            "--resume it says where the same pictures lie now"
        )
    return dataclasses.replace(config, data=name, data_dir=place or config.data_dir)


def _with_teacher_at(config: RunConfig, folder: RunFolder, teacher: str) -> RunConfig:
    """The configuration with another place of its teacher; UsageError for another teacher."""
    teaching = config.teaching
    if teaching is None or _named_teacher(config):
        raise errors.UsageError(
            "expected no --teacher with --resume for a run without a teacher's file, got "
            f"{teacher}; leave it out"
        )
    path = weights_file(teacher).resolve()
    if teaching.sha256 not in (None, fingerprint(path)):
        raise errors.UsageError(
            f"expected the teacher that the run was set up with, got another at {path}; with "
            "--resume --teacher says where the same file lies now"
        )
    return dataclasses.replace(
        config, teaching=dataclasses.replace(teaching, weights=folder.relative(path))
    )


@contextlib.contextmanager
def _created(folder: RunFolder, config: RunConfig) -> Iterator[None]:
    """The run folder, made before the data is read: a mistake costs no time.

    Where the block fails, so that training cannot begin, it is taken back.
    """
    with output.undone_on_failure(folder.path):
        if not folder.config_file.exists():
            output.writable_folder(folder.path)
        folder.create(config)
        try:
            yield
        except BaseException:
            folder.config_file.unlink()
            raise


def _prepared(
    config: RunConfig,
    folder: RunFolder,
    workers: int | None,
    backbone: ImageModel | None = None,
) -> Trainer:
    """The trainer with its data; the device is tried first."""
    to_device(numpy.zeros(1), config.device)
    note(f"{'making' if config.data == 'shapes' else 'reading'} the data: {config.data}")
    train_data, val_data = run_data.run_data(config)
    return Trainer(config, folder, train_data, val_data, workers=workers, backbone=backbone)


def _check_rows(trainer: Trainer) -> None:
    """ValueError unless the metrics of the epochs done have what the summary needs."""
    done, folder = trainer.progress.epoch, trainer.folder
    rows = [row for row in folder.rows() if row["epoch"] <= done]
    for row in rows:
        needed = *SUMMED_UP, *_quality(trainer)
        wrong = [name for name in needed if not isinstance(row.get(name), int | float)]
        if wrong:
            raise ValueError(
                f"expected numbers for {', '.join(wrong)} of epoch {row['epoch']} in "
                f"{folder.metrics_file}, got none; delete that line"
            )
    if done >= trainer.recipe.epochs and not rows:
        raise ValueError(
            f"expected the metrics of {done} epochs in {folder.metrics_file}, got none; the run is "
            f"finished, and {folder.last} can be used without them"
        )


def _quality(trainer: Trainer) -> tuple[str, str]:
    """The columns of the metrics that tell how good the model is, in training and validation."""
    what = "accuracy" if trainer.objective.classifies else "loss"
    return f"train_{what}", f"val_{what}"


def _plan(trainer: Trainer) -> str:
    """What will be trained, for people."""
    config, r = trainer.config, trainer.recipe
    held_out = "held out for validation" if config.validation_split else "test images"
    done = trainer.progress
    begun = f", continued in epoch {done.epoch + 1}" if done.step else ""
    if done.epoch >= r.epochs:
        begun = ", finished before"
    return output.table(
        [
            ("model", f"{config.model}, {trainer.model.num_parameters():,} parameters"),
            *_plan_of_tuning(trainer),
            *_plan_of_teaching(trainer),
            (
                "data",
                f"{config.data}: {len(trainer.train_data):,} training images, "
                f"{len(trainer.val_data):,} {held_out}, "
                + (
                    f"{len(trainer.val_data.class_names)} classes"
                    if trainer.objective.classifies
                    else "whose classes are not used"
                ),
            ),
            (
                "recipe",
                f"{config.recipe_name}: {_epochs(r.epochs)}{begun}, batch {r.batch_size}, learning "
                f"rate {r.lr:g} ({r.schedule}), weight decay {r.weight_decay:g}",
            ),
            *((name, ", ".join(words)) for name, words in r.describe().items() if words),
            ("device", f"{config.device}, workers {trainer.pool.workers}, seed {config.seed}"),
            ("folder", str(trainer.folder.path)),
        ],
        left=2,
    )


def _plan_of_tuning(trainer: Trainer) -> list[tuple[str, str]]:
    """What is trained of which weights, on what is seen of a picture; nothing without weights."""
    config = trainer.config
    if config.weights is None or config.preprocessing is None:
        return []
    trained = sum(p.size for p in trainer.model.parameters() if p.requires_grad)
    decay = config.recipe.layer_decay
    slower = "" if decay == 1 or config.tune == HEAD else f", layer decay {decay:g}"
    return [
        ("weights", config.weights),
        ("trained", f"{config.tune}: {trained:,} parameters{slower}"),
        ("pictures", config.preprocessing.describe()),
    ]


def _plan_of_teaching(trainer: Trainer) -> list[tuple[str, str]]:
    """Who teaches, and how; nothing without a teacher."""
    teaching, objective, sees = trainer.config.teaching, trainer.objective, ""
    if teaching is None:
        return []
    if isinstance(objective, Distillation):  # not of a finished run
        size = objective.teacher(trainer.model).model.config.image_shape
        if size != trainer.model.config.image_shape:
            sees = "; sees pictures resized to {} x {}".format(*size)
    softness = f" at temperature {teaching.temperature:g}" if teaching.kind == "soft" else ""
    how = f"{teaching.kind}{softness}, {teaching.share:.0%} of the loss"
    return [("teacher", f"{teaching.weights} ({how}{sees})")]


def _summary(trainer: Trainer, rows: list[Row], pictures: list[Path]) -> str:
    """The result, and what to do with it."""
    classifies, (in_training, in_validation) = trainer.objective.classifies, _quality(trainer)
    form, what = ("{:.2%}", "accuracy") if classifies else ("{:.4f}", "loss")
    last, best = rows[-1], (max if classifies else min)(rows, key=itemgetter(in_validation))
    path, minutes = trainer.folder.path, divmod(round(last["seconds"]), 60)
    seen = " (on augmented images)" if trainer.recipe.augments else ""
    kind = "validation" if trainer.config.validation_split else "test"
    files = ["config.json", "metrics.jsonl", "last.npz", "best.npz", *(p.name for p in pictures)]
    result = output.table(
        [
            ("trained", f"{_epochs(last['epoch'])} in {minutes[0]} min {minutes[1]:02d} s"),
            (f"train {what}", form.format(last[in_training]) + seen),
            (
                f"{kind} {what}",
                f"{form.format(last[in_validation])} "
                f"(best {form.format(best[in_validation])}, epoch {best['epoch']})",
            ),
            ("folder", str(path)),
            ("files", ", ".join(files)),
        ],
        left=2,
    )
    next_steps = [
        _suggested("evaluate", path),
        _suggested("predict", "PICTURE.jpg", "--weights", path),
        _suggested("attention", "PICTURE.jpg", "--weights", path, "--out", path / "maps"),
    ]
    if not classifies:
        data, place = trainer.config.data, trainer.config.data_dir
        where = ("--data-dir", place) if place else ()
        next_steps[:2] = [_suggested("train", "--weights", path, "--data", data, *where)]
    return "\n  ".join([f"{result}\n\nwhat to try next", *next_steps])


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"


def _suggested(*words: str | Path) -> str:
    return f"{output.this_command()} {shlex.join(map(str, words))}"
