"""Tiny Swin Transformers that the real libraries wrote and ran: numpyvit must answer the same.

tools/reference/swin_cases.py makes the files; test_parity.py has the logits too.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits

from numpyvit.data import PREPROCESSINGS
from numpyvit.models import SWIN_VARIANTS
from numpyvit.tensor import no_grad
from numpyvit.weights import (
    WeightFileError,
    convert,
    load_pretrained,
    open_weights,
    resize_bias_table,
    write_safetensors,
)
from numpyvit.weights.dialects import choose, find_preprocessing
from numpyvit.weights.dialects.families import FAMILIES

FIXTURES = Path(__file__).resolve().parent / "fixtures"
FACTS = {
    path.parent.name: json.loads(path.read_text("utf-8"))
    for path in sorted(FIXTURES.glob("swin_*/case.json"))
}
TABLE = "layers.0.blocks.0.attn.relative_position_bias_table"


def path_of(name):
    return FIXTURES / name / FACTS[name]["open"]


def load(name, **options):
    return load_pretrained(path_of(name), **{**FACTS[name]["overrides"], **options})


def answers(name):
    with np.load(FIXTURES / FACTS[name].get("same_as", name) / "expected.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("name", FACTS)
def test_the_tokens_after_every_block_are_the_librarys(name, dtype):
    model, expected = load(name, dtype=dtype.name).model, answers(name)
    with no_grad():
        output = model(expected["images"].astype(dtype), return_hidden_states=True)
    blocks = [key for key in expected if key.startswith("hidden_")]
    assert len(output.hidden_states) == 1 + len(blocks)
    for number, ours in enumerate(output.hidden_states[1:]):
        assert_close(ours, expected[f"hidden_{number}"], dtype)
    assert_close(output.logits, expected["logits"], dtype)


def test_there_are_cases_of_every_library():
    titles = {choose(open_weights(path_of(name))).dialect.title for name in FACTS}
    assert {title.removesuffix(" (Swin)") for title in titles} == {
        *("timm", "Microsoft", "torchvision", "Hugging Face")
    }


def test_a_file_says_what_its_model_is():
    found = load("swin_microsoft")
    said = dict(found.report)
    assert found.name == "swin_tiny_patch2_window4_16"
    assert said["stages"] == "(2, 1) blocks, (2, 4) heads, width 8: from shapes and names"
    assert said["windows"] == "4 x 4 tokens: from the bias tables"
    assert said["images"] == "16 x 16 pixels: the mask of the first shifted windows"
    assert found.model.config.padding == "after_shift"
    assert found.model.config.mlp_ratio == 2
    assert len(found.labelling.class_names) == 5
    assert (found.preprocessing.size, found.preprocessing.filter) == (16, "bicubic")
    hugging_face = load("swin_hf").model.config
    assert (hugging_face.image_size, hugging_face.padding) == (16, "before_shift")
    assert load("swin_timm").labelling.class_names[1] == "thing 1, object"


@pytest.mark.parametrize(
    ("case", "name", "key"),
    [
        ("swin_timm", "tiny_patch4_window7_224", "timm_deit"),
        ("swin_timm", "base_patch4_window12_384", "timm_deit_384"),
        ("swin_microsoft", "small_patch4_window7_224", "swin"),
        ("swin_microsoft", "large_patch4_window12_384", "swin_384"),
        ("swin_torchvision", "tiny_patch4_window7_224", "torchvision_swin_t"),
        ("swin_torchvision", "small_patch4_window7_224", "torchvision_swin_s"),
        ("swin_torchvision", "base_patch4_window7_224", "torchvision_swin_b"),
        ("swin_hf", "tiny_patch4_window7_224", "hugging_face_swin"),
    ],
)
def test_evaluations_are_those_of_each_library(case, name, key):
    file = open_weights(path_of(case))
    family = FAMILIES[choose(file).dialect.title]
    file = dataclasses.replace(file, config=None, preprocessor=None)
    found, _ = find_preprocessing(file, family, SWIN_VARIANTS[f"swin_{name}"])
    assert found is PREPROCESSINGS[key]


def test_another_window_gets_a_resized_table(torch):
    found = load("swin_timm", image_size=24, window_size=6, dtype="float64")
    assert found.model.config.windows(0).size == 6
    assert dict(found.report)["resized"].startswith("3 bias tables")
    table = load("swin_timm", dtype="float64").model.blocks[0].attn.relative_position_bias_table
    image = torch.tensor(table.numpy().T.reshape(1, 2, 7, 7).copy())
    expected = torch.nn.functional.interpolate(image, (11, 11), mode="bicubic")
    ours = found.model.blocks[0].attn.relative_position_bias_table
    assert_close(ours, expected[0].flatten(1).T)
    assert_same_bits(resize_bias_table(table.numpy(), 4), table)
    with pytest.raises(ValueError, match=r"got shape \(50, 2\) and 3"):
        resize_bias_table(np.zeros((50, 2)), 3)


def test_another_size_of_images_needs_no_new_weights():
    found = load("swin_timm", image_size=32)
    assert "resized" not in dict(found.report)
    assert (found.model.config.image_size, found.preprocessing.size) == (32, 32)
    assert found.model(np.zeros((1, 3, 32, 32), np.float32)).shape == (1, 5)


def test_windows_that_shrank_to_their_grid_grow_with_it():
    small, large = (load("swin_timm_shrunk", image_size=size).model for size in (16, 32))
    assert [small.config.windows(stage).size for stage in (0, 1)] == [6, 4]
    assert [large.config.windows(stage).size for stage in (0, 1)] == [6, 6]
    assert large(np.zeros((1, 3, 32, 32), np.float32)).shape == (1, 5)


def test_a_bare_file_whose_last_window_is_smaller_tells_the_size_of_its_images(tmp_path):
    path = tmp_path / "swin.safetensors"
    path.write_bytes((path_of("swin_timm_shrunk") / "model.safetensors").read_bytes())
    found = load_pretrained(path)
    assert dict(found.report)["images"].startswith("16 x 16 pixels: the last stage is one")


def test_a_new_head_is_drawn_from_its_seed():
    heads = [load("swin_timm", num_classes=3, seed=seed).model.head.fc.weight for seed in (1, 1, 2)]
    assert heads[0].shape == (3, 16)
    assert_same_bits(heads[0], heads[1])
    assert np.abs(heads[0].numpy() - heads[2].numpy()).max() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depths": (2, 2)}, r"expected depths=\(2, 1\), as the arrays"),
        ({"num_heads": (4, 4)}, r"expected num_heads=\(2, 4\), as the arrays"),
        ({"embed_dim": 16}, "expected embed_dim=8, as the arrays"),
        ({"mlp_ratio": 4.0}, "expected mlp_ratio=2.0, as the arrays"),
        ({"depth": 3}, "unknown option 'depth'; did you mean 'depths'"),
        ({"pooling": "avg"}, "unknown option 'pooling'"),
        ({"window_size": 0}, "'window_size' must be positive"),
    ],
)
def test_what_the_arrays_have_decided_cannot_be_asked_for(options, message):
    with pytest.raises(ValueError, match=message):
        load("swin_timm", **options)


def stored(tmp_path, name, change):
    arrays = {key: array.read() for key, array in open_weights(path_of(name)).arrays.items()}
    change(arrays)
    path = tmp_path / "model.safetensors"
    write_safetensors(path, arrays)
    return path


def test_a_state_inside_a_training_state_is_found(tmp_path):
    def nest(arrays):
        for key in list(arrays):
            value = arrays.pop(key)
            arrays[f"model_ema.module.{key}"] = value
            arrays[f"model.module.{key}"] = value * 0

    path = stored(tmp_path, "swin_timm", nest)
    assert "model_ema" in dict(load_pretrained(path).report)["taken"]
    with no_grad():
        images = answers("swin_timm")["images"].astype(np.float32)
        assert_close(load_pretrained(path, image_size=16).model(images),
                     answers("swin_timm")["logits_float32"])  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("norm.bias"), r"norm\.bias: missing, expected shape \(16,\)"),
        (lambda a: a.update(extra=np.zeros(2)), "extra: unexpected"),
        (lambda a: a.update({"absolute_pos_embed": np.zeros(2)}), "with absolute positions"),
        (
            lambda a: a.update({"layers.0.blocks.4.norm1.weight": np.zeros(8)}),
            "numbered from 0",
        ),
        (lambda a: a.update({"layers.0.blocks.0.attn.logit_scale": np.zeros(2)}), "version 2"),
        (lambda a: a.update({"swin.norm.bias": np.zeros(16)}), "two for norm.bias"),
        (
            lambda a: a.update({"patch_embed.proj.weight": np.zeros(3)}),
            r"4 axes in .*, got shape \(3,\)",
        ),
        (lambda a: a.update({TABLE: np.zeros((9, 3))}), "windows of one size .* got 2, 4 tokens"),
        (lambda a: a.update({TABLE: np.zeros((49, 3))}), "3 heads divide"),
        (
            lambda a: a.update({TABLE: np.zeros((50, 2))}),
            r"expected shape \(49, 2\), got \(50, 2\)",
        ),
        (
            lambda a: a.update({"layers.0.blocks.0.\x1b[31mred": np.zeros(2)}),
            r"layers\.0\.blocks\.0\.\\x1b\[31mred: unexpected",
        ),
    ],
)
def test_what_does_not_fit_is_said(tmp_path, change, message):
    with pytest.raises(WeightFileError, match=message):
        load_pretrained(stored(tmp_path, "swin_timm", change))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "swinv2"}, "expected a model_type out of swin in .* got 'swinv2'"),
        ({"image_size": 1 << 40}, "image_size <= 16384, got"),
        ({"image_size": 17}, "multiple of patch_size 2, got 17"),
        ({"hidden_act": "sine"}, "expected activation out of gelu,"),
        ({"hidden_act": ["gelu"]}, "expected activation out of gelu,"),
        ({"layer_norm_eps": -1}, "layer_norm_eps between 0 and 1"),
        ({"depths": [2, 2]}, r"depths: .* in the config, \(2, 1\) in the arrays"),
        ({"num_channels": 1}, "num_channels: 1 in the config, 3 in the arrays"),
    ],
)
def test_a_config_that_cannot_be_is_refused(tmp_path, fields, message):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((path_of("swin_hf") / name).read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | fields))
    with pytest.raises(WeightFileError, match=message):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["swin_timm", "swin_torchvision_padded", "swin_hf_odd"])
@pytest.mark.parametrize("target", ["timm", "numpyvit"])
def test_there_and_back_gives_the_same_model(tmp_path, name, target):
    path = tmp_path / "swin.npz"
    done = convert(load(name), target, path)
    assert done.files == [path]
    # timm shifts before it pads, which only matters where something is padded.
    assert bool(done.notes) == (target == "timm" and name != "swin_timm")
    before, after = load(name), load_pretrained(path)
    assert after.name == before.name
    assert after.model.config == before.model.config
    assert (after.labelling, after.preprocessing) == (before.labelling, before.preprocessing)
    for key, array in before.model.state_dict().items():
        assert_same_bits(after.model.state_dict()[key], array)


@pytest.mark.parametrize("target", ["torchvision", "hugging-face", "google"])
def test_other_targets_are_refused_with_what_to_do(tmp_path, target):
    with pytest.raises(ValueError, match=r"expected a ViT for .*, got a swin; .* timm or numpyvit"):
        convert(load("swin_timm"), target, tmp_path / "out.npz")
    assert not list(tmp_path.iterdir())


def test_the_encoder_of_a_masked_pre_training_is_taken(tmp_path):
    def pretrained(arrays):
        arrays.pop("classifier.weight")
        arrays.pop("classifier.bias")
        arrays["swin.embeddings.mask_token"] = np.zeros((1, 1, 8))
        arrays["decoder.0.weight"] = np.zeros((4, 16, 1, 1))

    found = load_pretrained(stored(tmp_path, "swin_hf", pretrained), image_size=16)
    dropped = [text for topic, text in found.report if topic == "dropped"]
    assert "the decoder of masked images (1 array)" in dropped
    assert found.model.config.num_classes == 0
    assert_close(
        found.model.layers[1].blocks[0].norm1.weight,
        load("swin_hf").model.layers[1].blocks[0].norm1.weight,
    )
