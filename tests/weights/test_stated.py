"""What a config says of its model: followed, refused, or held against what the arrays are."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits

from numpyvit.models import Labelling, VisionTransformer, ViTConfig
from numpyvit.nn import activation
from numpyvit.weights import WeightFileError, load_pretrained, write_safetensors
from numpyvit.weights.dialects import (
    hub_config,
    to_google,
    to_hugging_face,
    to_torchvision,
)

SIZES = {"image_size": 16, "patch_size": 4, "embed_dim": 64, "depth": 2, "num_heads": 1}


def random_model(rng, **options):
    return VisionTransformer(ViTConfig(**{**SIZES, "num_classes": 5, **options}), rng=rng).eval()


def folder_of(path, state, config):
    path.mkdir(exist_ok=True)
    write_safetensors(path / "model.safetensors", state)
    (path / "config.json").write_text(json.dumps(config), "utf-8")
    return path


@pytest.fixture
def state(rng):
    return dict(random_model(rng).state_dict())


@pytest.fixture
def timm(tmp_path, state):
    """Opens the same weights with other model_args (and outer entries)."""

    def opened(args=None, config=None, arrays=None, **options):
        given = {"architecture": "vit", "model_args": args or {}, **(config or {})}
        return load_pretrained(folder_of(tmp_path / "timm", arrays or state, given), **options)

    return opened


@pytest.fixture
def hub(tmp_path, rng):
    """Opens weights in Hugging Face's names with a config of which some entries are other ones."""
    model = random_model(rng)
    arrays = to_hugging_face(model.config, dict(model.state_dict())).arrays

    def opened(changes=None, lacking=(), **options):
        config = {
            "model_type": "vit", "hidden_size": 64, "num_hidden_layers": 2, "patch_size": 4,
            "num_attention_heads": 1, "intermediate_size": 256, "image_size": 16,
            "num_channels": 3, "qkv_bias": True, "layer_norm_eps": 1e-12, "hidden_act": "gelu",
            "architectures": ["ViTForImageClassification"],
            "id2label": {str(number): f"LABEL_{number}" for number in range(5)},
            **(changes or {}),
        }  # fmt: skip
        kept = {name: array for name, array in arrays.items() if name not in lacking}
        return load_pretrained(folder_of(tmp_path / "hub", kept, config), **options)

    return opened


def test_pictures_that_are_no_squares_are_refused(timm, hub):
    refused = "square pictures .* rectangular pictures are not supported yet"
    with pytest.raises(WeightFileError, match=refused):
        timm({"img_size": [8, 32]})
    with pytest.raises(WeightFileError, match=refused):
        timm(config={"pretrained_cfg": {"input_size": [3, 8, 32]}})
    with pytest.raises(WeightFileError, match=refused):
        hub({"image_size": [8, 32]})
    assert timm({"img_size": [16, 16]}).model.config.image_size == 16
    assert hub({"image_size": [16, 16]}).model.config.image_size == 16


def test_a_size_that_the_positions_are_not_of_is_said(timm, hub):
    with pytest.raises(WeightFileError, match=r"img_size: 32 in the config, but .* 17 positions"):
        timm({"img_size": 32})
    with pytest.raises(WeightFileError, match="image_size: 32 in the config"):
        hub({"image_size": 32})
    # timm itself resizes to the size of the evaluation.
    found = timm(config={"pretrained_cfg": {"input_size": [3, 32, 32]}})
    assert found.model.config.image_size == 16
    assert "input_size: 32" in dict(found.report)["warning"]


def test_pixels_that_no_patch_takes_are_said(timm):
    found = timm({"img_size": 18})
    assert found.model.config.image_size == 16
    assert "of the 18 in img_size, 2 are left over" in dict(found.report)["images"]
    assert "left over" not in dict(timm({"img_size": 16}).report)["images"]


@pytest.mark.parametrize("pool", ["mean", "avgmax", "", "prr", 3, ["avg"]])
def test_pooling_that_is_not_known_is_refused(timm, pool):
    expected = "global_pool out of token, avg, max, map .* say another pooling"
    with pytest.raises(WeightFileError, match=expected):
        timm({"global_pool": pool})
    with pytest.raises(WeightFileError, match=expected):
        timm(config={"global_pool": pool})
    assert timm({"global_pool": pool}, pooling="avg").model.config.pooling == "avg"


def test_no_pooling_is_fine_without_a_head(timm, rng):
    state = random_model(rng, num_classes=0).state_dict()
    assert timm({"global_pool": ""}, arrays=state).model.config.pooling == "token"
    with pytest.raises(WeightFileError, match="global_pool"):
        timm({"global_pool": "mean"}, arrays=state)
    assert timm({"global_pool": "max"}, arrays=state).model.config.pooling == "max"


def test_pooling_by_attention_that_the_config_denies_is_said(timm, rng):
    state = random_model(rng, class_token=False, pooling="map", positions="patches").state_dict()
    with pytest.raises(WeightFileError, match="global_pool: avg in the config, map in the arrays"):
        timm({"global_pool": "avg"}, arrays=state)


@pytest.mark.parametrize(
    "option",
    [
        {"pool_include_prefix": True},
        {"norm_layer": "rmsnorm"},
        {"mlp_layer": "swiglu"},
        {"block_fn": "parallel"},
        {"attn_layer": "diff"},
        {"pos_embed": "none"},
        {"scale_attn_norm": True},
        {"scale_mlp_norm": True},
        {"proj_bias": False},
        {"embed_norm_layer": "layernorm"},
        {"something_new": 1},
    ],
    ids=lambda option: next(iter(option)),
)
def test_options_that_change_the_model_are_refused_by_name(timm, option):
    with pytest.raises(WeightFileError, match=f"got {next(iter(option))}="):
        timm(option)


def test_options_that_change_nothing_pass(timm):
    found = timm(
        {
            "drop_rate": 0.5, "drop_path_rate": 0.1, "weight_init": "skip", "fix_init": True,
            "dynamic_img_size": True, "pool_include_prefix": False, "pos_embed": "learn",
            "proj_bias": True, "norm_layer": None, "attn_layer": "attn", "img_size": 16,
            "patch_size": [4, 4], "embed_dim": 64, "depth": 2, "num_heads": 1, "mlp_ratio": 4.0,
            "qkv_bias": True, "qk_norm": False, "init_values": None, "class_token": True,
            "reg_tokens": 0, "no_embed_class": False, "in_chans": 3, "num_classes": 5,
        }
    )  # fmt: skip
    assert found.model.config.num_classes == 5
    assert found.model.config.norm_eps == 1e-6


def test_a_norm_by_name_is_timms_own_whose_epsilon_is_1e_6(timm):
    config = {"architecture": "vit_base_patch16_clip_224"}
    assert timm(config=config).model.config.norm_eps == 1e-5
    assert timm({"norm_layer": "layernorm"}, config).model.config.norm_eps == 1e-6


@pytest.mark.parametrize(
    "option",
    [
        {"embed_dim": 32}, {"depth": 3}, {"patch_size": 8}, {"in_chans": 1}, {"num_classes": 3},
        {"mlp_ratio": 3}, {"mlp_ratio": "4"}, {"qkv_bias": False}, {"qk_norm": True},
        {"class_token": False}, {"reg_tokens": 4}, {"pre_norm": True}, {"init_values": 1e-5},
        {"no_embed_class": True},
    ],
    ids=lambda option: next(iter(option)),
)  # fmt: skip
def test_options_that_the_arrays_contradict_are_listed(timm, option):
    ((key, value),) = option.items()
    with pytest.raises(WeightFileError, match=f"{key}: {value!r} in the config, .* in the arrays"):
        timm(option)


@pytest.mark.parametrize(
    "change",
    [
        {"num_hidden_layers": 3}, {"hidden_size": 768}, {"intermediate_size": 128},
        {"patch_size": 8}, {"num_channels": 1}, {"qkv_bias": False}, {"num_labels": 2},
        {"id2label": {"0": "a", "1": "b"}},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_a_config_that_the_arrays_contradict_is_listed(hub, change):
    with pytest.raises(WeightFileError, match=f"{next(iter(change))}: .* in the config, "):
        hub(change)


def test_a_new_head_makes_the_files_of_no_interest(hub, timm):
    assert hub({"num_labels": 2}, num_classes=3).model.config.num_classes == 3
    assert timm({"num_classes": 2}, num_classes=3).model.config.num_classes == 3
    lacking = ("classifier.weight", "classifier.bias")
    assert hub(lacking=lacking, num_classes=3).model.config.num_classes == 3


def test_a_head_that_is_missing_is_not_taken_for_a_model_without_one(hub, timm, rng):
    lacking = ("classifier.weight", "classifier.bias")
    with pytest.raises(WeightFileError, match=r"architectures: .* no head in the arrays"):
        hub(lacking=lacking)
    assert hub({"architectures": ["ViTModel"]}, lacking).model.config.num_classes == 0
    with pytest.raises(WeightFileError, match="num_classes: 5 in the config, 0 in the arrays"):
        timm(config={"num_classes": 5}, arrays=random_model(rng, num_classes=0).state_dict())


@pytest.mark.parametrize("mlp", ["mlp", "swiglu"])
def test_a_config_that_is_right_passes(tmp_path, rng, mlp):
    options = {"mlp_ratio": 176 / 64, "activation": "silu"} if mlp == "swiglu" else {}
    model = random_model(rng, mlp=mlp, layer_scale=1.0, pooling="token_avg", **options)
    arrays = to_hugging_face(model.config, dict(model.state_dict())).arrays
    labelling = Labelling(class_names=tuple("abcde"))
    config = json.loads(json.dumps(hub_config(model.config, labelling)))
    found = load_pretrained(folder_of(tmp_path / "model", arrays, config), image_size=16)
    assert found.model.config.mlp_dim == model.config.mlp_dim
    config["mlp_ratio"] = 5
    with pytest.raises(WeightFileError, match="mlp_ratio: 5 in the config"):
        load_pretrained(folder_of(tmp_path / "model", arrays, config))
    config |= {"mlp_ratio": None, "use_swiglu_ffn": mlp == "mlp"}
    with pytest.raises(WeightFileError, match="use_swiglu_ffn: "):
        load_pretrained(folder_of(tmp_path / "model", arrays, config))


@pytest.mark.parametrize("target", ["torchvision", "hugging face", "google"])
def test_a_last_norm_that_every_model_has_cannot_be_left_out(tmp_path, rng, target):
    model, path = random_model(rng), tmp_path / "weights.safetensors"
    write = {"torchvision": to_torchvision, "hugging face": to_hugging_face, "google": to_google}
    arrays = write[target](model.config, dict(model.state_dict())).arrays
    last = ("encoder.ln.", "vit.layernorm.", "Transformer/encoder_norm/")
    kept = {name: array for name, array in arrays.items() if not name.startswith(last)}
    assert len(kept) == len(arrays) - 2
    write_safetensors(path, kept)
    with pytest.raises(WeightFileError, match=r"norm\.weight: missing"):
        load_pretrained(path)


def test_a_model_of_timms_names_without_a_last_norm_is_warned_of(tmp_path, state, timm):
    kept = {name: array for name, array in state.items() if not name.startswith("norm.")}
    found = timm(arrays=kept)
    assert not found.model.config.final_norm
    assert "no norm before the head" in dict(found.report)["warning"]
    assert "warning" not in dict(timm({"final_norm": False}, arrays=kept).report)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("gelu_python", "gelu"),
        ("gelu_fast", "gelu_tanh"),
        ("gelu_accurate", "gelu_tanh"),
        ("gelu_python_tanh", "gelu_tanh"),
    ],
)
def test_other_names_of_gelu_are_known(hub, name, ours):
    assert hub({"hidden_act": name}).model.config.activation == ours


def test_the_rounded_constant_of_gelu_fast_makes_no_difference():
    x = np.linspace(-6, 6, 241, dtype=np.float32)
    theirs = 0.5 * x * (1 + np.tanh(x * 0.7978845608 * (1 + 0.044715 * x * x)))
    assert_close(activation("gelu_tanh")(x), theirs, np.float32)


def test_an_unknown_activation_is_refused_unless_another_is_asked_for(hub):
    with pytest.raises(WeightFileError, match="got 'mish'; say another activation"):
        hub({"hidden_act": "mish"})
    assert hub({"hidden_act": "mish"}, activation="relu").model.config.activation == "relu"


@pytest.mark.parametrize("eps", [0, 1, -1e-6, 5, "1e-6", True, float("nan")])
def test_an_epsilon_that_cannot_be_is_refused(hub, eps):
    with pytest.raises(WeightFileError, match="layer_norm_eps between 0 and 1"):
        hub({"layer_norm_eps": eps})


def test_an_epsilon_in_the_config_is_followed(hub):
    assert hub({"layer_norm_eps": 0.125}).model.config.norm_eps == 0.125
    assert hub({"layer_norm_eps": None}).model.config.norm_eps == 1e-12


def test_blocks_without_biases_are_refused_in_one_line(timm, state):
    endings = tuple(f"{layer}.bias" for layer in ("attn.proj", "mlp.fc1", "mlp.fc2"))
    kept = {name: array for name, array in state.items() if not name.endswith(endings)}
    with pytest.raises(WeightFileError, match="proj_bias=False") as error:
        timm(arrays=kept)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.parametrize("layer_scale", [0.0, 1e-5])
@pytest.mark.parametrize("block", ["pre_norm", "parallel", "parallel_things"])
def test_blocks_and_norms_are_known_by_their_names(timm, rng, block, norm, layer_scale):
    model = random_model(rng, block=block, norm=norm, layer_scale=layer_scale, qk_norm=True)
    found = timm(arrays=model.state_dict()).model
    assert found.config == model.config
    for name, array in model.state_dict().items():
        assert_same_bits(found.state_dict()[name], array)


def test_other_blocks_of_the_same_names_are_taken_as_asked_for(timm, rng):
    model = random_model(rng, block="res_post_norm", pooling="max")
    found = timm(arrays=model.state_dict(), block="res_post_norm", pooling="max").model
    assert found.config == model.config


def test_arrays_that_a_respost_model_has_too_are_warned_of(timm, rng):
    options = {"class_token": False, "pooling": "avg", "positions": "patches"}
    options |= {"head_norm": True, "final_norm": False}
    rare = random_model(rng, qkv_bias=False, **options).state_dict()
    assert "rpn" in dict(timm(arrays=rare).report)["warning"]
    usual = random_model(rng, **options).state_dict()
    assert "warning" not in dict(timm(arrays=usual).report)


def test_heads_of_the_tutorials_width_are_said_to_be_the_tutorials(tmp_path, rng):
    write_safetensors(tmp_path / "w", random_model(rng, embed_dim=48, num_heads=4).state_dict())
    text = dict(load_pretrained(tmp_path / "w").report)["heads"]
    assert text == "4: the tutorial's CIFAR model of width 48"


def test_a_head_beside_its_backbone_is_used_and_said(tmp_path, rng):
    model = random_model(rng)
    state = {f"state_dict.model.{n}": a for n, a in model.state_dict().items() if "head" not in n}
    state |= {f"state_dict.head.{k}": model.state_dict()[f"head.{k}"] for k in ("weight", "bias")}
    write_safetensors(tmp_path / "w", state)
    found = load_pretrained(tmp_path / "w")
    assert found.model.config.num_classes == 5
    assert "beside the model" in dict(found.report)["head"]
