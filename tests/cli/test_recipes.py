from __future__ import annotations

import dataclasses
import json

import pytest

from numpyvit.cli.train_options import RECIPE_OPTIONS
from numpyvit.train import RECIPES, Recipe


def test_every_recipe_is_listed_with_its_numbers_and_its_source(command):
    out = command("recipes").out
    table, *details = out.split("\n\n")
    assert table.splitlines()[0].split()[:3] == ["recipe", "epochs", "batch"]
    assert [line.split()[0] for line in table.splitlines()[1:]] == list(RECIPES)
    for (name, recipe), text in zip(RECIPES.items(), details, strict=True):
        heading, *lines = text.splitlines()
        assert heading == name
        assert recipe.source in " ".join(" ".join(lines).split())
    assert max(map(len, out.splitlines())) <= 80


def test_the_list_says_what_a_recipe_does_to_pictures_and_weights(command):
    text = command("recipes").out.partition("\ndeit\n")[2].partition("source")[0]
    for words in ("mixup 0.8 or cutmix 1", "RandAugment 9", "each picture 3 times", "drop path"):
        assert words in " ".join(text.split())


def test_as_json_every_field_is_there(command):
    found = json.loads(command("recipes", "--json").out)
    assert list(found) == list(RECIPES)
    assert set(found["deit"]) == {field.name for field in dataclasses.fields(Recipe)}
    assert found["deit"]["mixup"] == 0.8


def test_the_options_of_train_are_fields_of_a_recipe():
    assert set(RECIPE_OPTIONS) <= {field.name for field in dataclasses.fields(Recipe)}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mixup", "-1"], "--mixup: expected a number of at least 0, got '-1'"),
        (["--random-erasing", "1.5"], "--random-erasing: expected a number from 0 to below 1"),
        (["--ema", "1"], "--ema: expected a number from 0 to below 1, got '1'"),
        (["--repeats", "0"], "--repeats: expected a whole number above 0, got '0'"),
        (["--mixpu", "1"], "unknown argument '--mixpu'; did you mean '--mixup'?"),
    ],
)
def test_settings_out_of_range_are_refused_with_their_option(command, words, message):
    assert message in command("train", *words).mistake(status=2)


def test_a_magnitude_beyond_the_scale_is_refused_before_anything_is_made(command, tmp_path):
    mistake = command("train", "--randaugment", 11, "--out", "run").mistake()
    assert mistake == "expected randaugment <= 10, got 11.0"
    assert not (tmp_path / "run").exists()
