"""The documents say what the sources are: code in them is code that runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
THE_CLASS, *EDITS, THE_NAME, THE_TEST = re.findall(r"```python\n(.*?)```", PAGE, re.S)
FILES = ("nn/pooling.py", "nn/__init__.py", "models/components.py", "models/config.py")

# A step of training, a file and back, a command, and the page's test, all in a fresh process.
USE = """
import sys
from pathlib import Path
import numpy as np
import numpyvit
from numpyvit import functional
from numpyvit.cli import main
from numpyvit.models import Labelling, create_model, load_model, save_model
from numpyvit.optim import AdamW

assert Path(numpyvit.__file__).is_relative_to(Path.cwd())
model = create_model("vit_cifar_patch4_32", pooling="power")
images = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
functional.cross_entropy(model(images), np.arange(2)).backward()
AdamW(model.parameters(), lr=1e-3).step()
assert model.attn_pool.p.data != 3
names = tuple("abcdefghij")
save_model("power.npz", "vit_cifar_patch4_32", model, Labelling(class_names=names))
again = load_model("power.npz").model
assert np.array_equal(again.eval()(images).data, model.eval()(images).data)
assert main(["inspect", "power.npz"]) == 0
names = {}
exec(sys.argv[1], names)
for dtype in ("float32", "float64"):
    names["test_pooling_by_a_power_mean_is_pytorchs"](dtype)
"""


def applied(text: str, snippets: str) -> str:
    """`text` with what stands between `...` and the last line of each of `snippets`."""
    for snippet in snippets.strip().split("\n\n"):
        first, dots, *new, last = snippet.splitlines()
        assert dots.strip() == "..."
        before, head, after = text.partition(f"{first}\n")
        inside, tail, rest = after.partition(f"\n{last}\n")
        assert head, first
        text = "".join((before, head, inside, "\n", "\n".join(new), tail, rest))
    return text


@pytest.fixture
def with_the_variant(tmp_path):
    """A folder with a copy of the package to which the page was applied as it is written."""
    package = shutil.copytree(
        ROOT / "numpyvit", tmp_path / "numpyvit", ignore=shutil.ignore_patterns("__pycache__")
    )
    for file in FILES:
        assert f"`numpyvit/{file}`" in PAGE
    pooling, exports, components, config = (package / file for file in FILES)
    assert "`import numpy as np` above the file's\n   imports" in PAGE
    text = pooling.read_text().replace(
        "\nfrom numpy.random", "\nimport numpy as np\nfrom numpy.random"
    )
    pooling.write_text(f"{text}\n\n{THE_CLASS}")
    for file, edit in zip((exports, components), EDITS, strict=True):
        file.write_text(applied(file.read_text(), edit))
    key = THE_NAME.partition("(")[0]
    lines = config.read_text().splitlines(keepends=True)
    assert sum(line.startswith(key) for line in lines) == 1
    config.write_text("".join(THE_NAME if line.startswith(key) else line for line in lines))
    return tmp_path


def test_the_worked_example_works_as_it_is_written(with_the_variant):
    places = os.pathsep.join(map(str, (with_the_variant, ROOT / "tests")))
    done = subprocess.run(
        [sys.executable, "-c", USE, THE_TEST],
        cwd=with_the_variant,
        env={**os.environ, "PYTHONPATH": places},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "power" in done.stdout


def test_the_worked_example_is_the_scripts_class():
    script = (ROOT / "examples" / "10_a_variant_of_your_own.py").read_text()
    assert THE_CLASS.strip() in script


def test_the_worked_example_has_under_60_lines():
    blocks = (THE_CLASS, *EDITS, THE_NAME, THE_TEST)
    assert sum(len(block.splitlines()) for block in blocks) < 60


def test_every_file_of_the_package_is_listed():
    folders = sorted(path.parent for path in (ROOT / "numpyvit").glob("*/__init__.py"))
    for folder in folders:
        for file in folder.glob("*.py"):
            if file.stem != "__init__":
                assert f"| `{file.stem}` |" in PAGE, f"{file}: run tools/write_architecture.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_to_one(page):
    links = re.findall(r"\]\(([^)\s#:]+)[#)]|(?:src|href)=\"([^\"#:]+)[#\"]", page.read_text())
    for target in filter(None, sum(links, ())):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_part_that_a_tool_writes_is_written(page):
    parts = re.findall(r"<!-- (\S+):begin -->(.*?)<!-- \1:end -->", page.read_text(), re.S)
    assert len(parts) == page.read_text().count(":begin -->") == page.read_text().count(":end -->")
    for name, text in parts:
        assert text.strip(), f"{name} is empty"
