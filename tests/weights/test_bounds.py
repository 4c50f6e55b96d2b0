"""Sizes that a file claims, options that its arrays contradict, and what is said of a misfit."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tolerances import assert_same_bits

from numpyvit.data import PREPROCESSINGS
from numpyvit.models import Labelling, VisionTransformer, ViTConfig, save_model
from numpyvit.weights import WeightFileError, load_pretrained, open_weights, write_safetensors
from numpyvit.weights.dialects import Record, to_google, to_hugging_face, to_torchvision

SIZES = {"image_size": 8, "patch_size": 4, "embed_dim": 64, "depth": 2, "num_heads": 1}
SIZES |= {"mlp_ratio": 1.0, "num_classes": 3}
NAMES = ("a", "b", "c")


def random_model(rng, **options):
    return VisionTransformer(ViTConfig(**{**SIZES, **options}), rng=rng).eval()


@pytest.fixture
def state(rng):
    return dict(random_model(rng).state_dict())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.safetensors"


def opened(path, state, **options):
    write_safetensors(path, state)
    return load_pretrained(path, **options)


def hub_folder(folder, state, config, processor=None):
    folder.mkdir()
    write_safetensors(folder / "model.safetensors", state)
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor), "utf-8")
    return folder


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("depth", 10**9),
        ("num_registers", 10**9),
        ("image_size", 2_000_000),
        ("num_classes", 10**400),
        ("embed_dim", 1 << 40),
        ("in_channels", 10**9),
        ("mlp_ratio", 1e300),
        ("pre_logits", 10**9),
    ],
)
def test_sizes_beyond_any_model_are_no_configuration(name, value):
    with pytest.raises(ValueError, match=rf"\[ViTConfig\] expected {name} <= \d+, got"):
        ViTConfig(**{name: value})


@pytest.mark.parametrize("value", [10**400, "x" * 10**5])
def test_a_number_that_is_none_is_refused_in_few_words(value):
    with pytest.raises(ValueError, match="expected a finite number as norm_eps") as error:
        ViTConfig(norm_eps=value)
    assert len(str(error.value)) < 200


def recorded(model, **changes):
    """The record of a model, as metadata, with another configuration."""
    rule = PREPROCESSINGS["numpyvit"].at(8)
    labelling = Labelling(class_names=NAMES, mean=rule.mean, std=rule.std)
    record = json.loads(Record("mine", model.config, labelling, rule).to_text())
    record["config"] |= changes
    return {"numpyvit": json.dumps(record)}


@pytest.mark.parametrize("changes", [{"depth": 900}, {"embed_dim": 128}, {"num_registers": 9}])
def test_a_record_is_held_against_the_arrays(path, rng, monkeypatch, changes):
    model = random_model(rng)
    write_safetensors(path, model.state_dict(), recorded(model))
    assert load_pretrained(path).name == "mine"
    write_safetensors(path, model.state_dict(), recorded(model, **changes))
    if "depth" in changes:  # nothing is built first
        monkeypatch.setattr("numpyvit.weights.assembling.build_model", None)
    with pytest.raises(WeightFileError, match=r"expected 900 blocks .* got 2|do not fit"):
        load_pretrained(path)


def test_a_record_of_a_billion_blocks_is_not_believed(path, rng):
    model = random_model(rng)
    write_safetensors(path, model.state_dict(), recorded(model, depth=10**9))
    found = load_pretrained(path)
    assert found.model.config.depth == 2
    assert "cannot be read" in dict(found.report)["record"]


def own_checkpoint(path, model, **changes):
    """A checkpoint of numpyvit's own, with other values in its record; "a.b" is b in a."""
    save_model(path, "mine", model, Labelling(class_names=NAMES))
    arrays = {name: stored.read() for name, stored in open_weights(path).arrays.items()}
    record = json.loads(arrays["__numpyvit__"].tobytes())
    for name, value in changes.items():
        *outer, last = name.split(".")
        (record[outer[0]] if outer else record)[last] = value
    arrays["__numpyvit__"] = np.frombuffer(json.dumps(record).encode(), np.uint8)
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("depth", [3, 1000, 10**9])
def test_the_record_of_an_own_checkpoint_is_held_against_the_arrays(
    tmp_path, rng, monkeypatch, depth
):
    path = own_checkpoint(tmp_path / "own.npz", random_model(rng), **{"config.depth": depth})
    monkeypatch.setattr("numpyvit.models.saved.build_model", None)
    with pytest.raises(WeightFileError, match=r"weights of 3|weights of 1000|depth <= 1000"):
        load_pretrained(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"labelling.mean": [10**400]},
        {"labelling.class_names": ["x" * 10**5, "b", 3]},
        {"preprocessing": {"size": 10**400}},
        {"config.mlp": "x" * 10**5},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_cannot_be_in_an_own_checkpoint_is_refused_in_few_words(tmp_path, rng, changes):
    path = own_checkpoint(tmp_path / "own.npz", random_model(rng), **changes)
    with pytest.raises(WeightFileError) as error:
        load_pretrained(path)
    assert len(str(error.value)) < 500


def other_names(kind, model):
    config, state = model.config, dict(model.state_dict())
    if kind == "timm":
        return state, "pos_embed"
    if kind == "torchvision":
        return to_torchvision(config, state).arrays, "encoder.pos_embedding"
    if kind == "hugging face":
        return to_hugging_face(config, state).arrays, "vit.embeddings.position_embeddings"
    return to_google(config, state).arrays, "Transformer/posembed_input/pos_embedding"


@pytest.mark.parametrize("kind", ["timm", "torchvision", "hugging face", "google"])
def test_positions_that_are_missing_are_made_up_for_big_vision_alone(path, rng, kind):
    arrays, name = other_names(kind, random_model(rng))
    assert opened(path, arrays, num_heads=1).model.config.positions == "all"
    del arrays[name]
    with pytest.raises(WeightFileError, match=r"\n  pos_embed: missing\ngive the whole file"):
        opened(path, arrays, num_heads=1)


def simple_arrays(rng):
    """What a model of big_vision without stored positions has."""
    options = {"class_token": False, "pooling": "avg", "positions": "patches"}
    model = random_model(rng, **options)
    arrays = to_google(model.config, model.state_dict()).arrays
    del arrays["params/pos_embedding"]
    return arrays


@pytest.mark.parametrize("size", [2_000_000, 16_384])
def test_a_size_in_a_config_costs_no_memory(tmp_path, rng, size):
    folder = hub_folder(tmp_path / "hub", simple_arrays(rng), {"image_size": size})
    with pytest.raises(WeightFileError, match=r"image_size.*; say another image_size=\.\.\."):
        load_pretrained(folder)
    assert load_pretrained(folder, image_size=8).model.config.image_size == 8


def test_an_evaluation_of_a_monstrous_size_is_brought_to_the_models(tmp_path, rng):
    model = random_model(rng, layer_scale=1.0, pooling="token_avg")
    arrays = to_hugging_face(model.config, dict(model.state_dict())).arrays
    processor = {"size": {"shortest_edge": 16_000}, "crop_size": 16_000}
    folder = hub_folder(tmp_path / "hub", arrays, {"model_type": "dinov2"}, processor)
    assert load_pretrained(folder).model.config.image_size == 8


def test_too_little_memory_is_said_with_how_much_was_needed(path, state, monkeypatch):
    def fail(*_, **__):
        raise MemoryError("Unable to allocate 29.1 TiB")

    monkeypatch.setattr("numpyvit.weights.assembling.resize_positions", fail)
    with pytest.raises(WeightFileError, match=r"memory .*29\.1 TiB.*; the file's arrays take \d"):
        opened(path, state, image_size=16)


@pytest.mark.parametrize("dtype", ["bogus", "int8", "f4,f4", "object", "{"])
def test_a_type_that_is_no_float_is_refused(path, state, dtype):
    with pytest.raises(ValueError, match="expected a float type as dtype"):
        opened(path, state, dtype=dtype)


@pytest.mark.parametrize(
    "options",
    [
        {"positions": "patches"},
        {"depth": 1},
        {"embed_dim": 32},
        {"qkv_bias": False},
        {"class_token": False},
        {"num_registers": 2},
        {"mlp": "swiglu", "activation": "silu"},
        {"mlp_ratio": 2.0},
        {"layer_scale": 0.1},
        {"pooling": "map"},
        {"pooling": "token_avg"},
        {"distillation_token": True, "distillation_head": True},
        {"pre_logits": 8},
    ],
    ids=lambda options: next(iter(options)),
)
def test_an_option_that_the_arrays_contradict_names_the_file_and_itself(path, state, options):
    name = next(iter(options))
    with pytest.raises(ValueError, match=rf"expected {name}=.* leave out {name}$") as error:
        opened(path, state, **options)
    assert not isinstance(error.value, WeightFileError)
    assert str(path) in str(error.value)


def test_options_that_only_repeat_the_arrays_are_fine(path, rng):
    model = random_model(rng, layer_scale=0.5)
    options = {"positions": "all", "depth": 2, "mlp_ratio": 1, "layer_scale": 0.5}
    config = opened(path, model.state_dict(), **options).model.config
    assert config == model.config


def test_a_new_head_may_read_something_else(path, state):
    found = opened(path, state, num_classes=2, pooling="token_avg").model
    assert found.state_dict()["head.weight"].shape == (2, 128)


def test_an_option_stands_in_for_what_the_file_says_and_cannot_be(tmp_path, state):
    folder = hub_folder(tmp_path / "hub", state, {"model_args": {"num_heads": 0}})
    with pytest.raises(WeightFileError, match=r"say another num_heads=\.\.\.$"):
        load_pretrained(folder)
    assert load_pretrained(folder, num_heads=2).model.config.num_heads == 2
    folder = hub_folder(tmp_path / "eps", state, {"layer_norm_eps": float("nan")})
    with pytest.raises(WeightFileError, match=r"say another norm_eps=\.\.\.$"):
        load_pretrained(folder)
    assert load_pretrained(folder, norm_eps=1e-5).model.config.norm_eps == 1e-5


def test_advice_is_of_what_is_wrong_and_a_name_comes_once(path, rng):
    state = dict(random_model(rng).state_dict())
    lacking = {name: array for name, array in state.items() if name != "norm.bias"}
    with pytest.raises(WeightFileError, match=r"give the whole file$"):
        opened(path, lacking)
    extra = state | {"blocks.1.ls2.gamma": state["norm.bias"], "strange": np.ones(1)}
    extra["cls_token"] = extra["cls_token"][..., :32]
    with pytest.raises(WeightFileError, match=r"of a plain Vision Transformer$") as error:
        opened(path, extra)
    assert [str(error.value).count(name) for name in ("strange", "blocks.1.ls2.gamma")] == [1, 1]
    assert "num_heads" not in str(error.value)
    mixed = state | {"norm.weight": np.ones(7, np.float32)}
    with pytest.raises(WeightFileError, match=r"whose arrays are all of one model$"):
        opened(path, mixed)


def test_heads_of_another_width_are_to_be_said(tmp_path, rng):
    state = random_model(rng, qk_norm=True, num_heads=4).state_dict()
    folder = hub_folder(tmp_path / "hub", state, {"num_attention_heads": 2})
    with pytest.raises(WeightFileError, match=r"with num_heads=\.\.\."):
        load_pretrained(folder)
    found = load_pretrained(folder, num_heads=4)
    assert_same_bits(found.model.state_dict()["norm.bias"], state["norm.bias"])


def test_a_record_of_countless_parts_is_not_believed(tmp_path, rng):
    model = random_model(rng)
    text = recorded(model)["numpyvit"]
    parts = ",".join(["[]"] * (1 << 16))
    for entry, name in ((text, "mine"), (f'{text[:-1]}, "more": [{parts}]}}', "vit of width 64")):
        record = {"__numpyvit_record__": np.frombuffer(entry.encode(), np.uint8)}
        np.savez(tmp_path / "weights.npz", **model.state_dict(), **record)
        assert load_pretrained(tmp_path / "weights.npz").name.startswith(name)
