from __future__ import annotations

import numpy as np
import pytest
from tolerances import GRADCHECK, assert_close, assert_same_bits, relative_l2

from numpyvit import Tensor, create_model, functional, gradients, no_grad
from numpyvit.explain import (
    GRADIENT_METHODS,
    METHODS,
    MapOptions,
    attention_mass,
    class_attention,
    explain,
    gradcam,
    gradient_rollout,
    measure_heads,
    observe_attention,
    observe_gradients,
    patch_map,
    relevance,
    rollout,
    tokens_read,
)
from numpyvit.models import VisionTransformer, ViTConfig

TOKEN_RULES = {
    "class token": {},
    "registers": {"num_registers": 4},
    "distillation token": {"distillation_token": True},
    "two heads": {"distillation_token": True, "distillation_head": True, "num_registers": 1},
    "average": {"pooling": "avg"},
    "average without class token": {"pooling": "avg", "class_token": False},
    "class token and average": {"pooling": "token_avg", "num_registers": 2},
    "maximum": {"pooling": "max"},
    "scores": {"pooling": "score", "class_token": False},
    "attention pooling": {"pooling": "map", "class_token": False},
    "positions of patches": {"positions": "patches", "num_registers": 4},
}


def tiny(**overrides: object) -> VisionTransformer:
    settings = {
        "image_size": 16,
        "patch_size": 4,
        "embed_dim": 12,
        "depth": 3,
        "num_heads": 3,
        "num_classes": 5,
    }
    config = ViTConfig(**{**settings, **overrides})
    model = VisionTransformer(config, rng=np.random.default_rng(1)).to(np.float64)
    for parameter in model.parameters():
        parameter.data *= 10  # so that attention is far from even
    return model


def pictures(rng: np.random.Generator, count: int = 2) -> np.ndarray:
    return rng.standard_normal((count, 3, 16, 16))


@pytest.mark.parametrize("rule", TOKEN_RULES)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_maps_the_patches_of_every_model(
    rng: np.random.Generator, rule: str, method: str
) -> None:
    model = tiny(**TOKEN_RULES[rule])
    maps = explain(model, pictures(rng, 5), method)
    assert maps.shape == (5, 4, 4)
    assert maps.dtype == np.float64
    assert np.isfinite(maps).all()
    assert (maps >= 0).all()


@pytest.mark.parametrize("rule", TOKEN_RULES)
def test_maps_are_rows_of_the_tokens_that_the_head_reads(
    rng: np.random.Generator, rule: str
) -> None:
    model, images = tiny(**TOKEN_RULES[rule]).eval(), pictures(rng)
    prefix = model.config.num_prefix_tokens
    weights = [block.numpy() for block in model(images, return_attention=True).attention]

    def expected(rows: np.ndarray) -> np.ndarray:
        rows = rows[..., prefix:]
        if model.config.pooling == "token":
            asking = rows[..., : 2 if rule == "two heads" else 1, :].mean(-2)
        else:
            asking = rows[..., prefix:, :].mean(-2)
            if model.config.pooling == "token_avg":
                asking = (asking + rows[..., 0, :]) / 2
        return asking.reshape(*asking.shape[:-1], 4, 4)

    assert_close(class_attention(model, images, 1), expected(weights[1]))
    assert_close(explain(model, images, "rollout"), expected(rollout(weights)))


def test_attentions_side_by_side_are_one_with_all_their_heads(rng: np.random.Generator) -> None:
    model, images = tiny(block="parallel_things").eval(), pictures(rng)
    output = model(Tensor(images, requires_grad=True), return_attention=True)
    maps = output.attention
    assert len(maps) == 6
    chosen = np.zeros((2, 5))
    chosen[:, 3] = 1
    slopes = gradients(output.logits, maps, chosen)
    (seen,) = observe_gradients(model, images, 3, slice(1, None))
    for block in (1, 2):
        heads = np.concatenate([each.numpy() for each in maps[2 * block : 2 * block + 2]], 1)
        assert heads.shape == (2, 6, 17, 17)
        assert_close(seen.attention[block - 1], heads)
        assert_close(
            seen.gradients[block - 1], np.concatenate(slopes[2 * block : 2 * block + 2], 1)
        )
        assert_close(class_attention(model, images, block), heads[..., 0, 1:].reshape(2, 6, 4, 4))
    assert measure_heads(model, images).distance.shape == (3, 6)


@pytest.mark.parametrize("block", ["post_norm", "res_post_norm", "parallel", "parallel_things"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_maps_models_of_any_blocks(
    rng: np.random.Generator, block: str, method: str
) -> None:
    maps = explain(tiny(block=block), pictures(rng, 5), method)
    assert maps.shape == (5, 4, 4)
    assert np.isfinite(maps).all()
    assert maps.max() > 0


def test_shares_of_the_tokens_sum_to_one() -> None:
    for rule in TOKEN_RULES.values():
        shares = tokens_read(tiny(**rule).config)
        assert_close(shares.sum(), np.array(1.0))


@pytest.mark.parametrize("method", METHODS)
def test_tokens_in_front_never_show_in_a_map(rng: np.random.Generator, method: str) -> None:
    model = tiny(num_registers=4, distillation_token=True, depth=1)
    images = pictures(rng)
    before = explain(model, images, method, MapOptions(target=0))
    # All look at the registers now, but for a little.
    model.blocks[0].attn.qkv.bias.data[12:24] = 0
    query, key = np.zeros((2, 12, 12))
    query[[0, 4, 8], 0], key[[0, 4, 8], 1] = 1, 40
    model.blocks[0].attn.qkv.weight.data[:24] = np.concatenate([query, key])
    model.blocks[0].attn.qkv.bias.data[[0, 4, 8]] = 40
    model.pos_embed.data[0, :, 1] = -20
    model.pos_embed.data[0, 2:6, 1] = 20
    (seen,) = observe_attention(model, images)
    assert seen.attention[0][..., 2:6].sum(-1).min() > 0.999
    after = explain(model, images, method, MapOptions(target=0))
    assert after.shape == before.shape == (2, 4, 4)
    assert after.max() < 0.01 * before.max()


def perturbed(
    model: VisionTransformer,
    images: np.ndarray,
    block: int,
    change: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> np.ndarray:
    """Logits when `change` is added to the attention weights of one block after the softmax."""
    calls = []

    def attention(q, k, v, bias, *, return_weights, **settings):  # type: ignore[no-untyped-def]
        weights = functional.attention_weights(q, k)
        if len(calls) == block:
            weights = weights + Tensor(change)
        calls.append(weights)
        return weights @ v, weights

    with monkeypatch.context() as patch, no_grad():
        patch.setattr(functional, "scaled_dot_product_attention", attention)
        logits = model.eval()(images, return_attention=True).logits.numpy()
    assert len(calls) == len(model.blocks)
    return logits


@pytest.mark.parametrize("rule", ["class token", "two heads", "average"])
@pytest.mark.parametrize("block", [0, 1, 2])
def test_gradients_are_those_of_the_logit_when_weights_after_the_softmax_change(
    rng: np.random.Generator, rule: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, images, target = tiny(**TOKEN_RULES[rule]), pictures(rng, 2), [3, 0]
    (seen,) = observe_gradients(model, images, target)
    slopes = seen.gradients[block]
    direction = rng.standard_normal(slopes.shape)
    step = 1e-6 * direction
    up, down = (perturbed(model, images, block, s * step, monkeypatch) for s in (1, -1))
    measured = (up - down)[[0, 1], target] / 2e-6
    assert relative_l2((slopes * direction).sum((1, 2, 3)), measured) < GRADCHECK


def test_each_image_of_a_batch_is_explained_alone(rng: np.random.Generator) -> None:
    model, images = tiny(), pictures(rng, 6)  # more than are computed at once
    targets = [4, 0, 1, 2, 3, 0]
    for method in METHODS:
        together = explain(model, images, method, MapOptions(target=targets))
        for index, target in enumerate(targets):
            alone = explain(model, images[[index]], method, MapOptions(target=target))
            assert_close(alone[0], together[index])


def test_the_predicted_class_is_explained_where_none_is_named(rng: np.random.Generator) -> None:
    model, images = tiny().eval(), pictures(rng, 6)
    predicted = model(images).numpy().argmax(1)
    assert len(set(predicted)) > 1
    for method in sorted(GRADIENT_METHODS):
        named = explain(model, images, method, MapOptions(target=predicted))
        assert_same_bits(explain(model, images, method), named)
        other = explain(model, images, method, MapOptions(target=(predicted + 1) % 5))
        assert (other != named).any((1, 2)).all()
    seen = [group.targets for group in observe_gradients(model, images)]
    assert_same_bits(np.concatenate(seen), predicted)


def test_a_model_without_classes_explains_a_feature_that_is_named(
    rng: np.random.Generator,
) -> None:
    model, images = tiny(num_classes=0), pictures(rng)
    assert explain(model, images, "rollout").shape == (2, 4, 4)
    assert explain(model, images, "relevance", MapOptions(target=11)).shape == (2, 4, 4)
    with pytest.raises(ValueError, match="expected a model with a head"):
        explain(model, images, "relevance")
    with pytest.raises(ValueError, match="expected a class from 0 to 11, got 12"):
        explain(model, images, "relevance", MapOptions(target=12))


@pytest.mark.parametrize("method", METHODS)
def test_without_positions_permuted_patches_permute_every_map(
    rng: np.random.Generator, method: str
) -> None:
    model = tiny()
    model.pos_embed.data[...] = 0
    images, order = pictures(rng), rng.permutation(16)
    # b c (h p) (w q) -> b (h w) c p q, permuted, and back
    squares = images.reshape(2, 3, 4, 4, 4, 4).transpose(0, 2, 4, 1, 3, 5).reshape(2, 16, 3, 4, 4)
    moved = squares[:, order].reshape(2, 4, 4, 3, 4, 4).transpose(0, 3, 1, 4, 2, 5)
    options = MapOptions(target=2)
    maps = explain(model, images, method, options).reshape(2, 16)
    permuted = explain(model, moved.reshape(images.shape), method, options).reshape(2, 16)
    assert_close(permuted, maps[:, order])


def searching(depth: int, sharpness: float) -> VisionTransformer:
    """A model whose class 0 is the evidence in red patches, class 1 that in green ones.

    Head 0 looks for red and reports what it finds to class 0, head 1 the same with green and
    class 1; with `sharpness` 0 they look everywhere alike.
    """
    model = tiny(depth=depth, num_heads=2, num_classes=2, embed_dim=16, final_norm=False)
    for parameter in model.parameters():
        parameter.data[...] = 0
    # Axes of the tokens: 0 red, 1 green, 2 class token, 3 any patch, 4 and 5 the two reports.
    model.patch_embed.proj.weight.data[[0, 1], [0, 1]] = 1 / 16
    model.cls_token.data[0, 0, 2] = 1
    model.pos_embed.data[0, 1:, 3] = 1
    for block in model.blocks:
        block.norm1.weight.data[...] = 1
        query, key, value = block.attn.qkv.weight.data.reshape(3, 2, 8, 16)
        query[[0, 1], 0, 2] = sharpness  # the class token asks
        key[[0, 1], 0, [0, 1]] = 1  # red patches answer head 0, green ones head 1
        value[[0, 1], 1, [0, 1]] = 1
        block.attn.qkv.bias.data.reshape(3, 2, 8)[2, :, 1] = 1
        block.attn.proj.weight.data[[4, 5], [1, 9]] = 1
    model.head.weight.data[[0, 1], [4, 5]] = 1
    return model


def picture_with(red: int, green: int) -> np.ndarray:
    """A black image (1, 3, 16, 16) with a red and a green patch."""
    image = np.zeros((1, 3, 16, 16))
    for channel, patch in enumerate((red, green)):
        row, column = divmod(patch, 4)
        image[0, channel, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 4
    return image


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("method", ["gradient-rollout", "relevance", "gradcam"])
@pytest.mark.parametrize(("red", "green"), [(0, 5), (14, 3), (7, 8)])
def test_planted_evidence_lights_its_patch_and_that_of_another_class_another(
    depth: int, method: str, red: int, green: int
) -> None:
    model, image = searching(depth, sharpness=8.0), picture_with(red, green)
    for target, patch in enumerate((red, green)):
        lit = explain(model, image, method, MapOptions(target=target)).ravel()
        assert lit.argmax() == patch
        assert lit[patch] > 10 * np.delete(lit, patch).max()


@pytest.mark.parametrize("method", ["gradient-rollout", "relevance"])
@pytest.mark.parametrize("depth", [1, 2])
def test_evidence_is_found_where_attention_alone_shows_nothing(method: str, depth: int) -> None:
    model, image = searching(depth, sharpness=0.0), picture_with(6, 9)
    for blind in ("attention", "rollout"):
        even = explain(model, image, blind)
        assert_close(even, np.full_like(even, even.mean()))
    for target, patch in enumerate((6, 9)):
        lit = explain(model, image, method, MapOptions(target=target)).ravel()
        assert lit.argmax() == patch
        assert lit[patch] > 2 * np.delete(lit, patch).max()


def test_gradcam_weighs_heads_by_their_mean_gradient(rng: np.random.Generator) -> None:
    attention, slopes = rng.random((2, 3, 6, 6)), rng.standard_normal((2, 3, 6, 6))
    class_token = np.eye(6)[0]
    expected = np.zeros((2, 4))
    for image in range(2):
        for head in range(3):
            share = slopes[image, head, 0, 2:].mean()
            expected[image] += share * attention[image, head, 0, 2:]
    expected = np.maximum(expected, 0).reshape(2, 2, 2)
    assert_close(gradcam(attention, slopes, class_token, 2), expected)


def test_options_choose_heads_discard_and_block(rng: np.random.Generator) -> None:
    model, images = tiny().eval(), pictures(rng)
    weights = [block.numpy() for block in model(images, return_attention=True).attention]
    chosen = MapOptions(heads="max", discard=0.8, block=1)
    rolled = rollout(weights[:2], "max", 0.8)[:, 0, 1:].reshape(2, 4, 4)
    assert_close(explain(model, images, "rollout", chosen), rolled)
    assert_close(
        explain(model, images, "attention", chosen), class_attention(model, images, 1).max(1)
    )
    (seen,) = observe_gradients(model, images)
    relevant = relevance(seen.attention[:2], seen.gradients[:2])[:, 0, 1:].reshape(2, 4, 4)
    assert_close(explain(model, images, "relevance", chosen), relevant)
    rolled = gradient_rollout(seen.attention[:2], seen.gradients[:2], 0.8)[:, 0, 1:]
    assert_close(explain(model, images, "gradient-rollout", chosen), rolled.reshape(2, 4, 4))
    assert_same_bits(
        explain(model, images, "relevance", MapOptions(block=-2)),
        explain(model, images, "relevance", chosen),
    )


def test_the_patches_that_hold_most_of_a_maps_sum_are_kept() -> None:
    attention = np.array([[[0.1, 0.4], [0.3, 0.2]], [[0.0, 0.0], [0.0, 1.0]]])
    assert attention_mass(attention, 0.65).tolist() == [
        [[False, True], [True, False]],
        [[False, False], [False, True]],
    ]
    assert attention_mass(attention[0], 0.75).sum() == 3  # 0.7 would not do
    assert attention_mass(5 * attention[0], 0.2).sum() == 1
    assert attention_mass(np.array([[1.0, 1.0], [2.0, 4.0]]), 0.75).sum() == 2  # just enough
    assert attention_mass(attention[0], 1).all()
    for share in (0, 1.1):
        with pytest.raises(ValueError, match="expected a share in"):
            attention_mass(attention, share)


def test_explaining_leaves_the_model_as_it_was(rng: np.random.Generator) -> None:
    model, images = tiny(dropout=0.5, attention_dropout=0.5, drop_path=0.5).train(), pictures(rng)
    before = [parameter.data.copy() for parameter in model.parameters()]
    for method in METHODS:
        # Dropout would make two calls differ.
        assert_same_bits(explain(model, images, method), explain(model, images, method))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(module.training for _, module in model.named_modules())
    for parameter, array in zip(model.parameters(), before, strict=True):
        assert_same_bits(parameter.data, array)


def test_a_frozen_model_is_explained_as_well(rng: np.random.Generator) -> None:
    model, images = tiny(), pictures(rng)
    expected = {method: explain(model, images, method) for method in METHODS}
    for parameter in model.parameters():
        parameter.requires_grad = False
    for method in METHODS:
        assert_same_bits(explain(model, images, method), expected[method])


def test_what_cannot_be_explained_is_an_error(rng: np.random.Generator) -> None:
    model, images = tiny(), pictures(rng)
    with pytest.raises(ValueError, match="unknown method 'rolout'; did you mean 'rollout'"):
        explain(model, images, "rolout")
    with pytest.raises(ValueError, match=r"expected at least one image \(B, C, H, W\)"):
        explain(model, images[:0])
    with pytest.raises(ValueError, match=r"expected at least one image \(B, C, H, W\)"):
        explain(model, images[0], "relevance")
    for target in (5, -1, [0, 7]):
        with pytest.raises(ValueError, match="expected a class from 0 to 4, got"):
            explain(model, images, "relevance", MapOptions(target=target))
    for target in ([0, 1, 2], 1.5, "cat"):
        with pytest.raises(ValueError, match="expected a class, or one for each of 2 images"):
            explain(model, images, "gradcam", MapOptions(target=target))
    for method in METHODS:
        with pytest.raises(IndexError, match="expected a block from -3 to 2, got 3"):
            explain(model, images, method, MapOptions(block=3))
    with no_grad(), pytest.raises(RuntimeError, match="no_grad"):
        explain(model, images, "relevance")
    with pytest.raises(ValueError, match=r"expected weights \(\.\.\., N, N\) and shares \(N,\)"):
        patch_map(np.ones((2, 5, 5)), np.ones(4), 1)


def test_maps_are_computed_on_the_array_library_of_the_model(
    rng: np.random.Generator, device: str
) -> None:
    model, images = create_model("vit_cifar_patch4_32"), rng.standard_normal((2, 3, 32, 32))
    images = images.astype(np.float32)
    expected = explain(model, images, "relevance")
    on_device = explain(model.to(device), images, "relevance")
    assert isinstance(on_device, np.ndarray)
    assert_close(on_device, expected)
