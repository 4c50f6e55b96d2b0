"""VisionTransformer, its configuration and its named variants."""

from __future__ import annotations

import copy
import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits

from numpyvit import Tensor, create_model, functional, gradients, list_models, nn, no_grad
from numpyvit.backend import to_device
from numpyvit.models import (
    VisionTransformer,
    ViTConfig,
    count_multiply_adds,
    count_parameters,
    model_config,
)

SMALL = ViTConfig(image_size=8, patch_size=4, num_classes=5, embed_dim=12, depth=3, num_heads=3)

# As timm 1.0.29 counts them; the first is the tutorial's own number, H/14 has 1,000 classes here.
PUBLISHED = {
    "vit_cifar_patch4_32": 119_098,
    "vit_tiny_patch16_224": 5_717_416,
    "vit_tiny_patch16_384": 5_790_376,
    "vit_small_patch32_224": 22_878_952,
    "vit_small_patch16_224": 22_050_664,
    "vit_small_patch16_384": 22_196_584,
    "vit_base_patch32_224": 88_224_232,
    "vit_base_patch32_384": 88_297_192,
    "vit_base_patch16_224": 86_567_656,
    "vit_base_patch16_384": 86_859_496,
    "vit_base_patch8_224": 86_576_872,
    "vit_large_patch32_384": 306_632_680,
    "vit_large_patch16_224": 304_326_632,
    "vit_large_patch16_384": 304_715_752,
    "vit_huge_patch14_224": 632_045_800,
    "vit_giant_patch14_224": 1_012_611_432,
    "vit_gigantic_patch14_224": 1_844_440_680,
    "deit_tiny_distilled_patch16_224": 5_910_800,
    "deit_small_distilled_patch16_224": 22_436_432,
    "deit_base_distilled_patch16_224": 87_338_192,
    "deit_base_distilled_patch16_384": 87_630_032,
    "deit3_small_patch16_224": 22_059_496,
    "deit3_medium_patch16_224": 38_849_512,
    "deit3_base_patch16_224": 86_585_320,
    "deit3_large_patch16_224": 304_374_760,
    "deit3_huge_patch14_224": 632_126_440,
    "vit_small_patch14_dinov2": 22_056_192,
    "vit_base_patch14_dinov2": 86_579_712,
    "vit_large_patch14_dinov2": 304_367_616,
    "vit_giant_patch14_dinov2": 1_136_479_232,
    "vit_small_patch14_reg4_dinov2": 22_057_344,
    "vit_base_patch14_reg4_dinov2": 86_582_016,
    "vit_large_patch14_reg4_dinov2": 304_370_688,
    "vit_giant_patch14_reg4_dinov2": 1_136_483_840,
    "vit_base_patch16_siglip_224": 92_884_224,
    "vit_base_patch16_siglip_384": 93_176_064,
    "vit_large_patch16_siglip_256": 315_956_224,
    "vit_so400m_patch14_siglip_224": 427_680_704,
    "vit_base_patch16_clip_224": 86_568_424,
    "vit_large_patch14_clip_224": 304_204_776,
}


def small_model(**overrides: Any) -> VisionTransformer:
    return VisionTransformer(SMALL.replace(**overrides), rng=np.random.default_rng(0))


def images(count: int = 4, dtype: str = "float32", device: str = "cpu") -> Any:
    array = np.random.default_rng(1).standard_normal((count, 3, 8, 8)).astype(dtype)
    return to_device(array, device)


@pytest.mark.parametrize(("name", "count"), PUBLISHED.items())
def test_the_variants_have_the_published_numbers_of_parameters(name: str, count: int) -> None:
    assert count_parameters(model_config(name)) == count


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"qkv_bias": False},
        {"final_norm": False},
        {"mlp_ratio": 2.5, "in_channels": 1, "patch_size": 2},
        {"depth": 1, "num_classes": 1},
        {"num_classes": 0, "head_norm": True, "final_norm": False},
        {"class_token": False, "pooling": "map", "positions": "patches", "qk_norm": True},
        {"distillation_token": True, "distillation_head": True, "num_registers": 2},
        {"mlp": "swiglu", "activation": "silu", "layer_scale": 0.1},
        {"pooling": "token_avg", "pre_logits": 7},
        {"pre_norm": True, "patch_bias": False},
    ],
)
def test_parameters_are_counted_without_drawing_any(overrides: Any) -> None:
    model = small_model(**overrides)
    assert count_parameters(model.config) == model.num_parameters()


def test_multiply_adds_are_counted_for_every_part() -> None:
    def more(**overrides: Any) -> int:
        return count_multiply_adds(SMALL.replace(**overrides)) - count_multiply_adds(SMALL)

    d, m, n = 12, 48, 5
    assert more(mlp="swiglu", activation="silu") == 3 * n * d * m
    assert more(pre_logits=7) == d * 7 + 7 * 5 - d * 5
    assert more(pooling="token_avg") == d * 5
    patches = 4  # which the pool reads alone
    assert more(pooling="map") == patches * (2 * d * d + 2 * d) + 2 * d * d + 2 * d * m
    one_more_token = 3 * (4 * d * d + 2 * d * m + 2 * d * (6 * 6 - 5 * 5))
    assert more(num_registers=1) == one_more_token
    assert more(distillation_token=True, distillation_head=True) == one_more_token + d * 5


def test_the_tiny_models_parameters_are_those_of_its_count() -> None:
    for name in ("vit_cifar_patch4_32", "vit_tiny_patch16_224"):
        assert create_model(name).num_parameters() == PUBLISHED[name]


def test_vit_base_takes_17_56_billion_multiply_adds() -> None:
    count = count_multiply_adds(model_config("vit_base_patch16_224"))
    assert round(count / 1e9, 2) == 17.56


def test_multiply_adds_are_those_of_the_matrix_products() -> None:
    d, n, m = 12, 5, 48
    projections = n * d * 3 * d + n * d * d + 2 * n * d * m
    expected = 4 * 48 * d + 3 * (projections + 2 * n * n * d) + d * 5
    assert count_multiply_adds(SMALL) == expected


def test_parameters_have_timms_names_and_layouts() -> None:
    shapes = {name: array.shape for name, array in small_model(depth=1).state_dict().items()}
    assert shapes == {
        "cls_token": (1, 1, 12),
        "pos_embed": (1, 5, 12),
        "patch_embed.proj.weight": (12, 3, 4, 4),
        "patch_embed.proj.bias": (12,),
        "blocks.0.norm1.weight": (12,),
        "blocks.0.norm1.bias": (12,),
        "blocks.0.attn.qkv.weight": (36, 12),
        "blocks.0.attn.qkv.bias": (36,),
        "blocks.0.attn.proj.weight": (12, 12),
        "blocks.0.attn.proj.bias": (12,),
        "blocks.0.norm2.weight": (12,),
        "blocks.0.norm2.bias": (12,),
        "blocks.0.mlp.fc1.weight": (48, 12),
        "blocks.0.mlp.fc1.bias": (48,),
        "blocks.0.mlp.fc2.weight": (12, 48),
        "blocks.0.mlp.fc2.bias": (12,),
        "norm.weight": (12,),
        "norm.bias": (12,),
        "head.weight": (5, 12),
        "head.bias": (5,),
    }


def test_the_tiny_model_is_as_specified() -> None:
    config = model_config("vit_cifar_patch4_32")
    assert config == ViTConfig(
        image_size=32,
        patch_size=4,
        num_classes=10,
        embed_dim=48,
        depth=4,
        num_heads=4,
        mlp_ratio=4.0,
        qkv_bias=True,
        activation="gelu_tanh",
        final_norm=False,
        dropout=0.1,
        attention_dropout=0.1,
    )
    assert (config.num_patches, config.num_tokens, config.mlp_dim) == (64, 65, 192)
    assert "norm.weight" not in create_model("vit_cifar_patch4_32").state_dict()


def test_a_seed_means_the_same_weights_every_time() -> None:
    first, again, other = (create_model("vit_cifar_patch4_32", seed=seed) for seed in (1, 1, 2))
    for name, array in first.state_dict().items():
        assert_same_bits(again.state_dict()[name], array)
    assert (other.head.weight.data != first.head.weight.data).any()


def test_attention_maps_are_distributions_and_each_samples_own(device: str) -> None:
    out = small_model().to(device).eval()(images(device=device), return_attention=True)
    assert len(out.attention) == 3
    assert out.hidden_states == []
    for weights in out.attention:
        assert weights.shape == (4, 3, 5, 5)
        assert_close(weights.sum(-1), np.ones((4, 3, 5), np.float32))
        for sample in range(1, 4):
            assert (weights.data[sample] != weights.data[0]).any()


def test_hidden_states_are_the_tokens_before_and_after_every_block(device: str) -> None:
    model, batch = small_model().to(device).eval(), images(device=device)
    out = model(batch, return_hidden_states=True)
    assert out.attention == []
    assert [state.shape for state in out.hidden_states] == [(4, 5, 12)] * 4
    for block, before, after in zip(
        model.blocks, out.hidden_states, out.hidden_states[1:], strict=False
    ):
        assert_close(block(before), after)
    assert_close(model.forward_features(batch), model.norm(out.hidden_states[-1]))


@pytest.mark.parametrize("what", [{"return_attention": True}, {"return_hidden_states": True}])
def test_asking_for_intermediates_does_not_change_the_logits(
    what: Any, dtype: np.dtype, device: str
) -> None:
    model, batch = small_model().to(dtype, device).eval(), images(4, dtype.name, device)
    plain = model(batch)
    assert isinstance(plain, Tensor)
    assert_close(model(batch, **what).logits, plain)


def test_a_sample_does_not_depend_on_its_batch(device: str) -> None:
    model = small_model().to("float64", device).eval()
    batch = images(4, "float64", device)
    together = model(batch)
    for sample in range(4):
        assert_close(model(batch[sample : sample + 1]), together.data[sample : sample + 1])


def test_eval_switches_dropout_off(device: str) -> None:
    model = small_model(dropout=0.3, attention_dropout=0.3, drop_path=0.3).to(device)
    batch = images(device=device)
    assert (model(batch).data != model(batch).data).any()
    model.eval()
    assert_same_bits(model(batch), model(batch))


def test_a_generator_makes_training_repeatable_in_every_thread() -> None:
    model = small_model(dropout=0.3, attention_dropout=0.3, drop_path=0.3)

    def run(seed: int) -> np.ndarray:
        with nn.use_generator(np.random.default_rng(seed)):
            return model(images()).data

    alone = [run(seed) for seed in range(12)]
    assert (alone[0] != alone[1]).any()
    with ThreadPoolExecutor(2) as pool:
        for found, expected in zip(pool.map(run, range(12)), alone, strict=True):
            assert_same_bits(found, expected)


def test_the_rate_of_drop_path_rises_linearly_with_depth() -> None:
    rates = [block.drop_path.p for block in small_model(drop_path=0.2).blocks]
    assert_close(np.array(rates), np.array([0, 0.1, 0.2]))
    assert small_model(depth=1, drop_path=0.2).blocks[0].drop_path.p == 0


def test_a_deep_copy_of_a_model_is_independent() -> None:
    model = small_model()
    other = copy.deepcopy(model)
    before = model(images()).data
    for parameter in other.parameters():
        parameter.data += 1
    assert_same_bits(model(images()), before)
    assert (other(images()).data != before).any()


def test_weights_go_from_one_model_to_another() -> None:
    model, other = small_model(), VisionTransformer(SMALL, rng=np.random.default_rng(9))
    other.load_state_dict(model.state_dict())
    assert_same_bits(other(images()), model(images()))


def test_inference_records_nothing() -> None:
    model = small_model()
    with no_grad():
        assert not model(images()).requires_grad
    assert model(images()).requires_grad


def test_with_a_frozen_backbone_only_the_head_is_trained(device: str) -> None:
    model = small_model().to(device).requires_grad_(False)
    model.head.requires_grad_()
    batch, labels = images(device=device), to_device(np.array([0, 1, 2, 3]), device)
    functional.cross_entropy(model(batch), labels).backward()
    trained = [name for name, p in model.named_parameters() if p.grad is not None]
    assert trained == ["head.weight", "head.bias"]
    assert not model.forward_features(batch).requires_grad


def test_the_gradient_of_the_logits_with_respect_to_attention_can_be_taken(device: str) -> None:
    out = small_model().to(device).eval()(images(device=device), return_attention=True)
    found = gradients(out.logits[:, 2].sum(), out.attention)
    assert [g.shape for g in found] == [(4, 3, 5, 5)] * 3
    assert all((g != 0).any() for g in found)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 3, 9, 8), r"images \(B, 3, 8, 8\), got \(2, 3, 9, 8\)"),
        ((2, 1, 8, 8), r"images \(B, 3, 8, 8\), got \(2, 1, 8, 8\)"),
        ((3, 8, 8), r"images \(B, 3, 8, 8\), got \(3, 8, 8\)"),
    ],
)
def test_images_of_another_size_are_refused_with_both_sizes(shape: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_model()(np.zeros(shape, np.float32))


@pytest.mark.parametrize("kind", ["uint8", "float64"])
def test_images_of_another_dtype_are_refused(kind: str) -> None:
    with pytest.raises(TypeError, match=f"dtype float32, got {kind}; normalise"):
        small_model()(np.zeros((1, 3, 8, 8), kind))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embed_dim": 50, "num_heads": 4}, "4 heads divide, got 50; take 48 or 52"),
        ({"patch_size": 5}, "multiple of patch_size 5, got 224"),
        ({"dropout": 1.0}, "0 <= dropout < 1, got 1.0"),
        ({"attention_dropout": -0.1}, "0 <= attention_dropout < 1"),
        ({"drop_path": 2}, "0 <= drop_path < 1"),
        ({"activation": "swish"}, "unknown name 'swish'"),
        *(
            ({name: 0}, f"'{name}' must be positive but got 0")
            for name in (
                "image_size",
                "patch_size",
                "in_channels",
                "depth",
                "mlp_ratio",
                "norm_eps",
            )
        ),
        ({"mlp_ratio": 1e-4}, "'mlp_dim' must be positive but got 0"),
        ({"stem": "convolutions", "patch_size": 14}, "sides are powers of 2, got 14 x 14"),
        ({"stem": "hybrid", "patch_size": 1}, "sides are powers of 2, got 1 x 1"),
        ({"depth": 2.0}, "expected a whole number as depth, got 2.0"),
        ({"num_classes": "10"}, "expected a whole number as num_classes, got '10'"),
        ({"patch_size": True}, "expected a whole number, or .*, as patch_size, got True"),
        ({"mlp_ratio": "4"}, "expected a finite number as mlp_ratio, got '4'"),
        ({"mlp_ratio": float("inf")}, "expected a finite number as mlp_ratio, got inf"),
        ({"qkv_bias": 1}, "expected True or False as qkv_bias, got 1"),
        ({"activation": ["gelu"]}, "expected a text as activation"),
        ({"embed_dim": -8}, "'dim' must be positive but got -8"),
        ({"num_heads": 0}, "'num_heads' must be positive but got 0"),
        ({"num_classes": -1}, "expected num_classes >= 0, got -1"),
        ({"num_registers": -1}, "expected num_registers >= 0, got -1"),
        ({"layer_scale": -0.1}, "expected layer_scale >= 0, got -0.1"),
        ({"pre_logits": -8}, "expected pre_logits >= 0, got -8"),
        ({"pooling": "maps"}, "unknown pooling 'maps'; did you mean 'map'"),
        ({"positions": "al"}, "unknown positions 'al'; did you mean 'all'"),
        ({"mlp": "swigl"}, "unknown mlp 'swigl'; did you mean 'swiglu'"),
        ({"class_token": False}, "expected class_token=True with pooling='token', got False"),
        (
            {"class_token": False, "pooling": "avg", "distillation_token": True},
            "expected class_token=True with distillation_token=True",
        ),
        ({"distillation_head": True}, "expected distillation_token=True with distillation_head"),
        *(
            (
                {"distillation_token": True, "distillation_head": True, "num_classes": 0, **more},
                f"features of one width for their mean, got {width} and 768",
            )
            for more, width in (({"pooling": "token_avg"}, 1536), ({"pre_logits": 8}, 8))
        ),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ViTConfig(**options)


def test_a_gated_mlp_decides_its_activation() -> None:
    for given in ("gelu", "gelu_tanh", "silu"):
        config = ViTConfig(mlp="swiglu", activation=given)
        assert config == ViTConfig(mlp="swiglu")
        assert config.activation == "silu"


def test_a_configuration_is_frozen_and_survives_json() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SMALL.depth = 4  # type: ignore[misc]
    assert ViTConfig(**SMALL.to_dict()) == SMALL
    assert SMALL.replace(depth=7).depth == 7
    assert SMALL.depth == 3


def test_create_model_takes_overrides_and_suggests_what_was_meant() -> None:
    model = create_model("vit_cifar_patch4_32", num_classes=3, depth=1)
    assert model.head.weight.shape == (3, 48)
    with pytest.raises(ValueError, match="did you mean 'vit_tiny_patch16_224'"):
        create_model("vit_tiny_patch16_244")
    with pytest.raises(ValueError, match="unknown option 'num_clases'; did you mean 'num_classes'"):
        create_model("vit_cifar_patch4_32", num_clases=3)


def test_list_models_lists_all_or_those_that_match() -> None:
    assert set(PUBLISHED) <= set(list_models())
    assert list_models("vit_tiny*") == ["vit_tiny_patch16_224", "vit_tiny_patch16_384"]
    assert list_models("resnet*") == []


def test_weights_that_do_not_come_with_the_package_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="got 'vit_tiny_patch16_224'; leave out pretrained"):
        create_model("vit_tiny_patch16_224", pretrained=True)


def test_printing_a_model_shows_its_parts_and_counts() -> None:
    text = repr(create_model("vit_cifar_patch4_32"))
    assert text.splitlines()[0].endswith("# 119,098 parameters")
    assert "attn: Attention(num_heads=4)" in text
    assert "head: Linear(weight (10, 48), bias (10,))" in text
