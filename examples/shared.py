"""What the examples share: where pictures go, a photo, a trained model."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib import cbook

from numpyvit.data import Normalize, read_picture
from numpyvit.models import SavedModel, load_model, load_packaged_model


def options(script: str) -> argparse.Namespace:
    """The command line that all examples understand; `picture` is the path to save to."""
    here = Path(script).resolve()
    parser = argparse.ArgumentParser(description="An example: prints what it shows, saves a PNG.")
    parser.add_argument("--out", type=Path, default=here.parent / "out", help="folder for pictures")
    parser.add_argument("--photo", type=Path, help="a picture of your own")
    parser.add_argument("--weights", type=Path, help="a model that `numpyvit train` saved")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    chosen.picture = chosen.out / f"{here.stem}.png"
    return chosen


def photo(path: Path | None, size: int) -> np.ndarray:
    """A square picture (3, size, size), float32 from 0 to 1.

    Grace Hopper, who wrote the first compiler, unless `path` names another.
    """
    path = path or Path(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    return read_picture(path, size).astype(np.float32) / 255


def trained_model(weights: Path | None) -> SavedModel:
    """The ViT in the file `weights`, else the tiny one that comes with numpyvit."""
    return load_model(weights) if weights else load_packaged_model()


def normalised(image: np.ndarray, saved: SavedModel) -> np.ndarray:
    """A picture (C, H, W) from 0 to 1 as the batch (1, C, H, W) that the model expects."""
    return Normalize(saved.labelling.mean, saved.labelling.std)(image[None])
