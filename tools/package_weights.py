"""Put the weights of a finished run into the package, with its command, log and accuracy.

    python tools/package_weights.py runs/cifar10-1 vit_cifar_patch4_32 --command "..."

Writes numpyvit/models/pretrained/NAME.npz, which holds the last epoch's weights (not the best
epoch's: that one was picked by looking at the test images) without the optimizer's state, and
docs/pretrained/NAME/ with the run's configuration, metrics, curves and attention maps. No path of
the machine is kept. A run on a part of the data is refused: its accuracy is another one.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from numpyvit.data.catalogue import NAMES
from numpyvit.models import load_model, save_model
from numpyvit.train import RunFolder

ROOT = Path(__file__).resolve().parent.parent
LARGEST_BYTES = 500_000


def package(run: RunFolder, name: str, command: str) -> str:
    """Write the files; one line that says what was written."""
    saved, rows = load_model(run.last), run.rows()
    last = rows[-1]
    config = run.config()
    if last["epoch"] != config.recipe.epochs:
        sys.exit(f"{run.path} is not finished: epoch {last['epoch']} is the last")
    if config.validation_split or config.train_images:
        sys.exit(f"{run.path} is a run on a part of the data: its accuracy is not comparable")
    if config.data not in NAMES:
        sys.exit(f"{run.path} is a run on a folder of one's own: {config.data}")
    if paths := [word for word in command.split() if is_absolute(word)]:
        sys.exit(f"the command names paths of this machine: {', '.join(paths)}")
    record = {"command": command, "epochs": last["epoch"], "accuracy": last["val_accuracy"]}
    target = ROOT / "numpyvit" / "models" / "pretrained" / f"{name}.npz"
    target.parent.mkdir(exist_ok=True)
    save_model(target, name, saved.model, saved.labelling, record=record, compress=True)
    size = target.stat().st_size
    if size > LARGEST_BYTES:
        sys.exit(f"{target} has {size} bytes, more than {LARGEST_BYTES}")
    log = ROOT / "docs" / "pretrained" / name
    log.mkdir(parents=True, exist_ok=True)
    for file in (run.metrics_file, run.path / "curves.png", run.path / "attention.png"):
        shutil.copy(file, log / file.name)
    fields = {key: value for key, value in config.to_dict().items() if key != "data_dir"}
    (log / "config.json").write_text(json.dumps(fields, indent=2) + "\n")
    (log / "command.txt").write_text(command + "\n")
    return f"{target.relative_to(ROOT)}: {size:,} bytes, accuracy {last['val_accuracy']:.2%}"


def is_absolute(word: str) -> bool:
    """Whether a word of a command is, or sets something to, a path from the root or from home."""
    return word.strip("'\"").rpartition("=")[2].strip("'\"").startswith(("/", "~"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Put a finished run's weights into the package.")
    parser.add_argument("run", help="the run folder")
    parser.add_argument("name", help="the model's name")
    parser.add_argument("--command", required=True, help="the command that made the run")
    options = parser.parse_args()
    print(package(RunFolder(options.run), options.name, options.command))
