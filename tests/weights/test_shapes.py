"""What is inferred from names, shapes and configs, for every model that the libraries name.

tools/reference/write_shapes.py makes the list; no model's values are needed.
"""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import numpy as np
import pytest

from numpyvit.models import VisionTransformer, ViTConfig
from numpyvit.nn import init
from numpyvit.weights import StoredArray, WeightFile, WeightFileError
from numpyvit.weights.dialects import choose, translate
from numpyvit.weights.dialects.architecture import Architecture
from numpyvit.weights.dialects.families import find_family

_TEXT = gzip.decompress((Path(__file__).parent / "fixtures" / "shapes.json.gz").read_bytes())
RECORDS = [json.loads(line) for line in _TEXT.decode().splitlines()]
KNOWN = [record for record in RECORDS if "truth" in record]
OTHERS = [record for record in RECORDS if "truth" not in record]


def label(record):
    return f"{record['name']}-{record.get('truth', {}).get('image_size', '')}"


def as_file(record, with_config=True):
    """The record as an opened file; reading an array of it fails."""
    arrays = {}
    for name, shape in record["shapes"].items():
        depth = record.get("truth", {"depth": 2})["depth"] if "#" in name else 1
        for number in range(depth):
            stored = StoredArray(tuple(shape), np.dtype("float32"), "F32", pytest.fail)
            arrays[name.replace("#", str(number))] = stored
    config = record.get("config") if with_config else None
    return WeightFile(Path("model.safetensors"), "safetensors", arrays, {}, config)


def infer(file):
    """The config, the arrays in the model's names, and how many names were not understood."""
    chosen = choose(file)
    translation = translate(chosen.dialect, chosen.arrays)
    family, _ = find_family(file, chosen, translation)
    config = ViTConfig(**Architecture(file, family, translation.entries, {}).fields)
    return config, translation.entries, len(translation.problems)


def wrong(config, record):
    """The facts that a config has otherwise than the record."""
    found = {}
    for name, value in record["truth"].items():
        if name == "image_size":
            value -= value % record["truth"]["patch_size"]  # timm leaves out what is over
        ours = getattr(config, name)
        if (ours > 0 if name == "layer_scale" else ours) != value:
            found[name] = value
    return found


def own_shapes(config):
    with init.undrawn():
        model = VisionTransformer(config)
    return {name: parameter.shape for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("record", KNOWN, ids=label)
def test_names_shapes_and_config_tell_what_a_model_is(record):
    config, entries, not_understood = infer(as_file(record))
    assert wrong(config, record) == {}
    assert not_understood == 0
    expected = own_shapes(config)
    assert {name: expected.get(name) for name in entries if name != "pos_embed"} == {
        name: entry.shape for name, entry in entries.items() if name != "pos_embed"
    }
    assert entries.keys() == expected.keys()


# What neither names nor shapes tell: these need the config, the model's name, or an override.
NOT_IN_THE_ARRAYS = {
    r"quickgelu": {"activation"},
    r"(base_patch32|large_patch16|so400m_patch16|giantopt_patch16)_siglip": {"activation"},
    r"giantopt|vit_base_patch16_gap_224|test_vit": {"num_heads"},
}


# Their width is no published model's, so not even a guess is made.
UNKNOWN_WIDTHS = {"test_vit4"}


@pytest.mark.parametrize("record", KNOWN, ids=label)
def test_a_bare_file_tells_all_but_a_few_facts(record):
    file = as_file(record, with_config=False)
    if record["name"] in UNKNOWN_WIDTHS:
        with pytest.raises(WeightFileError, match="how many heads"):
            infer(file)
        return
    config, _, not_understood = infer(file)
    allowed = {
        name
        for pattern, names in NOT_IN_THE_ARRAYS.items()
        if re.search(pattern, record["name"])
        for name in names
    }
    assert wrong(config, record).keys() <= allowed
    assert not_understood == 0


@pytest.mark.parametrize("record", OTHERS, ids=label)
def test_models_of_another_kind_are_not_taken_for_a_vit(record):
    try:
        config, entries, not_understood = infer(as_file(record))
    except WeightFileError:
        return
    assert not_understood or entries.keys() != own_shapes(config).keys()


def test_the_list_has_every_library():
    assert {record["library"] for record in KNOWN} == {"torchvision", "timm", "transformers"}
    assert len(KNOWN) > 150
    assert len(OTHERS) > 20
