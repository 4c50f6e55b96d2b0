"""Writing models for others: exact round trips, files that others can open, and refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tolerances import assert_same_bits

from numpyvit.data import PREPROCESSINGS
from numpyvit.models import Labelling, VisionTransformer, ViTConfig, load_model
from numpyvit.tensor import no_grad
from numpyvit.weights import (
    TARGETS,
    Pretrained,
    WeightFileError,
    convert,
    load_pretrained,
    open_weights,
)
from numpyvit.weights.dialects import hub_processor

SIZES = {"image_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 3}
FEATURES = {"class_token": False, "positions": "patches"}
MODELS = {
    "plain": {},
    "tanh": {"activation": "gelu_tanh", "norm_eps": 1e-12, "dropout": 0.1},
    "positions_of_patches": {"positions": "patches"},
    "waves": {"positions": "sincos"},
    "relative": {"positions": "relative"},
    "rotary": {"positions": "rotary"},
    "no_head": {"num_classes": 0},
    "no_bias": {"qkv_bias": False},
    "pre_logits": {"pre_logits": 8},
    "distilled": {"distillation_token": True, "distillation_head": True},
    "distilled_one_head": {"distillation_token": True},
    "mean": {"pooling": "avg", **FEATURES},
    "map": {"pooling": "map", **FEATURES},
    "head_norm": {"pooling": "avg", "head_norm": True, "final_norm": False},
    "score": {"pooling": "score"},
    "hybrid": {"stem": "hybrid"},
    "padded": {"patch_size": 5, "pad": True},
    "no_final_norm": {"final_norm": False},
    "post_norm": {"block": "post_norm", "norm": "rms", "pooling": "max"},
    "parallel": {"block": "parallel", "pooling": "score"},
    "parallel_things": {"block": "parallel_things", "layer_scale": 0.1},
    "clip": {"pre_norm": True, "patch_bias": False, "activation": "quick_gelu"},
    "dinov2": {"layer_scale": 1e-5, "pooling": "token_avg"},
    "dinov2_without_scale": {"pooling": "token_avg"},
    "registers": {
        "layer_scale": 1e-5,
        "pooling": "token_avg",
        "num_registers": 3,
        "positions": "patches",
    },
    "gated": {"mlp": "swiglu", "activation": "silu", "mlp_ratio": 32 / 12, "pooling": "token_avg"},
}
HOLDS = {
    "timm": set(MODELS) - {"hybrid", "padded", "relative", "parallel", "score"},
    "numpyvit": set(MODELS),
    "torchvision": {"plain", "tanh", "positions_of_patches", "pre_logits"},
    "google": {"plain", "tanh", "positions_of_patches", "no_head", "pre_logits", "mean", "map"},
    "hugging-face": set(MODELS)
    - {"pre_logits", "mean", "map", "head_norm", "no_final_norm", "clip"}
    - {"post_norm", "parallel", "parallel_things", "waves", "relative", "rotary"}
    - {"score", "hybrid", "padded"},
}
ENDINGS = {
    "timm": (".safetensors", ".npz"),
    "torchvision": (".safetensors", ".npz"),
    "google": (".npz", ".safetensors"),
    "hugging-face": ("",),
    "numpyvit": (".npz",),
}
KEPT = [(t, e, m) for t in TARGETS for e in ENDINGS[t] for m in MODELS if m in HOLDS[t]]
NOT_KEPT = [(t, m) for t in TARGETS for m in MODELS if m not in HOLDS[t]]


def made(name):
    config = ViTConfig(**{**SIZES, "num_classes": 5, **MODELS[name]})
    model, rng = VisionTransformer(config).eval(), np.random.default_rng(1)
    for parameter in model.parameters():
        parameter.data = rng.standard_normal(parameter.shape).astype(np.float32)
    rule = PREPROCESSINGS["hugging_face_deit"].at(16)
    names = tuple("abcde"[: config.num_classes])
    return Pretrained(
        name, model, Labelling(class_names=names, mean=rule.mean, std=rule.std), rule, []
    )


def logits(model):
    images = np.random.default_rng(2).standard_normal((2, 3, 16, 16)).astype(np.float32)
    with no_grad():
        return model(images).data


@pytest.mark.parametrize(("target", "ending", "name"), KEPT)
def test_the_round_trip_is_exact(tmp_path, target, ending, name):
    source, out = made(name), tmp_path / f"out{ending}"
    converted = convert(source, target, out)
    assert all(file.is_file() for file in converted.files)
    found = load_pretrained(out)
    state = found.model.state_dict()
    for key, array in source.model.state_dict().items():
        assert_same_bits(state[key], array)
    assert_same_bits(logits(found.model), logits(source.model))
    assert (found.name, found.labelling, found.preprocessing) == (
        source.name,
        source.labelling,
        source.preprocessing,
    )
    if name != "dinov2_without_scale" and name != "gated":
        assert found.model.config == source.model.config


def test_who_converts_is_told_of_blocks_that_names_do_not_tell_apart(tmp_path):
    told, unknown = convert(made("post_norm"), "timm", tmp_path / "out.npz").notes
    assert told.endswith("if it is built with norm_layer='rmsnorm', global_pool='max'")
    assert unknown == "timm has no block='post_norm': its answers will differ"
    (note,) = convert(made("rotary"), "timm", tmp_path / "out.npz").notes
    assert note == "timm has no positions='rotary': its answers will differ"
    (note,) = convert(made("tanh"), "timm", tmp_path / "out.npz").notes
    assert "act_layer='gelu_tanh', norm_layer=partial(LayerNorm, eps=1e-12)" in note
    assert not convert(made("plain"), "timm", tmp_path / "plain.npz").notes


@pytest.mark.parametrize(("target", "name"), NOT_KEPT)
def test_what_a_target_cannot_hold_is_refused_with_the_reason(tmp_path, target, name):
    with pytest.raises(ValueError, match=r"\[convert\] expected a model that .* can hold, got"):
        convert(made(name), target, tmp_path / f"out{ENDINGS[target][0]}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("target", ["torchvision", "google", "hugging-face"])
def test_without_the_record_the_names_alone_give_the_same_arrays(tmp_path, target):
    source, out = made("plain"), tmp_path / f"out{ENDINGS[target][0]}"
    convert(source, target, out)
    bare = tmp_path / "bare.npz"
    arrays = {name: stored.read() for name, stored in open_weights(out).arrays.items()}
    arrays.pop("__numpyvit_record__", None)
    np.savez(bare, **arrays)
    state = load_pretrained(bare, num_heads=3).model.state_dict()
    for key, array in source.model.state_dict().items():
        assert_same_bits(state[key], array)


def test_tokens_that_had_no_position_get_zeros_where_the_target_has_one_for_all(tmp_path):
    source = made("positions_of_patches")
    convert(source, "torchvision", tmp_path / "out.npz")
    positions = open_weights(tmp_path / "out.npz").arrays["encoder.pos_embedding"].read()
    assert not positions[:, 0].any()
    assert_same_bits(positions[:, 1:], source.model.state_dict()["pos_embed"])


def test_a_dinov2_has_a_layer_scale_of_ones_where_the_model_had_none(tmp_path):
    convert(made("dinov2_without_scale"), "hugging-face", tmp_path / "out")
    arrays = open_weights(tmp_path / "out").arrays
    for number in (1, 2):
        scale = arrays[f"dinov2.encoder.layer.1.layer_scale{number}.lambda1"].read()
        assert_same_bits(scale, np.ones(12, np.float32))


def test_a_folder_that_cannot_be_finished_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="full"):
        convert(made("plain"), "hugging-face", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_record_that_is_damaged_is_not_believed(tmp_path):
    convert(made("plain"), "timm", tmp_path / "out.npz")
    arrays = {name: s.read() for name, s in open_weights(tmp_path / "out.npz").arrays.items()}
    arrays["__numpyvit_record__"] = arrays["__numpyvit_record__"][:-9]
    np.savez(tmp_path / "damaged.npz", **arrays)
    with pytest.raises(WeightFileError, match="num_heads="):
        load_pretrained(tmp_path / "damaged.npz")


def test_a_record_that_says_something_else_than_the_arrays_is_an_error(tmp_path):
    convert(made("plain"), "timm", tmp_path / "out.npz")
    arrays = {name: s.read() for name, s in open_weights(tmp_path / "out.npz").arrays.items()}
    arrays["head.weight"] = arrays["head.weight"][:4]
    np.savez(tmp_path / "other.npz", **arrays)
    with pytest.raises(WeightFileError, match=r"head.weight: expected shape \(5, 12\), got \(4,"):
        load_pretrained(tmp_path / "other.npz")


def test_a_checkpoint_for_numpyvit_is_one_of_its_own(tmp_path):
    source = made("plain")
    convert(source, "numpyvit", tmp_path / "own.npz")
    saved = load_model(tmp_path / "own.npz")
    assert saved.labelling == source.labelling
    assert saved.preprocessing == source.preprocessing.to_dict()


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("plain", "ViTForImageClassification"),
        ("no_head", "ViTModel"),
        ("distilled", "DeiTForImageClassificationWithTeacher"),
        ("distilled_one_head", "DeiTForImageClassification"),
        ("dinov2", "Dinov2ForImageClassification"),
        ("registers", "Dinov2WithRegistersForImageClassification"),
    ],
)
def test_a_folder_for_hugging_face_names_the_class_that_opens_it(tmp_path, name, architecture):
    convert(made(name), "hugging-face", tmp_path / "folder")
    config = json.loads((tmp_path / "folder" / "config.json").read_text("utf-8"))
    assert config["architectures"] == [architecture]
    assert config["num_attention_heads"] == 3
    if name == "plain":
        assert config["id2label"] == {str(index): "abcde"[index] for index in range(5)}
        assert config["intermediate_size"] == 48
    metadata = open_weights(tmp_path / "folder").values
    assert metadata["metadata.format"] == "pt"


@pytest.mark.parametrize("name", PREPROCESSINGS)
def test_the_processors_file_is_read_back_as_nearly_the_same(name):
    rule = PREPROCESSINGS[name]
    fields, notes = hub_processor(rule)
    found = type(rule).from_hugging_face(fields)
    assert found.size == rule.size
    assert (found.mean, found.std) == (rule.mean, rule.std)
    if not notes:
        assert (found.mode, found.resize, found.filter) == (rule.mode, rule.resize, rule.filter)
        assert found.crop == rule.crop or rule.mode == "squash"
    elif rule.mode != "square":
        assert (found.mode, found.resize) == (rule.mode, rule.resize)


def test_what_the_library_would_compute_otherwise_is_noted(tmp_path):
    notes = convert(made("tanh"), "torchvision", tmp_path / "a.npz").notes
    assert any("gelu_tanh" in note for note in notes)
    assert any("1e-12" in note for note in notes)
    assert convert(made("plain"), "torchvision", tmp_path / "b.npz").notes == []
    assert any(
        "gelu" in note for note in convert(made("plain"), "google", tmp_path / "c.npz").notes
    )


def test_a_path_is_opened_with_the_options_given(tmp_path):
    convert(made("plain"), "timm", tmp_path / "a.safetensors")
    convert(tmp_path / "a.safetensors", "google", tmp_path / "b.npz", image_size=24)
    assert load_pretrained(tmp_path / "b.npz").model.config.image_size == 24
    with pytest.raises(ValueError, match="give them to load_pretrained"):
        convert(made("plain"), "timm", tmp_path / "c.npz", image_size=24)


@pytest.mark.parametrize(
    ("target", "out", "error", "message"),
    [
        ("tim", "a.npz", ValueError, "did you mean 'timm'"),
        ("timm", "a.bin", ValueError, r"ends in \.safetensors or \.npz, got 'a\.bin'"),
        ("numpyvit", "a.safetensors", ValueError, r"ends in \.npz"),
        ("timm", "none/a.npz", FileNotFoundError, "folder"),
        ("hugging-face", "none/a", FileNotFoundError, "folder"),
        ("hugging-face", "full", FileExistsError, "empty folder"),
    ],
)
def test_a_place_or_target_that_cannot_be_is_an_error(tmp_path, target, out, error, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").write_text("kept", "utf-8")
    with pytest.raises(error, match=message):
        convert(made("plain"), target, tmp_path / out)
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "kept"]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "empty").mkdir()
    convert(made("plain"), "hugging-face", tmp_path / "empty")
    assert load_pretrained(tmp_path / "empty").name == "plain"


def test_deit_tiny_goes_through_all_targets_and_back(tmp_path, shared_data):
    source = load_pretrained(shared_data / "deit_tiny")
    for target in TARGETS:
        out = tmp_path / f"{target}{ENDINGS[target][0]}"
        convert(source, target, out)
        found = load_pretrained(out)
        for key, array in source.model.state_dict().items():
            assert_same_bits(found.model.state_dict()[key], array)
        assert found.model.config == source.model.config
        assert found.labelling == source.labelling
