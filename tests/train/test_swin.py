"""A model with windows and stages trains as any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tolerances import assert_same_bits
from train import tiny
from train.tiny import StoppedTrainer, interrupted, outcome_of, tiny_trainer

from numpyvit.explain import explain
from numpyvit.models import SwinConfig, SwinTransformer
from numpyvit.train import Recipe, freeze, parameter_groups, pictures, with_new_head

CONFIG = SwinConfig(
    image_size=8,
    patch_size=2,
    num_classes=4,
    embed_dim=8,
    depths=(2, 2),
    num_heads=(2, 4),
    window_size=2,
)
BLOCKS = ["layers.0.blocks.0", "layers.0.blocks.1", "layers.1.blocks.0", "layers.1.blocks.1"]


@pytest.fixture(autouse=True)
def swin(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name that tiny trainings are of is a Swin Transformer's."""
    monkeypatch.setitem(tiny.VARIANTS, tiny.NAME, CONFIG)


def model_of(**changes: Any) -> SwinTransformer:
    return SwinTransformer(CONFIG.replace(**changes), rng=np.random.default_rng(0))


@pytest.mark.parametrize("initialization", ["timm", "structured"])
def test_the_bits_are_the_same_with_any_workers_and_after_an_interruption(
    tmp_path: Path, initialization: str
) -> None:
    changes = {"epochs": 2, "drop_path": 0.2, "initialization": initialization}
    trainer = tiny_trainer(tmp_path / "one", **changes)
    before = {name: array.copy() for name, array in trainer.model.state_dict().items()}
    trainer.fit()
    after = trainer.model.state_dict()
    assert all((after[name] != array).any() for name, array in before.items())
    tiny_trainer(tmp_path / "two", workers=2, **changes).fit()
    interrupted(tiny_trainer(tmp_path / "three", kind=StoppedTrainer, **changes), 4)
    tiny_trainer(tmp_path / "three", workers=2).fit()
    outcomes = [outcome_of(tmp_path / name) for name in ("one", "two", "three")]
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_a_run_shows_what_speaks_for_the_predicted_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, Any] = {}

    def draw(images: Any, maps: Any, titles: Any, path: Path, **options: Any) -> None:
        found.update(images=images, maps=maps, **options)

    monkeypatch.setattr(pictures, "draw_overlays", draw)
    trainer = tiny_trainer(tmp_path)
    pictures._draw_attention(trainer, tmp_path / "attention.png")
    assert found["maps"].shape == (10, 2, 2)
    assert_same_bits(found["maps"], explain(trainer.model, found["images"], "gradcam"))
    assert "predicted class (gradcam)" in found["heading"]


def test_layers_are_counted_through_all_stages() -> None:
    model = model_of()
    for number, block in enumerate(BLOCKS):
        assert model.layer_of(f"{block}.mlp.fc1.weight") == number + 1
    assert model.layer_of("patch_embed.norm.bias") == 0
    assert model.layer_of("layers.1.downsample.reduction.weight") == 3
    assert model.layer_of("norm.weight") == model.layer_of("head.fc.bias") == 5


@pytest.mark.parametrize(
    ("tune", "prefixes"),
    [
        ("head", ("head.",)),
        ("last:1", (BLOCKS[3], "norm.", "head.")),
        ("last:2", ("layers.1.", "norm.", "head.")),
        ("all", ("",)),
    ],
)
def test_what_is_tuned_reaches_into_the_stages(tune: str, prefixes: tuple[str, ...]) -> None:
    model = model_of()
    freeze(model, tune)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == name.startswith(prefixes), name


def test_later_layers_learn_faster_and_tables_of_positions_do_not_decay() -> None:
    model = model_of()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, Recipe(lr=1.0, layer_decay=0.5, weight_decay=0.1))
    rates = {}
    for group in groups:
        for parameter in group["params"]:
            rates[names[id(parameter)]] = (group["lr"], group["weight_decay"])
    assert rates["head.fc.weight"] == (1, 0.1)
    assert rates["layers.1.blocks.1.attn.qkv.weight"] == (0.5, 0.1)
    assert rates["layers.1.downsample.reduction.weight"] == (0.25, 0.1)
    assert rates["patch_embed.proj.weight"] == (0.5**5, 0.1)
    for block in BLOCKS:
        assert rates[f"{block}.attn.relative_position_bias_table"][1] == 0


def test_a_new_head_starts_at_zero_and_keeps_the_rest() -> None:
    model = model_of()
    tuned = with_new_head(model, 7)
    assert tuned.head.fc.weight.shape == (7, 16)
    assert not tuned.head.fc.weight.numpy().any()
    for name, array in model.state_dict().items():
        if not name.startswith("head."):
            assert tuned.state_dict()[name] is array
