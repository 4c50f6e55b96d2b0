"""`numpyvit features`: what a model computes of pictures, as vectors in a file."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from numpyvit.backend import to_numpy
from numpyvit.cli import errors, opening, output, parsing
from numpyvit.cli.opening import Opened
from numpyvit.cli.photos import PICTURES_HELP, STATUS_HELP, Reader, as_batch, picture_files
from numpyvit.cli.progress import Progress
from numpyvit.models import ImageModel, replacing
from numpyvit.tensor import no_grad
from numpyvit.threads import most_threads, run_tiles

ABOUT = f"""\
Write one vector for each picture: what the model makes of it after the last
block and the final norm. For search, clustering, or a classifier of your own.

{opening.FORMATS}
Without it the weights that come with the package are used.

The file (.npz) holds: features (N, D) float32; files (N,), below the folder if
one is given; labels (N,) and class_names, if all pictures of that folder lie in
sub-folders; left_out, the pictures that could not be read; pooling, model and
preprocessing. numpy.load opens it.

{STATUS_HELP}"""

EXAMPLES = """
numpyvit features photos/ --weights dino_vits16.pth --out features.npz
numpyvit features a.jpg b.jpg --weights dinov2/ --pooling mean --out ab.npz
"""

POOLINGS = {
    "head": "what the model's head reads",
    "token": "the class token",
    "mean": "the mean of the patches",
}
DIVIDED = {"train", "val", "test", "validation"}  # folders of a set that is divided, not classes


def add_parser(commands: parsing.Commands) -> None:
    """Add the command."""
    parser = parsing.add_command(
        commands, "features", "write a vector for each picture", ABOUT, EXAMPLES
    )
    parser.set_defaults(run=run)
    parser.add_argument("images", metavar="IMAGE", nargs="+", help=PICTURES_HELP)
    parser.add_argument("--out", metavar="FILE", required=True, help="the .npz to write")
    opening.add_weights(parser, "default: the package's own")
    parser.add_argument(
        "--pooling",
        choices=tuple(POOLINGS),
        default="head",
        help=f"{'; '.join(f'{name}: {text}' for name, text in POOLINGS.items())} (default head)",
    )
    parser.add_argument(
        "--batch-size",
        metavar="N",
        type=parsing.positive,
        default=16,
        help="pictures computed together (default 16); fewer need less memory",
    )


def run(args: argparse.Namespace) -> int:
    """Compute and write; a picture that cannot be read costs status 1, not the others."""
    out = Path(args.out)
    if out.suffix != ".npz":
        raise ValueError(f"expected --out with the ending .npz, got {out}")
    if out.is_dir():
        raise IsADirectoryError(f"expected a file for the output, got {out}, which is a folder")
    files = picture_files(args.images)
    opened = opening.open_weights(args)
    _check_pooling(args.pooling, opened)
    output.writable_folder(out.parent)
    try:
        return _write(args, opened, files, out)
    except KeyboardInterrupt:
        state = "is as it was before" if out.exists() else "is not there"
        output.note(f"nothing was written: {out} {state}")
        raise


def _write(args: argparse.Namespace, opened: Opened, files: list[str], out: Path) -> int:
    """The features of `files`, all in one file at the end."""
    found, kept = [], []
    with Progress(len(files), "pictures") as progress:
        reader = Reader(opened.preprocessing, progress)
        for photos in reader.groups(files, args.batch_size):
            found.append(pooled_features(opened.model, as_batch(photos), args.pooling))
            kept += [photo.path for photo in photos]
    if not found:
        which = (
            "the picture could not"
            if len(files) == 1
            else f"none of the {len(files)} pictures could"
        )
        errors.report(f"{which} be read; nothing is written")
        return errors.FAILURE
    features = numpy.concatenate(found)
    root = Path(args.images[0]) if len(args.images) == 1 and Path(args.images[0]).is_dir() else None
    labels = _labels(root, kept)
    arrays = {
        "features": features,
        "files": numpy.array(_below(root, kept)),
        **labels,
        "left_out": numpy.array(_below(root, reader.left_out), dtype=numpy.str_),
        "pooling": numpy.array(args.pooling),
        "model": numpy.array(opened.name),
        "preprocessing": numpy.array(json.dumps(opened.preprocessing.to_dict())),
    }
    save: Any = numpy.savez
    with replacing(out) as file:
        save(file, **arrays)
    print(_summary(args, out, features, labels, len(reader.left_out)))
    return reader.status


def pooled_features(
    model: ImageModel, images: NDArray[Any], pooling: str
) -> NDArray[numpy.floating]:
    """Images (B, C, H, W) -> vectors (B, D), each core its share; the model in `eval()` mode."""
    count = min(most_threads(), len(images))
    shares = numpy.array_split(images, count)
    results: list[Any] = [None] * count

    def share(index: int) -> None:
        with no_grad():
            tokens = model.forward_features(shares[index])
            if pooling == "head":
                vectors = model.forward_pooled(tokens)
            elif pooling == "token":
                vectors = tokens[:, 0]
            else:
                vectors = tokens[:, model.config.num_prefix_tokens :].mean(1)
        results[index] = to_numpy(vectors.data)

    run_tiles(share, count)
    return numpy.concatenate(results)


def _check_pooling(pooling: str, opened: Opened) -> None:
    if pooling == "token" and not opened.model.config.class_token:
        raise ValueError(
            f"expected a model with a class token for --pooling token, got {opened.name} without; "
            "use head or mean"
        )


def _below(root: Path | None, files: Sequence[str]) -> list[str]:
    return [Path(file).relative_to(root).as_posix() if root else file for file in files]


def _labels(root: Path | None, files: Sequence[str]) -> dict[str, NDArray[Any]]:
    """`labels` and `class_names` from the sub-folders of `root`, if each picture is in one."""
    if root is None:
        return {}
    parts = [Path(file).relative_to(root).parts for file in files]
    names = sorted({part[0] for part in parts})
    if any(len(part) < 2 for part in parts):
        return {}
    if "train" in names and DIVIDED.issuperset(names):
        output.note(f"no labels: {root} is divided ({', '.join(names)}); give {root / 'train'}")
        return {}
    labels = [names.index(part[0]) for part in parts]
    return {"labels": numpy.array(labels, numpy.int64), "class_names": numpy.array(names)}


def _summary(
    args: argparse.Namespace,
    out: Path,
    features: NDArray[Any],
    labels: dict[str, NDArray[Any]],
    left_out: int,
) -> str:
    count, width = features.shape
    rows = [("features", f"{count:,} x {width}: {POOLINGS[args.pooling]}, after the final norm")]
    if labels:
        rows.append(("labels", f"{len(labels['class_names'])} classes, by sub-folder"))
    if left_out:
        rows.append(("left out", f"{left_out:,}, which could not be read"))
    return output.table([*rows, ("file", str(out))], left=2)
