from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from numpyvit.models import (
    INITIALIZATIONS,
    Labelling,
    create_model,
    load_packaged_model,
    save_model,
)

pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install '.[full]'")

FOLDER = Path(__file__).resolve().parent.parent / "examples"
SCRIPTS = sorted(FOLDER.glob("[0-9]*.py"))
SLOW = {"06_training.py"}
MAX_LINES = 80

# What each must have said, in words that a change of its numbers would not touch.
SAYS = {
    "01_patches.py": "equal to the photo: True",
    "02_patch_embedding.py": r"largest difference: (0\.0e\+00|\d\.\de-0[5-9])",
    "03_class_token_and_positions.py": r"without positions: \d\.\de-0[5-9]",
    "04_attention_by_hand.py": r"difference to the library: \d\.\de-0[5-9]",
    "05_block_and_residuals.py": r"difference to the model's own: (0\.0e\+00|\d\.\de-0[5-9])",
    "06_training.py": r"epoch 5: .* ([3-9]\d\.\d)% right",
    "07_attention_maps.py": r"block 3: \d+%, evenness 0\.\d+",
    "08_sizes.py": "119,098",
    "09_fewer_tokens.py": r"(?s)is a person.*merging nothing gives the model's own bits: True",
    "10_a_variant_of_your_own.py": r"power: loss 2\.\d+ -> (1\.\d+|2\.0\d)",
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """Untrained weights to stand in where the package comes without trained ones."""
    try:
        load_packaged_model()
    except ValueError:
        path = tmp_path_factory.mktemp("weights") / "model.npz"
        model = create_model("vit_cifar_patch4_32")
        INITIALIZATIONS["structured"](model, np.random.default_rng(0))
        names = tuple(str(number) for number in range(10))
        save_model(path, "vit_cifar_patch4_32", model, Labelling(class_names=names))
        return path
    return None


def test_the_examples_are_numbered_from_one_without_gaps() -> None:
    assert [script.name[:2] for script in SCRIPTS] == [f"{n:02}" for n in range(1, 11)]
    assert sorted(SAYS) == [script.name for script in SCRIPTS]


def test_the_table_lists_every_example() -> None:
    table = (FOLDER / "README.md").read_text("utf-8")
    assert re.findall(r"^\| `(\d\d_\w+\.py)` \|", table, re.M) == sorted(SAYS)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_an_example_is_short(script: Path) -> None:
    lines = script.read_text("utf-8").splitlines()
    assert len(lines) < MAX_LINES
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(script, marks=pytest.mark.slow if script.name in SLOW else [], id=script.stem)
        for script in SCRIPTS
    ],
)
def test_an_example_says_what_it_shows_and_saves_its_picture(
    script: Path, tmp_path: Path, weights: Path | None
) -> None:
    pictures, elsewhere = tmp_path / "pictures", tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [sys.executable, "-W", "error", str(script), "--out", str(pictures)]
    run = subprocess.run(
        command + (["--weights", str(weights)] if weights else []),
        capture_output=True,
        text=True,
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(FOLDER.parent), "OPENBLAS_NUM_THREADS": "1"},
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert re.search(SAYS[script.name], run.stdout), run.stdout
    assert [path.name for path in pictures.iterdir()] == [f"{script.stem}.png"]
    assert (pictures / f"{script.stem}.png").read_bytes().startswith(b"\x89PNG")
    assert not list(elsewhere.iterdir())
