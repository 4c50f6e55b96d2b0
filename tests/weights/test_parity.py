"""Tiny models that the real libraries wrote and ran: numpyvit must answer the same.

tools/reference/write_fixtures.py makes the files; its README says what is in a case.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tolerances import assert_close

from numpyvit.tensor import no_grad
from numpyvit.weights import load_pretrained

FIXTURES = Path(__file__).resolve().parent / "fixtures"
FACTS = {
    path.parent.name: json.loads(path.read_text("utf-8"))
    for path in sorted(FIXTURES.glob("*/case.json"))
}
CASES = [name for name, facts in FACTS.items() if "refused" not in facts]
REFUSED = [name for name, facts in FACTS.items() if "refused" in facts]


def load(name, dtype="float32"):
    facts = FACTS[name]
    path = FIXTURES / name / facts["open"]
    return load_pretrained(path, dtype=np.dtype(dtype).name, **facts["overrides"])


def answers(name):
    with np.load(FIXTURES / FACTS[name].get("same_as", name) / "expected.npz") as arrays:
        return dict(arrays)


def test_there_are_cases_of_every_family():
    families = {name.partition("_")[0] for name in CASES}
    assert families == {
        *("torchvision", "timm", "hf", "google", "tutorial"),
        *("deit", "deit3", "mae", "dino", "dinov2", "swin"),
    }


# What is between the stages of a Swin Transformer has its own test, in test_swin.py.
@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("swin")])
def test_logits_tokens_and_attention_are_the_librarys(name, dtype):
    model, expected = load(name, dtype).model, answers(name)
    assert not model.training
    with no_grad():
        output = model(
            expected["images"].astype(dtype), return_attention=True, return_hidden_states=True
        )
    assert len(output.attention) == len(expected["attention"])
    for ours, theirs in zip(output.attention, expected["attention"], strict=True):
        assert_close(ours, theirs, dtype)
    for ours, theirs in zip(output.hidden_states, expected["hidden_states"], strict=True):
        assert_close(ours, theirs, dtype)
    assert_close(output.logits, expected["logits"], dtype)


@pytest.mark.parametrize("name", CASES)
def test_asking_for_logits_alone_gives_the_librarys(name):
    model, expected = load(name).model, answers(name)
    with no_grad():
        logits = model(expected["images"].astype(np.float32))
    assert_close(logits, expected["logits_float32"])


FOLDERS = [name for name in CASES if (FIXTURES / name / "model" / "model.safetensors").is_file()]
# What these models have otherwise than their family, which only the config says.
NOT_IN_THE_ARRAYS = {
    "timm_clip_quickgelu": {"activation": "quick_gelu"},
    "hf_vit_tanh_no_bias": {"activation": "gelu_tanh", "norm_eps": 1e-6},
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_file_without_its_config_gives_the_same_logits(name, tmp_path):
    path = tmp_path / "weights"
    path.write_bytes((FIXTURES / name / "model" / "model.safetensors").read_bytes())
    expected = answers(name)
    said = {"image_size": expected["images"].shape[-1]} if "swin" in name else {"num_heads": 2}
    overrides = {**said, **NOT_IN_THE_ARRAYS.get(name, {})}
    model = load_pretrained(path, dtype="float64", **overrides).model
    with no_grad():
        assert_close(model(expected["images"]), expected["logits"])


@pytest.mark.parametrize("name", REFUSED)
def test_what_looks_like_a_vit_and_is_none_is_refused(name):
    with pytest.raises(ValueError, match=FACTS[name]["refused"]):
        load(name)
