"""Start-up: imports, a cold process to its first prediction, installed size; beside PyTorch's.

    python -m benchmarks startup

Every call is a fresh process, from its start to its end, with compiled bytecode at hand as after an
installation (in a folder of this benchmark's own, which the warm-up fills). The first prediction:
ViT-Ti/16 with random weights read from a file, a photograph read and scaled by Pillow, a top-5.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy

import numpyvit
from benchmarks.remote import ROOT
from benchmarks.side_by_side import Row, available, parser, print_rows, race, rows_of, save
from numpyvit.models import Labelling, VisionTransformer, create_model, save_model

NAME = "startup"
IMPORTS = {
    "Python alone": "pass",
    "import numpy": "import numpy",
    "import numpyvit": "import numpyvit",
    "from numpyvit import create_model": "from numpyvit import create_model",
    "import torch": "import torch",
}
CONTENDERS = ROOT / "benchmarks" / "contenders"
OURS, TORCH = "numpyvit", "PyTorch eager"


class Fresh:
    """A call runs Python with `arguments` in a fresh process and returns what it printed.

    Raises RuntimeError, with the last line of the error, when it fails.
    """

    def __init__(self, bytecode: Path, *arguments: str) -> None:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self.arguments = [sys.executable, *arguments]
        self.environment = {**os.environ, "PYTHONPATH": path, "PYTHONPYCACHEPREFIX": str(bytecode)}
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def __call__(self) -> str:
        done = subprocess.run(
            self.arguments, capture_output=True, text=True, env=self.environment, cwd=ROOT.anchor
        )
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:]
            raise RuntimeError(f"[{NAME}] {' '.join(self.arguments)}: {''.join(last)}")
        return done.stdout


def write_inputs(folder: Path, model: VisionTransformer, torch: bool) -> None:
    """A checkpoint for each side with the weights of `model`, and a picture of discs as a JPEG."""
    from PIL import Image, ImageDraw

    labels = Labelling(class_names=tuple(f"class {i}" for i in range(model.config.num_classes)))
    save_model(folder / "model.npz", "vit_tiny_patch16_224", model, labels)
    if torch:
        _write_torch(folder / "model.pt", model)
    rng = numpy.random.default_rng(0)
    picture = Image.new("RGB", (800, 600), (90, 140, 200))
    pencil = ImageDraw.Draw(picture)
    for _ in range(200):
        x, y, radius = rng.integers(0, (800, 600, 120)).tolist()
        colour = tuple(rng.integers(0, 256, 3).tolist())
        pencil.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    picture.save(folder / "photo.jpg", quality=90)


def _write_torch(path: Path, model: VisionTransformer) -> None:
    import torch

    config = model.config
    torch.save({name: torch.from_numpy(a) for name, a in model.state_dict().items()}, path)
    sizes = {**config.to_dict(), "num_tokens": config.num_tokens, "mlp_dim": config.mlp_dim}
    Path(f"{path}.json").write_text(json.dumps(sizes))


def predictions(folder: Path, bytecode: Path, torch: bool) -> dict[str, Fresh]:
    """The programs that go from nothing to a top-5."""
    photo = str(folder / "photo.jpg")
    found = {}
    if torch:
        program = str(CONTENDERS / "first_torch.py")
        found[TORCH] = Fresh(bytecode, program, str(folder / "model.pt"), photo)
    program = str(CONTENDERS / "first_numpyvit.py")
    found[OURS] = Fresh(bytecode, program, str(folder / "model.npz"), photo)
    return found


def check(programs: dict[str, Callable[[], str]]) -> list[int]:
    """The top-5 that all print; RuntimeError where they differ."""
    tops = {name: json.loads(program()) for name, program in programs.items()}
    if any(top != tops[OURS] for top in tops.values()) or len(tops[OURS]) != 5:
        raise RuntimeError(f"[{NAME}] the top-5 differ: {tops}")
    top: list[int] = tops[OURS]
    return top


def sizes(packages: list[str]) -> list[Row]:
    """Bytes of installed files, without compiled bytecode and without what a package needs."""
    rows: list[Row] = []
    for package in packages:
        if package == "numpyvit":  # maybe not installed: the files that run
            paths = list(Path(numpyvit.__file__).parent.rglob("*"))
        else:
            files = importlib.metadata.distribution(package).files or []
            paths = [Path(str(file.locate())) for file in files]
        kept = [path for path in paths if path.is_file() and "__pycache__" not in path.parts]
        rows.append({"package": package, "size_bytes": sum(path.stat().st_size for path in kept)})
    return rows


def main(argv: list[str] | None = None) -> None:
    """Check, time, print, save, draw."""
    options = parser(__doc__ or "", rounds=21).parse_args(argv)
    torch = available("torch")
    with tempfile.TemporaryDirectory() as temporary:
        folder, bytecode = Path(temporary), Path(temporary) / "bytecode"
        programs = {
            name: Fresh(bytecode, "-c", code)
            for name, code in IMPORTS.items()
            if torch or name != "import torch"
        }
        seconds = race(programs, rounds=options.rounds, warm_up=1)
        rows = rows_of("import", seconds, "import numpy")
        print_rows(rows)
        if available("PIL"):
            write_inputs(folder, create_model("vit_tiny_patch16_224"), torch)
            programs = predictions(folder, bytecode, torch)
            print(f"top-5 of all: {check(programs)}")
            seconds = race(programs, rounds=options.rounds, warm_up=1)
            rows += rows_of("first prediction", seconds, TORCH)
            print_rows([row for row in rows if row["case"] == "first prediction"])
    installed = sizes(["numpyvit", "numpy", *(["torch"] if torch else [])])
    print_rows(installed)
    path = save(NAME, rows, options.out, installed_size=installed)
    draw(rows, installed, path.with_suffix(".png"))


def draw(rows: list[Row], installed: list[Row], path: Path) -> None:
    """Three panels of bars: imports, first prediction, installed size."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels: dict[str, list[tuple[str, float, str]]] = {}
    for row in rows:
        text = f"{row['median_s'] * 1e3:.0f} ms"
        panels.setdefault(row["case"], []).append((row["contender"], row["median_s"], text))
    for row in installed:
        text = f"{row['size_bytes'] / 1e6:.3g} MB"
        panels.setdefault("installed size", []).append((row["package"], row["size_bytes"], text))
    heights = [len(bars) for bars in panels.values()]
    figure, axes = pyplot.subplots(
        len(panels),
        1,
        figsize=(7, 0.34 * sum(heights) + 0.6 * len(panels)),
        squeeze=False,
        height_ratios=heights,
    )
    for panel, (title, bars) in zip(axes[:, 0], panels.items(), strict=True):
        names, values, texts = zip(*bars, strict=True)
        places = range(len(names))
        ours = ["#d62728" if "numpyvit" in name else "#7f7f7f" for name in names]
        panel.barh(places, values, 0.7, color=ours)
        for place, value, text in zip(places, values, texts, strict=True):
            panel.text(value, place, f" {text}", va="center", fontsize=8)
        panel.set_yticks(places, names, fontsize=8)
        panel.invert_yaxis()
        panel.set_xticks([])
        panel.margins(x=0.12)
        panel.set_title(title, fontsize=9, loc="left")
        panel.spines[["top", "right", "bottom"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
