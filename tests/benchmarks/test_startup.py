from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import startup
from numpyvit.models import VisionTransformer, ViTConfig, load_model


def test_a_fresh_process_returns_what_it_prints_and_keeps_bytecode_apart(tmp_path):
    program = startup.Fresh(tmp_path, "-c", "import sys; print(sys.pycache_prefix)")
    assert program().strip() == str(tmp_path)


def test_a_process_that_fails_is_an_error_with_its_last_line(tmp_path):
    with pytest.raises(RuntimeError, match="ValueError: no such thing"):
        startup.Fresh(tmp_path, "-c", "raise ValueError('no such thing')")()


def test_both_sides_get_the_same_weights(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("PIL")
    config = ViTConfig(image_size=8, patch_size=4, num_classes=5, embed_dim=8, depth=1, num_heads=2)
    model = VisionTransformer(config)
    startup.write_inputs(tmp_path, model, torch=True)
    theirs = torch.load(tmp_path / "model.pt", weights_only=True)
    ours = load_model(tmp_path / "model.npz").model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all((theirs[name].numpy() == array).all() for name, array in ours.items())
    assert json.loads((tmp_path / "model.pt.json").read_text())["num_tokens"] == 5
    assert (tmp_path / "photo.jpg").stat().st_size > 1000


def test_predictions_that_differ_are_not_timed():
    same = {startup.OURS: lambda: "[1, 2, 3, 4, 5]", startup.TORCH: lambda: "[1, 2, 3, 4, 5]"}
    assert startup.check(same) == [1, 2, 3, 4, 5]
    with pytest.raises(RuntimeError, match="top-5 differ"):
        startup.check({**same, startup.TORCH: lambda: "[1, 2, 3, 5, 4]"})


def test_installed_sizes_are_those_of_the_files():
    (numpy_row,) = startup.sizes(["numpy"])
    assert 10e6 < numpy_row["size_bytes"] < 200e6
    (own,) = startup.sizes(["numpyvit"])
    package = Path(startup.numpyvit.__file__).parent
    assert own["size_bytes"] > (package / "models" / "vit.py").stat().st_size


def test_the_picture_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    rows = [{"case": "import", "contender": "import numpyvit", "median_s": 0.1}]
    startup.draw(rows, [{"package": "numpyvit", "size_bytes": 1e6}], tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 1000
