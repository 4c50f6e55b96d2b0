"""The options of `numpyvit train`, and the run that they describe."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from numpyvit.backend import nearest
from numpyvit.cli import errors, opening, output, parsing, run_data
from numpyvit.models import VARIANTS, model_config
from numpyvit.train import (
    HEAD,
    KINDS,
    RECIPES,
    RunConfig,
    Teaching,
    check_tune,
    fingerprint,
    last_blocks,
    objective_of,
    recipe,
    tuning_rule,
)
from numpyvit.weights import Pretrained

# Those against overfitting: the option, the field, what it takes, what it does.
REGULARIZATION = (
    (
        "--mixup",
        "mixup",
        parsing.real,
        "blend two pictures and their labels; the share is drawn from Beta(X, X); often 0.8",
    ),
    (
        "--cutmix",
        "cutmix",
        parsing.real,
        "paste a part of one picture into another; its area from Beta(X, X); often 1",
    ),
    (
        "--randaugment",
        "randaugment",
        parsing.real,
        "two random changes a picture, of strength X up to 10; often 9",
    ),
    (
        "--random-erasing",
        "random_erasing",
        parsing.share,
        "the share of the pictures that lose a rectangle; often 0.25",
    ),
    (
        "--repeats",
        "repeats",
        parsing.positive,
        "show one picture in N an epoch, each N times, every time changed anew; often 3",
    ),
    (
        "--label-smoothing",
        "label_smoothing",
        parsing.share,
        "the share of a label that goes to all classes alike; often 0.1",
    ),
    ("--dropout", "dropout", parsing.share, "on hidden states and attention"),
    (
        "--drop-path",
        "drop_path",
        parsing.share,
        "how often a picture skips a part of the last block; less often below; often 0.1",
    ),
    (
        "--ema",
        "ema_decay",
        parsing.share,
        "keep a moving average of the weights, which is validated, saved and used; a step leaves "
        "X of it: 0.99 to 0.9999",
    ),
)

# Options that change the recipe, by the name of its field.
RECIPE_OPTIONS = (
    *("epochs", "batch_size", "lr", "layer_decay", "weight_decay", "clip_norm"),
    *(field for _, field, _, _ in REGULARIZATION),
)

# Those that change labels, or add to them.
NEED_LABELS = ("label_smoothing", "mixup", "cutmix", "teacher")

# Options that say how weights are used, by their names in the namespace.
OPTIONS_OF_WEIGHTS = {"tune": "--tune"}


def add_options(parser: parsing.Parser) -> None:
    """Add them; every option's default is None, which tells what was given."""
    data = parser.add_argument_group("data and model")
    data.add_argument(
        "--data",
        metavar="NAME",
        help="shapes (built in; the default), cifar10, or a folder of pictures with one "
        "sub-folder a class",
    )
    data.add_argument(
        "--data-dir",
        metavar="PATH",
        help="where CIFAR-10 lies, a folder or the archive; without it: cache, download",
    )
    data.add_argument(
        "--train-images",
        metavar="N",
        type=parsing.positive,
        help="train on the first N training images only",
    )
    data.add_argument(
        "--validation-split",
        metavar="N",
        type=parsing.positive,
        help="hold out the last N training images and validate on them, not on the test images",
    )
    data.add_argument(
        "--model", metavar="NAME", help="vit_cifar_patch4_32, or one that `numpyvit models` lists"
    )
    data.add_argument(
        "--image-size",
        metavar="N",
        type=opening.side,
        help="pixels a side that the model takes, if not those of its name or its weights",
    )
    data.add_argument(
        "--set",
        dest="settings",
        metavar="FIELD=VALUE",
        type=opening.setting_of_model,
        action="append",
        help="another part or size of the model, as in pooling=avg or depth=6 (docs/family.md); "
        "with --weights what --set of `numpyvit predict` is; can be repeated",
    )
    _add_tuning_options(parser.add_argument_group("fine-tuning"))
    _add_teaching_options(parser.add_argument_group("distillation"))
    _add_recipe_options(parser.add_argument_group("recipe"))
    _add_regularization_options(parser)
    _add_run_options(parser.add_argument_group("run"))


def _add_tuning_options(group: Any) -> None:
    group.add_argument(
        "--weights",
        metavar="FILE",
        help="start from this model: a file or folder of weights of any kind that `numpyvit "
        "predict` takes, or a run folder",
    )
    group.add_argument(
        "--tune",
        metavar="PART",
        type=tuned_part,
        help="what is trained: all (default), last:N (the last N blocks and the head), or head "
        "(a linear probe: what the head reads of each picture is computed once)",
    )


def _add_teaching_options(group: Any) -> None:
    group.add_argument(
        "--teacher",
        metavar="FILE",
        help="learn from this model as well: whatever --weights takes, with the same classes, or "
        "the name of a model, which is then trained first, in the run folder's teacher/",
    )
    group.add_argument(
        "--distillation",
        choices=KINDS,
        help="from the teacher's answers (hard, the default), or from its probabilities (soft)",
    )
    group.add_argument(
        "--temperature",
        metavar="X",
        type=parsing.positive_real,
        help="of a soft teacher's probabilities (default 3)",
    )
    group.add_argument(
        "--teacher-share",
        metavar="X",
        type=parsing.share,
        help="of the loss, the rest is the labels' (default 0.5)",
    )


def tuned_part(text: str) -> str:
    """What `--tune` takes."""
    try:
        last_blocks(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(errors.one_line(str(error))) from error
    return text


def _add_recipe_options(group: Any) -> None:
    group.add_argument(
        "--recipe",
        metavar="NAME",
        help="where these come from, one that `numpyvit recipes` lists; without it the one named "
        "after the data, else default; mae for masked autoencoders; with --weights finetune, or "
        "probe for --tune head",
    )
    group.add_argument("--epochs", metavar="N", type=parsing.positive, help="passes over the data")
    group.add_argument("--batch-size", metavar="N", type=parsing.positive, help="images a step")
    group.add_argument("--lr", metavar="X", type=parsing.positive_real, help="peak learning rate")
    group.add_argument(
        "--layer-decay",
        metavar="X",
        type=parsing.positive_real,
        help="learning rate of each block compared to the block above it; 1 for the same",
    )
    group.add_argument("--weight-decay", metavar="X", type=parsing.real, help="of AdamW")
    group.add_argument(
        "--clip-norm",
        metavar="X",
        type=parsing.real,
        help="longest gradient, all weights together; 0 for any",
    )


def _add_regularization_options(parser: parsing.Parser) -> None:
    group = parser.add_argument_group("recipe: against overfitting", "0 is off (1 of --repeats)")
    for option, field, kind, words in REGULARIZATION:
        metavar = "N" if kind is parsing.positive else "X"
        group.add_argument(option, dest=field, metavar=metavar, type=kind, help=words)


def _add_run_options(group: Any) -> None:
    group.add_argument(
        "--seed",
        metavar="N",
        type=parsing.natural,
        help="of starting weights, order and augmentation (default 0)",
    )
    group.add_argument(
        "--workers",
        metavar="N",
        type=parsing.positive,
        help="processes (default: one a core); the result does not depend on it",
    )
    group.add_argument("--device", metavar="NAME", help="cpu (default) or cuda, with CuPy")
    group.add_argument(
        "--out", metavar="FOLDER", help="the run folder (default: runs/<data>-1, then -2, ...)"
    )
    group.add_argument(
        "--resume",
        metavar="FOLDER",
        help="continue the run in FOLDER with its own settings; with it go --workers, and --data, "
        "--data-dir or --teacher for what has moved",
    )


def open_weights(args: argparse.Namespace) -> Pretrained | None:
    """What --weights names, with what was concluded from it on stderr; None without it.

    Raises ValueError for options that do not go together.
    """
    if args.weights is None:
        for name, option in OPTIONS_OF_WEIGHTS.items():
            if getattr(args, name) is not None:
                raise ValueError(f"expected --weights FILE with {option}, got none")
        return None
    if args.model is not None:
        raise ValueError(
            "expected --weights or --model, got both; the weights say what model they are of"
        )
    if args.data is None:
        raise ValueError(
            "expected --data with --weights, got none; name the pictures, a folder with one "
            "sub-folder a class"
        )
    file = opening.weights_file(args.weights)
    found = opening.read_pretrained(file, args.image_size, args.settings or ())
    # How pictures are prepared is said with the plan: it is not quite as the weights say.
    output.note(output.summary(found.report, args.weights, left_out=("preprocessing",)))
    return found


def configuration(args: argparse.Namespace, source: Pretrained | None = None) -> RunConfig:
    """The run that the options describe, from the weights `source`; ValueError for mistakes."""
    data, data_dir = run_data.absolute_data(args.data or "shapes", args.data_dir)
    given = {name: getattr(args, name) for name in RECIPE_OPTIONS}
    changes = {name: value for name, value in given.items() if value is not None}
    name = _recipe_name(args, data)
    settings: dict[str, Any] = {
        "model": args.model or RunConfig.model,
        "model_settings": _settings_of_model(args),
    }
    if source is not None:
        settings = _settings_of_tuning(args, source)
        changes |= {field: getattr(settings["preprocessing"], field) for field in ("mean", "std")}
    config = RunConfig(
        data=data,
        data_dir=data_dir,
        recipe_name=name,
        recipe=recipe(name, **changes),
        seed=args.seed or 0,
        device=args.device or "cpu",
        validation_split=args.validation_split or 0,
        train_images=args.train_images or 0,
        teaching=_teaching(args),
        **settings,
    )
    if source is None and not objective_of(config.named_model()).classifies:
        _refuse_labels(args)
    return config


def _refuse_labels(args: argparse.Namespace) -> None:
    """ValueError for an option that needs labels, for a model that learns without."""
    given = [
        f"--{name.replace('_', '-')}" for name in NEED_LABELS if getattr(args, name) is not None
    ]
    if given:
        raise ValueError(
            f"expected no {given[0]} with {args.model}, which learns no classes; leave it out, and "
            "give it where you fine-tune: train --weights RUN"
        )


def _settings_of_model(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of the named model that --set and --image-size replace."""
    size = {} if args.image_size is None else {"image_size": args.image_size}
    return size | dict(args.settings or ())


def _teaching(args: argparse.Namespace) -> Teaching | None:
    """What --teacher and its options ask for; of one still to be trained, its future folder."""
    options = {
        "kind": args.distillation,
        "temperature": args.temperature,
        "share": args.teacher_share,
    }
    given = {name: value for name, value in options.items() if value is not None}
    if args.teacher is None:
        if given:
            raise ValueError("expected --teacher with the options of distillation, got none")
        return None
    if args.teacher in VARIANTS:
        if args.weights is not None:
            raise ValueError("expected a file as --teacher with --weights, got a model's name")
        if not objective_of(model_config(args.teacher)).classifies:
            raise ValueError(
                f"expected a teacher that learns classes, got {args.teacher}; pre-train it, "
                "fine-tune its run with --weights RUN, and let that teach"
            )
        return Teaching(weights=args.teacher, **given)
    if not Path(args.teacher).exists():
        raise FileNotFoundError(
            f"expected a file, a folder or the name of a model as --teacher, got {args.teacher}; "
            f"{nearest(args.teacher, VARIANTS)}`numpyvit models` lists the names"
        )
    path = opening.weights_file(args.teacher).resolve()
    return Teaching(weights=str(path), sha256=fingerprint(path), **given)


def _recipe_name(args: argparse.Namespace, data: str) -> str:
    if args.recipe:
        return str(args.recipe)
    if args.weights is not None:
        return "probe" if args.tune == HEAD else "finetune"
    model = model_config(args.model or RunConfig.model, **_settings_of_model(args))
    return objective_of(model).recipe or (data if data in RECIPES else "default")


def _settings_of_tuning(args: argparse.Namespace, source: Pretrained) -> dict[str, Any]:
    """The fields of a RunConfig that say what a run starts from."""
    sizes, tune = source.model.config, args.tune or RunConfig.tune
    check_tune(tune, sizes.depth)
    path = opening.weights_file(args.weights).resolve()
    return {
        "model": source.name,
        "weights": str(path),
        "weights_sha256": fingerprint(path),
        "weights_settings": dict(args.settings or ()),
        "tune": tune,
        "preprocessing": tuning_rule(source.preprocessing, sizes.image_size),
    }
