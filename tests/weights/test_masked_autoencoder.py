"""Masked autoencoders in the files of the paper's code and of transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits

from numpyvit.models import MAEConfig
from numpyvit.weights import (
    WeightFileError,
    load_masked_autoencoder,
    load_pretrained,
    open_weights,
    write_safetensors,
)

FIXTURES = Path(__file__).resolve().parent / "fixtures"
FIXTURE = FIXTURES / "mae_pretraining"
FACTS = {"num_heads": 2, "decoder_num_heads": 1, "norm_eps": 1e-12}  # a file does not say them


@pytest.mark.parametrize(("name", "facts"), [("weights.pth", FACTS), ("model", {})])
def test_a_whole_file_gives_transformers_answers(name, facts, dtype):
    model = load_masked_autoencoder(FIXTURE / name, dtype=dtype.name, **facts)
    assert not model.training
    assert not model.pos_embed.requires_grad
    with np.load(FIXTURE / "expected.npz") as expected:
        out = model(expected["images"].astype(dtype), expected["noise"])
        assert_same_bits(out.mask, expected["mask"] == 1)
        assert_close(out.prediction, expected["prediction"], dtype)
        assert_close(out.loss, expected["loss"], dtype)
        raw = load_masked_autoencoder(FIXTURE / name, dtype=dtype.name, norm_pix=False, **facts)
        found = raw(expected["images"].astype(dtype), expected["noise"]).loss
        assert_close(found, expected["loss_of_raw_pixels"], dtype)


def test_both_forms_are_the_same_model():
    paper = load_masked_autoencoder(FIXTURE / "weights.pth", **FACTS)
    folder = load_masked_autoencoder(FIXTURE / "model")
    assert isinstance(folder.config, MAEConfig)
    assert paper.config == folder.config
    for name, array in paper.state_dict().items():
        assert_same_bits(folder.state_dict()[name], array)


@pytest.mark.parametrize(("name", "facts"), [("weights.pth", {"num_heads": 2}), ("model", {})])
def test_load_pretrained_takes_the_encoder_and_says_what_it_drops(name, facts):
    found = load_pretrained(FIXTURE / name, **facts)
    whole = load_masked_autoencoder(FIXTURE / "model").encoder_state()
    assert found.model.state_dict().keys() == whole.keys()
    for key, array in found.model.state_dict().items():
        assert_same_bits(array, whole[key])
    assert any(topic == "dropped" and "decoder" in text for topic, text in found.report)


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name.replace("decoder_encoder.layer.", "decoder_layers."),  # on the hub
        lambda name: name.replace("vit.encoder.layer.", "vit.layers."),
        lambda name: f"module.{name}",
    ],
)
def test_other_spellings_of_the_same_names_are_read(rename, tmp_path):
    arrays = {
        rename(name): stored.read()
        for name, stored in open_weights(FIXTURE / "model").arrays.items()
    }
    write_safetensors(tmp_path / "weights.safetensors", arrays)
    model = load_masked_autoencoder(tmp_path / "weights.safetensors", **FACTS)
    expected = load_masked_autoencoder(FIXTURE / "model")
    for name, array in model.state_dict().items():
        assert_same_bits(array, expected.state_dict()[name])


def test_the_encoder_is_what_load_pretrained_finds_in_the_same_file():
    model = load_masked_autoencoder(FIXTURE / "model")
    plain = load_pretrained(FIXTURE / "model").model
    for name, array in plain.state_dict().items():
        assert_same_bits(array, model.encoder_state()[name])


def changed(tmp_path, change):
    arrays = {
        name.removeprefix("model."): stored.read()
        for name, stored in open_weights(FIXTURE / "weights.pth").arrays.items()
    }
    change(arrays)
    write_safetensors(tmp_path / "weights.safetensors", arrays)
    return tmp_path / "weights.safetensors"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("mask_token"), r"mask_token: expected shape \(1, 1, 4\), got None"),
        (lambda a: a.update(more=a["mask_token"]), "more: unexpected"),
        (
            lambda a: a.update({"decoder_pred.bias": a["mask_token"][0, 0]}),
            r"decoder_pred.bias: expected shape \(48,\), got \(4,\)",
        ),
        (lambda a: a.pop("decoder_embed.weight"), "expected a decoder .* found none|got none"),
        (lambda a: a.pop("pos_embed"), "got arrays without 'pos_embed'"),
        (lambda a: a.pop("decoder_blocks.0.norm1.weight"), "the decoder's sizes do not fit"),
    ],
)
def test_files_that_hold_no_whole_model_are_refused(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load_masked_autoencoder(changed(tmp_path, change), **FACTS)


def test_what_no_file_says_must_be_given():
    path = FIXTURES / "mae_pretrain_full" / "weights.pth"
    with pytest.raises(WeightFileError, match=r"a width whose num_heads is known .* num_heads=..."):
        load_masked_autoencoder(path)
    with pytest.raises(WeightFileError, match="a width whose decoder_num_heads is known"):
        load_masked_autoencoder(path, num_heads=2)
    with pytest.raises(ValueError, match="unknown option 'heads'"):
        load_masked_autoencoder(path, num_heads=2, decoder_num_heads=2, heads=2)
    with pytest.raises(WeightFileError, match="an encoder alone is opened by load_pretrained"):
        load_masked_autoencoder(FIXTURES / "mae_pretrain" / "weights.pth")
    with pytest.raises(FileNotFoundError):
        load_masked_autoencoder(FIXTURES / "nothing")
