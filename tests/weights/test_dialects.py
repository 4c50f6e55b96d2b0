"""The engine of the dialects, the choice of a state dict, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from tolerances import assert_same_bits

from numpyvit.models import VisionTransformer, ViTConfig
from numpyvit.weights import StoredArray, WeightFile, WeightFileError
from numpyvit.weights.dialects import (
    DIALECTS,
    GOOGLE,
    HUGGING_FACE,
    TIMM,
    TORCHVISION,
    TUTORIAL,
    Dialect,
    Rule,
    choose,
    find_family,
    translate,
)
from numpyvit.weights.dialects.rules import translate_back

SIZES = {"image_size": 8, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 3}


def numbered(*shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def stored(**arrays):
    return {name: StoredArray.of(array) for name, array in arrays.items()}


def file_of(names, *, values=None, config=None, path="weights.pth", kind="torch (zip)"):
    array = StoredArray.of(np.zeros((2, 3, 4, 4), np.float32))
    return WeightFile(Path(path), kind, dict.fromkeys(names, array), values or {}, config)


def dialect(*rules, **fields):
    return Dialect("made up", "x", rules, **fields)


def test_numbers_and_kinds_are_carried_over():
    rules = dialect(Rule("a.#.b.*", "blocks.#.norm1.*"))
    found = translate(rules, {"a.12.b.bias": StoredArray.of(numbered(3))})
    assert list(found.entries) == ["blocks.12.norm1.bias"]
    assert not found.problems


def test_parts_are_joined_by_rows_in_their_order_whatever_the_files(rng):
    q, k, v = rng.standard_normal((3, 2, 4)).astype(np.float32)
    rules = dialect(*(Rule(f"{name}.*", "qkv.*", i) for i, name in enumerate("qkv")))
    names = {"v.weight": v, "q.weight": q, "k.weight": k}
    entry = translate(rules, stored(**names)).entries["qkv.weight"]
    assert entry.shape == (6, 4)
    assert_same_bits(entry.read(), np.concatenate([q, k, v]))


def test_heads_are_joined_behind_the_parts():
    rules = dialect(*(Rule(f"h.#.{name}", "qkv", i) for i, name in enumerate("qk")))
    arrays = {f"h.{h}.{name}": np.full((1, 2), 10 * i + h, np.float32)
              for h in (1, 0, 10, 2) for i, name in enumerate("qk")}  # fmt: skip
    read = translate(rules, stored(**arrays)).entries["qkv"].read()
    assert read[:, 0].tolist() == [0, 1, 2, 10, 10, 11, 12, 20]


@pytest.mark.parametrize("lacking", [["h.0.q"], ["h.1.k"], ["h.0.q", "h.1.q"]])
def test_parts_that_are_missing_are_a_problem(lacking):
    rules = dialect(*(Rule(f"h.#.{name}", "qkv", i) for i, name in enumerate("qk")))
    names = [f"h.{head}.{name}" for head in range(2) for name in "qk"]
    found = translate(rules, stored(**{n: numbered(2, 2) for n in names if n not in lacking}))
    assert "some of its parts are missing" in found.problems[0]
    assert not found.entries


def test_parts_that_do_not_fit_each_other_are_a_problem():
    rules = dialect(Rule("q", "qkv", 0), Rule("k", "qkv", 1))
    found = translate(rules, stored(q=numbered(2, 2), k=numbered(2, 3)))
    assert found.problems == ["qkv: parts of shapes that do not fit (q, k)"]
    assert not found.entries


def test_two_names_of_one_array_are_a_problem():
    rules = dialect(Rule("old", "new"), Rule("older", "new"))
    found = translate(rules, stored(old=numbered(2), older=numbered(2)))
    assert found.problems == ["new: the file has it more than once (old, older)"]


def test_what_no_rule_knows_is_unexpected_and_what_is_known_to_be_useless_is_dropped():
    rules = dialect(Rule("a", "a"), drops=((r"^mask$", "a mask"),))
    found = translate(rules, stored(a=numbered(2), mask=numbered(2), strange=numbered(2)))
    assert found.problems == ["strange: unexpected"]
    assert found.dropped == {"mask": "a mask"}


def test_texts_and_complex_numbers_are_no_weights():
    array = StoredArray.of(np.zeros(2, complex))
    assert translate(dialect(Rule("a", "a")), {"a": array}).problems == [
        "a: expected numbers, got complex128"
    ]


def test_a_stack_of_blocks_is_read_once_and_split():
    reads = []

    def load():
        reads.append(1)
        return numbered(3, 2, 4)

    array = StoredArray((3, 2, 4), np.dtype(np.float32), "F32", load)
    rules = dialect(Rule("blocks/kernel", "blocks.#.weight", stacked=True))
    found = translate(rules, {"blocks/kernel": array}).entries
    assert list(found) == [f"blocks.{i}.weight" for i in range(3)]
    for index, entry in enumerate(found.values()):
        assert entry.shape == (2, 4)
        assert_same_bits(entry.read(), numbered(3, 2, 4)[index])
    assert len(reads) == 1


def test_nothing_is_read_before_it_is_asked_for():
    def load():
        raise AssertionError("read")

    shape, kind = (4, 3, 2), np.dtype(np.float32)
    array = StoredArray(shape, kind, "F32", load)
    inner = "Transformer/encoderblock_0/MultiHeadDotProductAttention_1"
    names = [f"{inner}/{name}/kernel" for name in ("query", "key", "value")]
    found = translate(GOOGLE, dict.fromkeys(names, array))
    assert found.entries["blocks.0.attn.qkv.weight"].shape == (18, 4)


@pytest.mark.parametrize("known", [TIMM, TORCHVISION, HUGGING_FACE, GOOGLE, TUTORIAL])
def test_what_a_dialect_writes_it_reads_back_to_the_bit(known, rng):
    config = ViTConfig(**SIZES, num_classes=5)
    state = VisionTransformer(config, rng=rng).state_dict()
    arrays, nameless = translate_back(known.rules, state, config.num_heads)
    assert not nameless
    found = translate(known, stored(**arrays))
    assert not found.problems
    assert found.entries.keys() == state.keys()
    for name, entry in found.entries.items():
        assert_same_bits(entry.read(), state[name])


def test_google_kernels_have_heads_of_their_own(rng):
    config = ViTConfig(**SIZES, num_classes=5)
    state = VisionTransformer(config, rng=rng).state_dict()
    arrays, _ = translate_back(GOOGLE.rules, state, 3)
    inner = "Transformer/encoderblock_1/MultiHeadDotProductAttention_1"
    value = state["blocks.1.attn.qkv.weight"][24:]
    for head in range(3):
        rows = slice(4 * head, 4 * head + 4)
        assert_same_bits(arrays[f"{inner}/value/kernel"][:, head], value[rows].T)
        out = state["blocks.1.attn.proj.weight"][:, rows]
        assert_same_bits(arrays[f"{inner}/out/kernel"][head], out.T)


@pytest.mark.parametrize(
    ("before", "left_out"),
    [
        (["model."], {}),
        (["model.", "model_ema."], {"model": 1}),
        (["student.module.backbone.", "teacher.backbone."], {"student": 1}),
        (["model.module.", "optimizer.state."], {"optimizer": 1}),
        (["state_dict.model."], {}),
        (["module._orig_mod."], {}),
        (["encoder.", "target_encoder.module."], {"encoder": 1}),
        (["_orig_mod.model._fsdp_wrapped_module."], {}),
        (["model.", "model_ema._orig_mod.module._checkpoint_wrapped_module."], {"model": 1}),
    ],
)
def test_of_a_training_state_the_best_model_is_taken(before, left_out):
    names = [f"{prefix}patch_embed.proj.weight" for prefix in before]
    chosen = choose(file_of(names))
    assert chosen.dialect is TIMM
    assert list(chosen.arrays) == ["patch_embed.proj.weight"]
    assert chosen.left_out == left_out


def test_a_head_beside_the_backbone_is_kept():
    names = ["teacher.backbone.patch_embed.proj.weight", "teacher.head.weight"]
    chosen = choose(file_of(names))
    assert list(chosen.arrays) == ["patch_embed.proj.weight", "head.weight"]


def test_blocks_in_chunks_are_numbered_through():
    names = ["patch_embed.proj.weight", "blocks.3.11.norm1.weight", "blocks.0.2.norm1.weight"]
    chosen = choose(file_of(names))
    assert list(chosen.arrays)[1:] == ["blocks.11.norm1.weight", "blocks.2.norm1.weight"]


WRAPPERS = ["_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"]


@pytest.mark.parametrize("word", WRAPPERS)
def test_words_of_pytorchs_wrappers_are_left_out_wherever_they_are(word):
    names = {
        TIMM: [f"blocks.1.{word}.norm1.weight", f"{word}.patch_embed.{word}.proj.weight"],
        HUGGING_FACE: [
            f"vit.encoder.layer.0.{word}.layernorm_before.bias",
            f"vit.{word}.embeddings.patch_embeddings.projection.weight",
        ],
    }
    assert list(choose(file_of(names[TIMM])).arrays) == [
        "blocks.1.norm1.weight",
        "patch_embed.proj.weight",
    ]
    chosen = choose(file_of(names[HUGGING_FACE]))
    assert next(iter(chosen.arrays)) == "encoder.layer.0.layernorm_before.bias"
    table = f"layers.0.{word}.blocks.0.attn.relative_position_bias_table"
    swin = choose(file_of([table, f"layers.0.{word}.norm.weight"]))
    assert next(iter(swin.arrays)) == table.replace(f"{word}.", "")


def test_names_that_differ_by_a_wrapper_alone_are_refused():
    names = ["patch_embed.proj.weight", "_orig_mod.patch_embed.proj.weight"]
    with pytest.raises(WeightFileError, match="two for patch_embed"):
        choose(file_of(names))
    names = [f"{word}layers.0.blocks.0.attn.relative_position_bias_table"
             for word in ("", "_orig_mod.")]  # fmt: skip
    with pytest.raises(WeightFileError, match="two for layers"):
        choose(file_of(names))


@pytest.mark.parametrize("known", DIALECTS, ids=lambda known: known.title)
def test_counters_of_averaged_models_and_of_batch_norms_are_dropped(known):
    names = ("n_averaged", "module.n_averaged", "bn.num_batches_tracked")
    found = translate(known, stored(**dict.fromkeys(names, np.array(4))))
    assert found.dropped == dict.fromkeys(names, "a counter")
    assert not found.problems


def test_an_averaged_model_beside_the_model_is_the_one_taken():
    names = ["model.patch_embed.proj.weight", "model_ema.n_averaged"]
    chosen = choose(file_of([*names, "model_ema.module.patch_embed.proj.weight"]))
    assert list(chosen.arrays) == ["n_averaged", "patch_embed.proj.weight"]


def test_registers_of_which_there_are_none_are_left_out():
    array = StoredArray.of(np.zeros((1, 0, 2), np.float32))
    for start in ("embeddings.register_tokens", "reg_token", "register_tokens"):
        file = file_of([f"{start[:11]}patch_embeddings.projection.weight"] if "emb" in start
                       else ["patch_embed.proj.weight"])  # fmt: skip
        file.arrays[start] = array
        assert start not in choose(file).arrays


def lightning(head, backbone="model.vit.embeddings.patch_embeddings.projection.weight"):
    """A file of a backbone of width 2 and what lies beside it; shapes by their names."""
    file = file_of([f"state_dict.{backbone}"])
    for name, shape in head.items():
        file.arrays[f"state_dict.{name}"] = StoredArray.of(np.zeros(shape, np.float32))
    return file


LINEAR = {"classifier.weight": (5, 2), "classifier.bias": (5,)}


@pytest.mark.parametrize("word", ["classifier", "model.head", "fc", "model.fc.1", "heads.head"])
def test_a_head_beside_its_backbone_is_taken_where_it_is_one_layer(word):
    file = lightning({f"{word}.weight": (5, 2), f"{word}.bias": (5,)})
    chosen = choose(file)
    found = translate(chosen.dialect, chosen.arrays).entries
    assert (found["head.weight"].shape, found["head.bias"].shape) == ((5, 2), (5,))
    assert f"state_dict.{word}.weight" in dict(chosen.notes)["head"]
    assert chosen.left_out == {}
    assert len(chosen.arrays) == 3


@pytest.mark.parametrize(
    "head",
    [
        {"classifier.weight": (5, 3), "classifier.bias": (5,)},
        {"classifier.weight": (5, 2)},
        {"classifier.weight": (5, 2), "classifier.bias": (4,)},
        {"classifier.0.weight": (2, 2), "classifier.0.bias": (2,),
         "classifier.3.weight": (5, 2), "classifier.3.bias": (5,)},
        {**LINEAR, "head.weight": (5, 2), "head.bias": (5,)},
        {**LINEAR, "model.vit.pooler.dense.weight": (2, 2)},
    ],
)  # fmt: skip
def test_a_head_that_is_not_plainly_one_is_warned_of(head):
    chosen = choose(lightning(head))
    assert "left out" in dict(chosen.notes)["warning"]
    assert "classifier" in dict(chosen.notes)["warning"]
    assert "head.weight" not in translate(chosen.dialect, chosen.arrays).entries


def test_a_head_of_another_model_is_not_taken():
    file = lightning({"student.head.weight": (5, 2), "student.head.bias": (5,)},
                     "teacher.patch_embed.proj.weight")  # fmt: skip
    assert list(choose(file).arrays) == ["patch_embed.proj.weight"]
    inside = {"model.vit.classifier.weight": (5, 2), "model.vit.classifier.bias": (5,)}
    assert not choose(lightning({**LINEAR, **inside})).notes


def test_one_array_under_two_names_is_refused():
    names = ["patch_embed.proj.weight", "module.patch_embed.proj.weight"]
    with pytest.raises(WeightFileError, match="two for patch_embed"):
        choose(file_of(names))


REFUSED = {
    "Swin Transformer of version 2": [
        "patch_embed.proj.weight",
        "layers.0.blocks.0.cpb_mlp.0.bias",
    ],
    "in names that are not known": ["stages.0.blocks.0.attn.relative_position_bias_table"],
    "Swin Transformer with absolute positions": [
        "absolute_pos_embed",
        "layers.0.blocks.0.attn.relative_position_bias_table",
    ],
    "BEiT": ["patch_embed.proj.weight", "blocks.0.attn.relative_position_bias_table"],
    "SAM": ["patch_embed.proj.weight", "blocks.0.attn.rel_pos_h"],
    "ResNet and a ViT": ["embedding/kernel", "conv_root/kernel"],
    "several convolutions": ["conv_proj.conv_bn_relu_0.0.weight"],
    "CLIP or SigLIP": ["visual.conv1.weight", "token_embedding.weight"],
    "model of texts": ["text_model.embeddings.token_embedding.weight"],
    "ConvNeXt": ["stages.0.blocks.0.conv_dw.weight"],
    "a ResNet": ["layer1.0.conv1.weight", "fc.weight"],
    "LoRA": ["patch_embed.proj.weight", "blocks.0.attn.qkv.lora_A.weight"],
    "quantised": ["patch_embed.proj.weight", "blocks.0.attn.qkv.SCB"],
    "rotary": ["patch_embed.proj.weight", "blocks.0.attn.q_proj.weight"],
    "without its backbone": ["weight", "bias"],
    "norms inside its attention": ["patch_embed.proj.weight", "blocks.0.attn.norm.weight"],
    "attention or MLP": ["patch_embed.proj.weight", "blocks.0.mlp.norm.weight"],
}


@pytest.mark.parametrize("what", REFUSED)
def test_other_models_are_recognised_and_refused(what):
    with pytest.raises(WeightFileError, match=what):
        choose(file_of(REFUSED[what]))


def test_another_model_type_of_hugging_face_is_refused():
    names = ["swin2.embeddings.patch_embeddings.projection.weight"]
    with pytest.raises(WeightFileError, match="got 'dpt'"):
        choose(file_of(names, config={"model_type": "dpt"}))


@pytest.mark.parametrize(
    "fields",
    [
        {"path": "vit_base_patch16_rpn_224.sw_in1k.safetensors"},
        {"path": "my_rpn.pth"},
        {"values": {"args.model": "vit_base_patch16_rpn_224"}},
        {"values": {"arch": "test_vit3.r160_in1k"}},
        {"config": {"architecture": "vit_base_patch16_rpn_224"}},
    ],
)
def test_models_of_other_blocks_are_refused_wherever_their_name_is(fields):
    with pytest.raises(WeightFileError, match="usual blocks"):
        choose(file_of(["patch_embed.proj.weight"], **fields))
    choose(file_of(["patch_embed.proj.weight"], path="terpnet.pth"))


def test_unknown_names_are_shown_with_the_known_dialects():
    with pytest.raises(WeightFileError) as error:
        choose(file_of(["alpha", "beta"]))
    for word in ("'alpha'", "'beta'", "torchvision", "Google"):
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("names", "fields", "family"),
    [
        (["patch_embed.proj.weight"], {}, "timm"),
        (["patch_embed.proj.weight"], {"path": "deit_tiny.pth"}, "timm (DeiT)"),
        (["patch_embed.proj.weight"], {"path": "vit_base.mae.pth"}, "timm (MAE)"),
        (["patch_embed.proj.weight", "dist_token"], {}, "timm (DeiT)"),
        (["patch_embed.proj.weight", "register_tokens"], {}, "DINOv2 with registers"),
        (["model.patch_embed.proj.weight", "model.head.weight"], {}, "DeiT"),
        (["model.patch_embed.proj.weight"], {}, "MAE"),
        (["model.patch_embed.proj.weight", "model.blocks.0.gamma_1"], {}, "DeiT"),
        (["teacher.patch_embed.proj.weight"], {}, "DINO"),
        (["conv_proj.weight"], {}, "torchvision"),
        (["embedding/kernel"], {}, "Google (vision_transformer)"),
        (["params/img/embedding/kernel"], {}, "Google (big_vision)"),
        (["vit.embeddings.patch_embeddings.projection.weight"], {}, "Hugging Face (ViT)"),
        (
            ["dinov2.embeddings.patch_embeddings.projection.weight"],
            {"config": {"model_type": "dinov2"}},
            "Hugging Face (Dinov2)",
        ),
        (["embedding.patch_embeddings.projection.weight"], {}, "the tutorial"),
    ],
)
def test_the_family_is_told_by_what_only_it_has(names, fields, family):
    file = file_of(names, **fields)
    chosen = choose(file)
    assert find_family(file, chosen, translate(chosen.dialect, chosen.arrays))[0].title == family


def test_every_dialect_has_a_title_and_an_anchor_that_its_own_rules_know():
    for known in DIALECTS:
        name = known.example
        for pattern, replacement in known.respellings:
            name = re.sub(pattern, replacement, name)
        assert translate(known, stored(**{name: numbered(1, 1, 1, 1)})).entries
