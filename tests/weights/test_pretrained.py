"""Opening pretrained models: what is inferred, replaced, resized, reported and refused."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits

from numpyvit.data import PREPROCESSINGS
from numpyvit.data.imagenet import imagenet_classes
from numpyvit.models import Labelling, VisionTransformer, ViTConfig, create_model, save_model
from numpyvit.nn import sincos_positions
from numpyvit.tensor import no_grad
from numpyvit.weights import (
    WeightFileError,
    load_pretrained,
    resize_patch_kernel,
    resize_positions,
    write_safetensors,
)
from numpyvit.weights.dialects import to_google

SIZES = {"image_size": 16, "patch_size": 4, "embed_dim": 64, "depth": 2, "num_heads": 1}


def random_model(rng, **options):
    model = VisionTransformer(ViTConfig(**{**SIZES, "num_classes": 5, **options}), rng=rng).eval()
    for parameter in model.parameters():
        parameter.data = rng.standard_normal(parameter.shape).astype(np.float32)
    return model


@pytest.fixture
def model(rng):
    return random_model(rng)


@pytest.fixture
def state(model):
    return dict(model.state_dict())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.safetensors"


def opened(path, state, **options):
    write_safetensors(path, state)
    return load_pretrained(path, **options)


def report(pretrained):
    return dict(pretrained.report)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_classes": 0},
        {"class_token": False, "pooling": "avg", "positions": "patches"},
        {"pooling": "avg", "head_norm": True, "final_norm": False},
        {"distillation_token": True, "distillation_head": True},
        {"num_registers": 4, "positions": "patches"},
        {"qkv_bias": False, "layer_scale": 1e-5},
        {"qk_norm": True, "num_heads": 4},
        {"pre_norm": True, "patch_bias": False, "norm_eps": 1e-5},
        {"mlp": "swiglu", "activation": "silu", "mlp_ratio": 1.5},
        {"class_token": False, "pooling": "map", "positions": "patches"},
        {"pooling": "token_avg"},
        {"pre_logits": 48},
        {"in_channels": 1, "image_size": 32, "patch_size": 8, "depth": 3},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_sizes_and_choices_are_told_by_names_and_shapes(path, rng, options):
    model = random_model(rng, **options)
    found = opened(path, model.state_dict())
    assert found.model.config == model.config
    for name, array in found.model.state_dict().items():
        assert_same_bits(array, model.state_dict()[name])
    assert not found.model.training
    assert len(found.labelling.class_names) == model.config.num_classes


@pytest.mark.parametrize(
    ("width", "heads"), [(192, 3), (384, 6), (1152, 16), (1280, 16), (1408, 16), (48, 4)]
)
def test_heads_are_those_of_published_models(path, rng, width, heads):
    model = random_model(rng, embed_dim=width, num_heads=heads, depth=1, mlp_ratio=0.25)
    assert opened(path, model.state_dict()).model.config.num_heads == heads


def test_heads_that_nothing_tells_are_asked_for(path, rng):
    state = random_model(rng, embed_dim=20, num_heads=5).state_dict()
    with pytest.raises(WeightFileError, match=r"width \(20\).*num_heads="):
        opened(path, state)
    assert opened(path, state, num_heads=5).model.config.num_heads == 5


def test_overrides_replace_what_was_inferred(path, state):
    found = opened(path, state, num_heads=4, norm_eps=1e-3, activation="relu", dropout=0.5)
    config = found.model.config
    assert (config.num_heads, config.norm_eps, config.activation, config.dropout) == (
        4, 1e-3, "relu", 0.5,
    )  # fmt: skip
    assert "norm_eps=0.001" in report(found)["asked for"]


def test_an_override_that_cannot_be_is_the_users_mistake(path, state):
    with pytest.raises(ValueError, match="5 heads divide") as error:
        opened(path, state, num_heads=5)
    assert not isinstance(error.value, WeightFileError)
    with pytest.raises(ValueError, match="did you mean 'num_heads'"):
        load_pretrained(path, heads=3)


def test_all_that_does_not_fit_is_listed_at_once(path, state):
    del state["blocks.1.norm1.bias"]
    state["norm.weight"] = np.ones(7, np.float32)
    state["blocks.0.attn.strange"] = np.ones(7, np.float32)
    with pytest.raises(WeightFileError) as error:
        opened(path, state)
    text = str(error.value)
    assert "blocks.1.norm1.bias: missing, expected shape (64,)" in text
    assert "norm.weight: expected shape (64,), got (7,)" in text
    assert "blocks.0.attn.strange: unexpected" in text


def test_a_long_list_is_cut(path, state):
    state |= {f"strange.{number}": np.ones(1, np.float32) for number in range(100)}
    with pytest.raises(WeightFileError, match="and 60 more"):
        opened(path, state)


def test_a_block_that_is_missing_is_named(path, rng):
    state = random_model(rng, depth=3).state_dict()
    state = {name: array for name, array in state.items() if not name.startswith("blocks.1.")}
    with pytest.raises(WeightFileError, match=r"blocks 0 to 2 .* none of number 1"):
        opened(path, state)


@pytest.mark.parametrize("name", ["blocks.0.attn.qkv.weight", "blocks.0.mlp.fc1.weight"])
def test_what_the_first_block_lacks_is_listed_not_guessed(path, state, name):
    del state[name]
    with pytest.raises(WeightFileError, match=f"{name}: missing"):
        opened(path, state)


def test_positions_of_no_square_are_refused(path, state):
    state["pos_embed"] = state["pos_embed"][:, :12]
    with pytest.raises(WeightFileError, match=r"a square of patches .* got 12 positions"):
        opened(path, state)


def test_positions_and_patches_are_resized_by_the_familys_rule(path, state):
    found = opened(path, state, image_size=24)
    assert found.model.config.image_size == found.preprocessing.size == 24
    expected = resize_positions(state["pos_embed"], 1, (6, 6), "timm")
    assert_same_bits(found.model.state_dict()["pos_embed"], expected)
    found = load_pretrained(path, patch_size=8)
    kernel = resize_patch_kernel(state["patch_embed.proj.weight"], (8, 8), "timm")
    assert_same_bits(found.model.state_dict()["patch_embed.proj.weight"], kernel)
    assert found.model.config.num_patches == 4


def test_an_image_size_that_no_patches_fill_is_the_users_mistake(path, state):
    with pytest.raises(ValueError, match="multiple of patch_size 4"):
        opened(path, state, image_size=18)


def test_a_new_head_is_drawn_from_its_seed(path, state):
    heads = [opened(path, state, num_classes=3, seed=seed).model.state_dict() for seed in (0, 0, 1)]
    assert_same_bits(heads[0]["head.weight"], heads[1]["head.weight"])
    assert not np.array_equal(heads[0]["head.weight"], heads[2]["head.weight"])
    assert 0 < np.abs(heads[0]["head.weight"]).max() < 0.1
    assert not heads[0]["head.bias"].any()
    assert_same_bits(heads[0]["norm.weight"], state["norm.weight"])
    assert load_pretrained(path, num_classes=3).labelling.class_names == (
        "class 0", "class 1", "class 2",
    )  # fmt: skip


def test_a_new_head_of_a_distilled_model_is_two_and_of_features_one(path, rng):
    model = random_model(rng, distillation_token=True, distillation_head=True)
    found = opened(path, model.state_dict(), num_classes=2).model.state_dict()
    assert found["head.weight"].shape == found["head_dist.weight"].shape == (2, 64)
    found = opened(path, random_model(rng, num_classes=0).state_dict(), num_classes=2)
    assert found.model.state_dict()["head.weight"].shape == (2, 64)


def test_the_head_can_be_left_out(path, state):
    found = opened(path, state, num_classes=0)
    assert found.model.config.num_classes == 0
    assert found.labelling.class_names == ()


def test_a_model_can_be_opened_in_float64(path, state):
    found = opened(path, state, dtype="float64").model
    assert found.dtype == np.float64
    assert all(array.dtype == np.float64 for array in found.state_dict().values())
    with pytest.raises(ValueError, match="float type"):
        load_pretrained(path, dtype="int8")


def test_infinite_weights_are_warned_of(path, state):
    state["norm.bias"] = np.full(64, np.nan, np.float32)
    state["head.bias"] = np.full(5, np.inf, np.float32)
    warning = report(opened(path, state))["warning"]
    assert warning.startswith("2 arrays have NaN or infinity")
    assert "norm.bias" in warning


def test_registers_that_dinov2_puts_in_behind_positions_become_timms_form(path, rng):
    model = random_model(rng, num_registers=2, positions="patches", num_classes=0)
    state = dict(model.state_dict())
    first = rng.standard_normal((1, 1, 64)).astype(np.float32)
    token = state["cls_token"] + first
    state["pos_embed"] = np.concatenate([first, state["pos_embed"]], axis=1)
    state["register_tokens"] = state.pop("reg_token")
    state["mask_token"] = np.zeros((1, 64), np.float32)
    found = opened(path, state)
    assert found.model.config.positions == "patches"
    assert_same_bits(found.model.state_dict()["cls_token"], token)
    assert report(found)["dropped"] == "the token of masked patches (1 array)"


def test_positions_that_are_not_stored_are_big_visions_sines(tmp_path, rng):
    path = tmp_path / "simple.npz"
    options = {"class_token": False, "pooling": "avg", "positions": "patches"}
    model = random_model(rng, activation="gelu_tanh", **options)
    arrays = to_google(model.config, model.state_dict()).arrays
    del arrays["params/pos_embedding"]
    np.savez(path, **arrays)
    found = load_pretrained(path, image_size=16)
    assert found.model.config == model.config
    assert "sines" in report(found)["positions"]
    positions = found.model.state_dict()["pos_embed"][0]
    assert_close(positions, sincos_positions(4, 64, "big_vision"), np.float32)
    assert load_pretrained(path).model.config.image_size == 224


def test_big_visions_sines_differ_from_maes_in_their_last_frequency():
    waves = sincos_positions(3, 8, "big_vision")
    assert waves.shape == (9, 8)
    # Row 1, column 2; frequencies 1 and 1/10000: sin x, cos x, sin y, cos y.
    angles = np.array([2, 2e-4, 2, 2e-4, 1, 1e-4, 1, 1e-4])
    waved = np.array([np.sin, np.sin, np.cos, np.cos] * 2)
    assert_close(waves[5], np.array([f(a) for f, a in zip(waved, angles, strict=True)]))


def test_an_evaluation_of_another_size_is_brought_to_the_models(tmp_path, state):
    config = {"architecture": "vit", "pretrained_cfg": {"input_size": [3, 18, 18]}}
    found = load_pretrained(hub_folder(tmp_path / "hub", state, config))
    assert found.preprocessing.size == found.model.config.image_size == 16
    assert ("resized", "the evaluation, from 18 to the model's 16 pixels") in found.report


def hub_folder(folder, state, config, processor=None):
    folder.mkdir()
    write_safetensors(folder / "model.safetensors", state)
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor), "utf-8")
    return folder


def test_a_hub_folder_of_timm_says_what_names_do_not(tmp_path, state):
    config = {
        "architecture": "vit_base_patch16_clip_quickgelu_224",
        "global_pool": "avg",
        "model_args": {"num_heads": 2},
        "label_names": ["n1", "n2", "n3", "n4", "n5"],
        "label_descriptions": {"n1": "one", "n3": "three"},
        "pretrained_cfg": {"input_size": [3, 16, 16], "crop_pct": 0.5, "mean": [0.1, 0.2, 0.3]},
    }
    found = load_pretrained(hub_folder(tmp_path / "hub", state, config))
    built = found.model.config
    assert (built.activation, built.pooling, built.num_heads) == ("quick_gelu", "avg", 2)
    assert built.norm_eps == 1e-5
    assert found.name == "vit_base_patch16_clip_quickgelu_224"
    assert found.labelling.class_names == ("one", "n2", "three", "n4", "n5")
    assert found.preprocessing.resize == 32
    assert found.labelling.mean == found.preprocessing.mean == (0.1, 0.2, 0.3)


@pytest.mark.parametrize("damage", [{"crop_mode": "border"}, {"mean": [1, 2]}, {"input_size": 7}])
def test_an_evaluation_that_cannot_be_followed_gives_way_to_the_familys(tmp_path, state, damage):
    cfg = {"input_size": [3, 16, 16], **damage}
    found = load_pretrained(
        hub_folder(tmp_path / "hub", state, {"architecture": "vit", "pretrained_cfg": cfg})
    )
    assert "could not be used" in report(found)["evaluation"]
    assert found.preprocessing == PREPROCESSINGS["timm_vit"].at(16)


def test_a_thousand_classes_are_imagenets_and_others_are_numbered(path, rng):
    names = opened(path, random_model(rng, num_classes=1000).state_dict()).labelling.class_names
    assert names == imagenet_classes()
    names = opened(path, random_model(rng, num_classes=3).state_dict()).labelling.class_names
    assert names == ("class 0", "class 1", "class 2")


def test_a_checkpoint_of_numpyvits_own_opens_and_can_be_changed(tmp_path, model):
    labelling = Labelling(class_names=tuple("abcde"), mean=(0.1, 0.2, 0.3))
    save_model(tmp_path / "own.npz", "mine", model, labelling)
    found = load_pretrained(tmp_path / "own.npz")
    assert (found.name, found.labelling, found.model.config) == ("mine", labelling, model.config)
    assert found.preprocessing.mode == "square"
    assert found.preprocessing.mean == labelling.mean
    for name, array in found.model.state_dict().items():
        assert_same_bits(array, model.state_dict()[name])
    found = load_pretrained(tmp_path / "own.npz", num_classes=2, image_size=24)
    assert found.model.config.num_classes == 2
    assert found.preprocessing.size == 24
    found = load_pretrained(tmp_path / "own.npz", dtype="float64")
    assert found.model.dtype == np.float64


def test_the_preprocessing_of_an_own_checkpoint_is_its_own(tmp_path, model):
    kept = PREPROCESSINGS["timm_deit"].at(16)
    labelling = Labelling(class_names=tuple("abcde"), mean=kept.mean, std=kept.std)
    save_model(tmp_path / "last.npz", "mine", model, labelling, preprocessing=kept.to_dict())
    assert load_pretrained(tmp_path / "last.npz").preprocessing == kept
    (tmp_path / "config.json").write_text("{}", "utf-8")
    assert load_pretrained(tmp_path).name == "mine"  # a run's folder


def test_the_packaged_model_opens(repository):
    file = repository / "numpyvit" / "models" / "pretrained" / "vit_cifar_patch4_32.npz"
    found = load_pretrained(file)
    expected = create_model("vit_cifar_patch4_32", pretrained=True).eval()
    images = np.zeros((1, 3, 32, 32), np.float32)
    with no_grad():
        assert_same_bits(found.model(images).data, expected(images).data)


def test_nothing_at_a_path_is_no_damaged_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_pretrained(tmp_path / "none.safetensors")


def test_one_copy_of_the_weights_is_in_memory(path, rng):
    model = random_model(rng, embed_dim=192, num_heads=3, depth=8)
    write_safetensors(path, model.state_dict())
    size = 4 * model.num_parameters()
    del model
    load_pretrained(path)  # what is imported later is no weight
    tracemalloc.start()
    found = load_pretrained(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.model.num_parameters() * 4 == size
    assert peak < 1.2 * size


def test_the_description_has_a_line_for_each_finding(path, state):
    found = opened(path, state)
    lines = found.describe().splitlines()
    assert len(lines) == len(found.report)
    for topic in ("dialect", "heads", "images", "pooling", "preprocessing", "classes"):
        assert any(line.startswith(topic) for line in lines)


PHOTOS = {
    "n01443537_goldfish.jpg": {"goldfish"},
    "n01614925_bald_eagle.jpg": {"bald eagle"},
    "n02099601_golden_retriever.jpg": {"golden retriever"},
    "n02391049_zebra.jpg": {"zebra"},
    "n04285008_sports_car.jpg": {"sports car"},
    "n07920052_espresso.jpg": {"espresso"},
    "n02123045_tabby.jpg": {"tabby", "tiger cat", "Egyptian cat", "Persian cat", "Siamese cat"},
    "two_cats.png": {"tabby", "tiger cat", "Egyptian cat", "Persian cat", "Siamese cat"},
}


def test_deit_tiny_knows_the_photos(shared_data):
    pytest.importorskip("PIL")
    found = load_pretrained(shared_data / "deit_tiny")
    assert found.name == "deit_tiny_patch16_224"
    assert found.preprocessing == PREPROCESSINGS["timm_deit"]
    rule = found.preprocessing
    pictures = [rule(rule.load(shared_data / "photos" / name)) for name in PHOTOS]
    with no_grad():
        best = found.model(np.stack(pictures)).data.argmax(1)
    for index, expected in zip(best, PHOTOS.values(), strict=True):
        assert found.labelling.class_names[index] in expected


def test_another_preprocessing_takes_the_place_of_the_familys(path, state):
    found = opened(path, state, preprocessing="deit")
    assert found.preprocessing == PREPROCESSINGS["deit"].at(16)
    assert found.labelling.mean == PREPROCESSINGS["deit"].mean
    assert report(found)["evaluation"] == "as asked for"
    own = PREPROCESSINGS["numpyvit"].at(16)
    assert load_pretrained(path, preprocessing=own).preprocessing == own
    with pytest.raises(ValueError, match="unknown preprocessing 'diet'; did you mean 'deit'"):
        load_pretrained(path, preprocessing="diet")
