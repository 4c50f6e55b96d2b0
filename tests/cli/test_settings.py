"""`--set`: what it takes, and what is said of a value that cannot be."""

from __future__ import annotations

import argparse

import pytest

from numpyvit.cli.opening import setting


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["num_heads=5"],
            "num_heads: expected heads that divide the width 48 (1, 2, 3, 4, 6, 8, 12, 16, 24, "
            "48), got 5",
        ),
        (["activation=nonsense"], "activation: unknown name 'nonsense'; known: gelu, "),
        (["pooling=mean"], "pooling: unknown pooling 'mean'; known: token, avg, "),
        (["norm_eps=-1"], "norm_eps: 'norm_eps' must be positive but got -1.0"),
        (["depth=3"], "depth: expected depth=2, as the arrays in "),
        (["num_heads=6", "activation=nonsense"], "activation: unknown name"),
        (["activation=relu", "num_heads=7"], "num_heads: expected heads that divide"),
    ],
)
@pytest.mark.parametrize("name", ["predict", "train"])
def test_a_value_that_cannot_be_names_its_field_with_status_two(
    command, weights, pictures, name, words, message
):
    settings = [word for text in words for word in ("--set", text)]
    data = ("--data", pictures) if name == "train" else (pictures,)
    found = command(name, *data, "--weights", weights, *settings).mistake(status=2)
    assert found.startswith(f"argument --set: {message}")


def test_a_file_s_own_fault_is_not_blamed_on_a_setting(command, tmp_path):
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    message = command("inspect", tmp_path / "bad.npz", "--set", "num_heads=3").mistake()
    assert "--set" not in message


def test_only_fields_that_can_be_set_are_offered(command, weights):
    message = command("inspect", weights, "--set", "nonsense=3").mistake(status=2)
    offered = message.partition("known: ")[2].partition(";")[0].split(", ")
    named = ["num_heads", "norm_eps", "activation", "pooling", "patch_size", "preprocessing"]
    assert offered == named
    text = " ".join(command("predict", "--help").out.split())
    assert ", ".join(offered) in text


def test_of_a_model_to_train_every_field_can_be_set_and_is_offered(command):
    message = command("train", "--set", "nonsense=1").mistake(status=2)
    for name in ("stem", "positions", "block", "window_size", "decoder_depth"):
        assert f" {name}," in message
    assert "image_size" not in message
    message = command("train", "--set", "registers=4").mistake(status=2)
    assert "did you mean 'num_registers'?" in message


def test_a_part_that_another_family_has_is_not_answered_with_a_stranger(command):
    words = ("train", "--model", "swin_cifar_patch2_32", "--set", "positions=rotary")
    assert "unknown option 'positions'; known: " in command(*words).mistake()


def test_messages_speak_as_set_does(command):
    message = command("train", "--set", "class_token=false").mistake()
    assert message == (
        "expected class_token=true with pooling=token, got false; take pooling=avg without a class "
        "token"
    )
    assert "; pad=true fills" in command("train", "--set", "patch_size=5").mistake()


def test_the_words_of_inspect_are_fields_too(command, weights):
    out = command("inspect", weights, "--set", "heads=6", "--set", "epsilon=1e-5").out
    assert "6 heads" in out
    assert "norm_eps=1e-05" in out


def test_another_preprocessing_can_be_set(command, weights):
    out = command("inspect", weights, "--set", "preprocessing=hugging_face_vit").out
    assert "both sides to" in out
    message = command("inspect", weights, "--set", "preprocessing=diet").mistake(status=2)
    assert message.startswith("argument --set: unknown preprocessing 'diet'; did you mean 'deit'")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("num_heads=6", ("num_heads", 6)),
        ("num_heads=2,4", ("num_heads", (2, 4))),
        ("depths=2,4", ("depths", (2, 4))),
        ("window_size=4", ("window_size", 4)),
        ("patch_size=4,8", ("patch_size", (4, 8))),
    ],
)
def test_a_field_is_what_any_family_of_models_has_it_be(text, expected):
    assert setting(text) == expected


def test_a_value_that_no_family_takes_is_refused():
    for text, meaning in (("depths=2.5", "whole numbers with commas"), ("depth=two", "a whole")):
        with pytest.raises(argparse.ArgumentTypeError, match=f"expected {meaning}"):
            setting(text)


def test_inspect_names_what_was_set(command, tmp_path):
    words = ("--epochs", 1, "--train-images", 64, "--set", "depth=1", "--set", "pad=true")
    words = (*words, "--set", "patch_size=12", "--out", tmp_path / "run")
    assert command("train", *words).status == 0
    out = " ".join(command("inspect", tmp_path / "run").out.split())
    assert "model vit_cifar_patch4_32 with patch_size=12, depth=1, pad=true, " in out
