from __future__ import annotations

import itertools

import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits

from numpyvit.models import VisionTransformer, ViTConfig
from numpyvit.tensor import tape
from numpyvit.train import (
    Recipe,
    WorkerPool,
    check_tune,
    freeze,
    last_blocks,
    parameter_groups,
    set_gradients,
    start_training,
    with_new_head,
)

# A model with all that a ViT can have in front of its patches and behind its blocks.
FULL = ViTConfig(
    image_size=8,
    patch_size=4,
    num_classes=3,
    embed_dim=16,
    depth=4,
    num_heads=2,
    distillation_token=True,
    distillation_head=True,
    num_registers=2,
    pre_norm=True,
    layer_scale=0.1,
    head_norm=True,
    qk_norm=True,
)
PLAIN = ViTConfig(image_size=8, patch_size=4, num_classes=3, embed_dim=16, depth=4, num_heads=2)


def model_of(config=PLAIN, seed=0, **changes):
    return VisionTransformer(config.replace(**changes), rng=np.random.default_rng(seed))


def trained_names(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def batch_of(rng, count=4):
    return rng.standard_normal((count, 3, 8, 8), np.float32), rng.integers(0, 3, count)


@pytest.mark.parametrize(
    ("tune", "count"), [("all", None), ("head", 0), ("last:1", 1), ("last:12", 12)]
)
def test_what_is_tuned_is_named_in_a_word(tune, count):
    assert last_blocks(tune) == count


@pytest.mark.parametrize("tune", ["", "heads", "last", "last:", "last:0", "last:-1", "last:x", "2"])
def test_other_words_are_refused_with_those_that_are_known(tune):
    with pytest.raises(ValueError, match=r"'all', 'head' or 'last:N' with N blocks, got"):
        last_blocks(tune)


def test_more_blocks_than_there_are_cannot_be_tuned():
    check_tune("last:4", 4)
    with pytest.raises(ValueError, match="expected last:1 to last:4, the model's blocks, got last"):
        check_tune("last:5", 4)


def test_everything_is_tuned_unless_it_is_said_otherwise():
    model = model_of(FULL)
    freeze(model, "head")
    freeze(model, "all")
    assert trained_names(model) == {name for name, _ in model.named_parameters()}


def test_the_head_is_tuned_alone():
    model = model_of(FULL)
    freeze(model, "head")
    assert trained_names(model) == {
        *("head.weight", "head.bias", "head_dist.weight", "head_dist.bias")
    }


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_last_blocks_are_tuned_with_all_that_follows_them(count):
    model = model_of(FULL)
    freeze(model, f"last:{count}")
    blocks = tuple(f"blocks.{index}." for index in range(4 - count, 4))
    behind = ("norm.", "fc_norm.", "head.", "head_dist.")
    expected = {name for name, _ in model.named_parameters() if name.startswith((*blocks, *behind))}
    assert trained_names(model) == expected
    assert not any(name.startswith("norm_pre") for name in expected)


# As it is written in BEiT's and MAE's fine-tuning: layers 0 to depth + 1, the last at full rate.
def rate_by_the_published_formula(name, depth, lr, decay):
    scales = [decay ** (depth + 1 - layer) for layer in range(depth + 2)]
    in_front = ("cls_token", "dist_token", "reg_token", "pos_embed", "patch_embed", "norm_pre")
    if name.split(".")[0] in in_front:
        return lr * scales[0]
    if name.startswith("blocks."):
        return lr * scales[int(name.split(".")[1]) + 1]
    return lr * scales[-1]


def settings_by_name(model, recipe):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: group
        for group in parameter_groups(model, recipe)
        for parameter in group["params"]
    }


@pytest.mark.parametrize("decay", [0.75, 0.5, 1.0])
def test_layers_learn_at_the_published_rates(decay):
    model, lr = model_of(FULL), 2e-3
    found = settings_by_name(model, Recipe(lr=lr, layer_decay=decay))
    assert found.keys() == {name for name, _ in model.named_parameters()}
    for name, group in found.items():
        assert_close(
            np.float64(group["lr"]), np.float64(rate_by_the_published_formula(name, 4, lr, decay))
        )


def test_layers_count_from_the_embedding_to_the_head():
    names = [
        *("pos_embed", "patch_embed.proj.bias", "norm_pre.weight"),
        *("blocks.0.ls1.gamma", "blocks.11.norm1.bias"),
        *("norm.weight", "fc_norm.bias", "attn_pool.latent", "pre_logits.fc.bias", "head.weight"),
    ]
    deep = model_of(FULL.replace(depth=12))
    assert [deep.layer_of(name) for name in names] == [0, 0, 0, 1, 12, 13, 13, 13, 13, 13]


def test_only_matrices_decay():
    model = model_of(FULL)
    for name, group in settings_by_name(model, Recipe(weight_decay=0.3, layer_decay=0.9)).items():
        decays = name.endswith(".weight") and "norm" not in name
        assert group["weight_decay"] == (0.3 if decays else 0.0), name
    vectors = {"cls_token", "dist_token", "reg_token", "pos_embed", "blocks.3.ls2.gamma"}
    assert vectors <= {name for name, _ in model.named_parameters()}


def test_the_learned_query_of_a_pooling_does_not_decay():
    model = model_of(pooling="map", class_token=False)
    found = settings_by_name(model, Recipe(weight_decay=0.3))
    assert found["attn_pool.latent"]["weight_decay"] == 0.0
    assert found["attn_pool.kv.weight"]["weight_decay"] == 0.3


def test_the_tables_of_relative_positions_do_not_decay():
    model = model_of(positions="relative")
    found = settings_by_name(model, Recipe(weight_decay=0.3))
    assert found["blocks.0.attn.rel_pos.relative_position_bias_table"]["weight_decay"] == 0.0
    assert found["blocks.0.attn.qkv.weight"]["weight_decay"] == 0.3


def test_the_fastest_group_comes_first_and_frozen_parameters_are_in_none():
    model = model_of()
    freeze(model, "last:2")
    groups = parameter_groups(model, Recipe(lr=1.0, layer_decay=0.5))
    assert [group["lr"] for group in groups] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    found = {id(parameter) for group in groups for parameter in group["params"]}
    assert found == {id(p) for p in model.parameters() if p.requires_grad}


@pytest.fixture
def nodes_of(monkeypatch, rng):
    """`nodes_of(model)`: the ops that a step leaves on the tape, and those it walks back over."""
    images, labels = batch_of(rng)

    def count(model):
        left, walked = [], []
        make, pull = tape.Node.__init__, tape._pull

        def made(node, value, name, owner=None):
            make(node, value, name, owner)
            if owner is None:
                left.append(name)

        def pulled(node, *rest):
            if node.pullback is not None:
                walked.append(node.name)
            pull(node, *rest)

        with monkeypatch.context() as patch:
            patch.setattr(tape.Node, "__init__", made)
            patch.setattr(tape, "_pull", pulled)
            with WorkerPool(1) as pool:
                set_gradients(model, images, labels, pool, seed=(0, 0))
        return left, walked

    return count


def tuned(tune, depth):
    model = model_of(depth=depth)
    freeze(model, tune)
    return model


@pytest.mark.parametrize("tune", ["head", "last:1", "last:2"])
def test_frozen_blocks_leave_nothing_on_the_tape(tune, nodes_of):
    few, many = nodes_of(tuned(tune, 2)), nodes_of(tuned(tune, 9))
    assert few == many
    assert len(nodes_of(tuned("all", 9))[0]) > 3 * len(many[0])


def test_a_frozen_backbone_leaves_the_head_and_the_loss(nodes_of):
    left, walked = nodes_of(tuned("head", 4))
    assert sorted(left) == sorted(walked)
    assert set(left) == {"linear", "cross_entropy"}


def test_frozen_parameters_get_no_gradient_and_the_others_the_same_as_ever(rng):
    images, labels = batch_of(rng)
    whole, part = model_of(), tuned("last:2", 4)
    with WorkerPool(1) as pool:
        for model in (whole, part):
            set_gradients(model, images, labels, pool, seed=(0, 0))
    expected = dict(whole.named_parameters())
    for name, parameter in part.named_parameters():
        if parameter.requires_grad:
            assert_same_bits(parameter.grad, expected[name].grad)
        else:
            assert parameter.grad is None


@pytest.mark.parametrize(("tune", "steady"), [("head", 4), ("last:1", 3), ("all", 0)])
def test_frozen_blocks_drop_nothing(tune, steady):
    model = model_of(dropout=0.5, attention_dropout=0.5, drop_path=0.5)
    freeze(model, tune)
    start_training(model)
    modes = [[module.training for _, module in block.named_modules()] for block in model.blocks]
    assert [all(mode) for mode in modes] == [False] * steady + [True] * (4 - steady)
    assert [any(mode) for mode in modes] == [False] * steady + [True] * (4 - steady)
    assert model.pos_drop.training == (tune == "all")
    assert model.training


def test_a_new_head_is_zero_and_everything_else_stays(rng):
    model = model_of(FULL, pre_logits=12)
    tuned_model = with_new_head(model, 5, drop_path=0.1)
    assert (tuned_model.config.num_classes, tuned_model.config.pre_logits) == (5, 0)
    assert tuned_model.config.drop_path == 0.1
    before = model.state_dict()
    for name, array in tuned_model.state_dict().items():
        if name.startswith(("head.", "head_dist.")):
            assert array.shape[0] == 5
            assert not array.any()
            assert array.flags.writeable
        else:
            assert array is before[name]
    logits = tuned_model.eval()(batch_of(rng)[0])
    assert_same_bits(logits, np.zeros((4, 5), np.float32))


def test_a_model_without_a_head_gets_one():
    tuned_model = with_new_head(model_of(num_classes=0), 2)
    assert tuned_model.head.weight.shape == (2, 16)


def test_with_heads_of_zeros_the_first_step_moves_nothing_else(rng):
    images, labels = batch_of(rng)
    model = with_new_head(model_of(), 3)
    with WorkerPool(1) as pool:
        result = set_gradients(model, images, labels, pool, seed=(0, 0))
    assert_close(np.float32(result.loss), np.float32(np.log(3)))
    for name, parameter in model.named_parameters():
        assert parameter.grad.any() == name.startswith("head."), name


def test_groups_of_every_part_can_be_told_apart_by_their_rate():
    pairs = itertools.pairwise(parameter_groups(model_of(), Recipe(layer_decay=0.5)))
    assert all(one["lr"] >= other["lr"] for one, other in pairs)
