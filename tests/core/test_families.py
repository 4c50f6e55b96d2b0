"""The families of models have one interface, and the tables of parts one set of names."""

from __future__ import annotations

import json

import numpy as np
import pytest

from numpyvit.models import (
    FAMILIES,
    VARIANTS,
    build_model,
    components,
    config_from_dict,
    create_model,
    family_of,
)
from numpyvit.models.config import CHOICES


def test_every_choice_of_the_configuration_is_a_row_of_its_table():
    assert {name: set(rows) for name, rows in components.TABLES.items()} == {
        name: set(choices) for name, choices in CHOICES.items()
    }


@pytest.mark.parametrize("name", VARIANTS)
def test_a_named_configuration_survives_the_way_through_a_dictionary(name):
    config = VARIANTS[name]
    family = family_of(config)
    assert isinstance(config, FAMILIES[family].config)
    assert config_from_dict(family, config.to_dict()) == config


@pytest.mark.parametrize(
    "name", ["vit_cifar_patch4_32", "swin_cifar_patch2_32", "mae_vit_cifar_patch4_32"]
)
def test_every_model_says_which_layer_a_parameter_is_of(name):
    model = create_model(name)
    depth = len(model.blocks)
    layers = [model.layer_of(parameter) for parameter, _ in model.named_parameters()]
    assert set(layers) == set(range(depth + 2))
    blocks = [layer for layer in layers if 0 < layer <= depth]
    assert blocks == sorted(blocks)
    assert np.dtype(model.dtype) == np.float32


@pytest.mark.parametrize(
    "changes",
    [
        {"image_size": np.int64(64)},
        {"patch_size": (np.int32(4), np.int32(8)), "mlp_ratio": np.float32(2)},
        {"image_size": [16, np.int64(32)]},
    ],
)
def test_numbers_of_numpy_become_those_that_json_can_hold(changes):
    config = VARIANTS["vit_cifar_patch4_32"].replace(**changes)
    assert config_from_dict("vit", json.loads(json.dumps(config.to_dict()))) == config


def test_numbers_of_numpy_become_those_that_json_can_hold_in_every_family():
    for name, changes in {
        "swin_cifar_patch2_32": {"depths": (np.int64(2), 2), "drop_path": np.float64(0.1)},
        "mae_vit_cifar_patch4_32": {"mask_ratio": np.float32(0.5), "decoder_depth": np.int64(1)},
    }.items():
        config = VARIANTS[name].replace(**changes)
        again = json.loads(json.dumps(config.to_dict()))
        assert config_from_dict(family_of(config), again) == config


@pytest.mark.parametrize(
    ("name", "class_token", "blocks"),
    [
        ("vit_cifar_patch4_32", True, 4),
        ("swin_cifar_patch2_32", False, 6),
        ("mae_vit_cifar_patch4_32", True, 4 + 2),
    ],
)
def test_every_configuration_answers_what_other_layers_ask(name, class_token, blocks):
    config = VARIANTS[name]
    assert (config.stem, config.mlp, config.distillation_head) == ("patches", "mlp", False)
    assert (config.class_token, config.num_prefix_tokens) == (class_token, int(class_token))
    assert config.pooling in CHOICES["pooling"]
    assert config.num_blocks == blocks


def test_a_model_for_other_classes_has_a_head_for_them():
    for name in ("vit_cifar_patch4_32", "swin_cifar_patch2_32"):
        config = VARIANTS[name].for_classes(7, drop_path=0.1)
        assert (config.num_classes, config.drop_path) == (7, 0.1)
        assert build_model(config)(np.zeros((1, 3, 32, 32), np.float32)).shape == (1, 7)
