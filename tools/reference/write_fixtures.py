"""Write tests/weights/fixtures: tiny models saved by the real libraries, and their answers.

Run it in the environment that README.md describes: `python tools/reference/write_fixtures.py`.
With names as arguments it writes these cases alone, else all, and removes what is none any more.
"""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import recording  # isort: skip  # it declares what torchvision lacks, so it comes first
import family_cases
import google_cases
import hugging_face_cases
import mae_cases
import numpy as np
import swin_cases
import timm_cases
import torch
import torchvision_cases
import tutorial_cases
from scipy.ndimage import zoom
from timm.layers import resample_abs_pos_embed, resample_patch_embed

FIXTURES = Path(__file__).resolve().parents[2] / "tests" / "weights" / "fixtures"
MODULES = (
    torchvision_cases,
    timm_cases,
    family_cases,
    hugging_face_cases,
    google_cases,
    tutorial_cases,
    swin_cases,
)
TIMM_RULES = {"timm": {}, "timm_npz": {"interpolation": "bilinear", "antialias": False}}


def main(wanted: list[str]) -> None:
    """Write all cases, or those asked for."""
    if not wanted:
        for former in FIXTURES.glob("*/case.json"):
            shutil.rmtree(former.parent)
        write_resizing()
        mae_cases.main()
    for case in all_cases():
        if wanted and case.name not in wanted:
            continue
        size = write(case)
        print(f"{case.name:34} {size / 1024:6.1f} KiB")


def all_cases() -> Iterator[recording.Case]:
    """Every case of every library."""
    return itertools.chain.from_iterable(module.cases() for module in MODULES)


def write(case: recording.Case) -> int:
    """Write one case; returns its size in bytes."""
    folder = FIXTURES / case.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    facts = {"open": case.save(folder), "overrides": case.overrides}
    if case.refused:
        facts["refused"] = case.refused
    elif case.same_as:
        facts["same_as"] = case.same_as
    else:
        np.savez_compressed(folder / "expected.npz", **case.expected)
    (folder / "case.json").write_text(json.dumps(facts, indent=2) + "\n", "utf-8")
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def write_resizing() -> None:
    """Positions and kernels resized by SciPy and timm: what PyTorch alone cannot say."""
    random = np.random.default_rng(0)
    positions = random.normal(size=(1, 17, 3)).astype(np.float32)
    kernel = random.normal(size=(2, 3, 4, 4)).astype(np.float32)
    found = {"positions": positions, "kernel": kernel}
    for rows, columns in ((3, 3), (6, 6), (5, 7)):
        grid = positions[0, 1:].reshape(4, 4, 3)
        found[f"google_{rows}_{columns}"] = zoom(grid, (rows / 4, columns / 4, 1), order=1)
        for rule, how in TIMM_RULES.items():
            found[f"{rule}_{rows}_{columns}"] = resample_abs_pos_embed(
                torch.from_numpy(positions), [rows, columns], **how
            ).numpy()
    for size in (2, 3, 6, 8):
        for rule, how in TIMM_RULES.items():
            new = resample_patch_embed(torch.from_numpy(kernel), [size, size], **how)
            found[f"{rule}_kernel_{size}"] = new.numpy()
    np.savez_compressed(FIXTURES / "resizing.npz", **found)


if __name__ == "__main__":
    main(sys.argv[1:])
