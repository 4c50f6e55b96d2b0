"""Weights that others wrote, through every command: opened, reported, corrected, used."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from tolerances import assert_same_bits

from numpyvit.cli import classes, opening
from numpyvit.data import Normalize, imagenet_classes, imagenet_wordnet_ids, read_picture
from numpyvit.models import Labelling, create_model, save_model
from numpyvit.train import class_probabilities
from numpyvit.weights import load_pretrained, write_safetensors


def test_what_was_guessed_of_a_file_and_what_changes_the_result_is_said_on_stderr(
    command, weights, red_picture
):
    result = command("predict", red_picture, "--weights", weights, "--set", "norm_eps=1e-5")
    assert result.status == 0, result.err
    names = [line.split("  ")[0] for line in result.err.splitlines() if line[0] != " "]
    assert {"model", "asked for", "evaluation", "preprocessing"} <= set(names)
    assert not {"container", "dialect", "tokens", "classes", "file"} & set(names)
    assert result.err.endswith(f"\nnumpyvit inspect {weights} says more\n")
    shown = command("inspect", weights).out.splitlines()
    names = {line.split("  ")[0] for line in shown if line[0] != " "}
    assert {"container", "dialect", "tokens", "classes"} <= names


def test_predictions_are_the_model_s_own(command, weights, pictures, inputs_of):
    files = sorted((pictures / "test" / "red").glob("*.png"))
    result = command("predict", *files, "--weights", weights, "--json", "--top-k", 3)
    found, images = inputs_of(weights, files)
    expected = class_probabilities(found.model, images)
    for entry, chances in zip(json.loads(result.out), expected, strict=True):
        best = np.argsort(-chances, kind="stable")[:3]
        for guess, index in zip(entry["predictions"], best, strict=True):
            assert guess == {
                "class": imagenet_classes()[index],
                "index": index,
                "wordnet_id": imagenet_wordnet_ids()[index],
                "probability": float(chances[index]),
            }


def test_checkpoint_is_another_spelling_of_weights(command, weights, red_picture):
    one, other = (
        command("predict", red_picture, option, weights) for option in ("--weights", "--checkpoint")
    )
    assert one == other


@pytest.mark.parametrize("size", [1, 3, 100])
def test_folders_are_predicted_in_order_whatever_the_batch(command, weights, pictures, size):
    folder = pictures / "test"
    words = ("predict", folder, "--weights", weights, "--json")
    files = [str(path) for path in sorted(folder.rglob("*.png"))]
    result = command(*words, "--batch-size", size)
    assert [entry["image"] for entry in json.loads(result.out)] == files
    assert len(files) == 12


def test_a_bad_picture_in_a_folder_is_reported_and_the_rest_go_on(
    command, weights, pictures, tmp_path
):
    folder = shutil.copytree(pictures / "test" / "red", tmp_path / "red")
    (folder / "1.png").write_text("no picture")
    result = command("predict", folder, "--weights", weights, "--json", "--batch-size", 2)
    assert result.status == 1
    names = [entry["image"] for entry in json.loads(result.out)]
    assert names == [str(folder / f"{number}.png") for number in (0, 2, 3)]
    assert len([line for line in result.err.splitlines() if "1.png" in line]) == 1


def test_a_folder_without_pictures_is_one_clear_line(command, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "expected pictures in" in command("predict", tmp_path / "empty").mistake()


def test_torch_s_files_open_too(command, weights, red_picture, tmp_path, small_state):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    path = tmp_path / "checkpoint.pth"
    state = {name: torch.from_numpy(array) for name, array in small_state.items()}
    torch.save({"model": state, "epoch": 3}, path)
    assert command("predict", red_picture, "--weights", path).status == 0
    found, expected = (json.loads(command("inspect", p, "--json").out) for p in (path, weights))
    assert (found["config"], found["arrays"]) == (expected["config"], expected["arrays"])


def test_the_image_size_can_be_changed(command, weights, red_picture):
    result = command("inspect", weights, "--image-size", 48, "--json")
    found = json.loads(result.out)
    assert (found["config"]["image_size"], found["preprocessing"]["size"]) == (48, 48)
    assert found["arrays"]["pos_embed"] == [1, 37, 48]
    assert command("predict", red_picture, "--weights", weights, "--image-size", 48).status == 0


def test_what_was_concluded_can_be_corrected(command, weights, red_picture):
    words = ("inspect", weights, "--json")
    assert json.loads(command(*words).out)["config"]["num_heads"] == 4
    options = ("--set", "num_heads=6", "--set", "activation=gelu_tanh", "--set", "norm_eps=1e-5")
    config = json.loads(command(*words, *options).out)["config"]
    assert (config["num_heads"], config["activation"], config["norm_eps"]) == (6, "gelu_tanh", 1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("num_heads", "expected FIELD=VALUE as in num_heads=6, got 'num_heads'"),
        ("num_head=6", "unknown field 'num_head'; did you mean 'num_heads'?"),
        ("num_heads=6.5", "expected a whole number as num_heads, got '6.5'"),
        ("norm_eps=x", "expected a number as norm_eps, got 'x'"),
        ("final_norm=maybe", "expected true or false as final_norm, got 'maybe'"),
        ("num_classes=5", "num_classes cannot be set: the file has its classes"),
        ("image_size=64", "image_size cannot be set: use --image-size"),
    ],
)
def test_a_correction_that_makes_no_sense_has_status_two(command, weights, text, message):
    assert message in command("inspect", weights, "--set", text).mistake(status=2)


def test_what_a_file_does_not_say_is_asked_for_by_its_option(command, small_state, tmp_path):
    path = tmp_path / "narrow.safetensors"
    narrow = {
        name: np.resize(array, [side * 5 // 6 if side % 48 == 0 else side for side in array.shape])
        for name, array in small_state.items()
    }
    write_safetensors(path, narrow)
    message = command("inspect", path).mistake()
    assert "--set num_heads=..." in message


def test_a_model_without_classes_predicts_nothing(command, red_picture, tmp_path, small_state):
    state = small_state
    path = tmp_path / "headless.safetensors"
    write_safetensors(path, {k: v for k, v in state.items() if not k.startswith("head.")})
    result = command("predict", red_picture, "--weights", path)
    assert result.status == 1
    assert "expected a model that knows classes, got one without a head" in result.err
    assert "numpyvit features" in result.err


def test_weights_are_evaluated_on_folders_called_by_their_classes(
    command, weights, pictures, tmp_path, inputs_of
):
    names = {"red": "n01440764", "green": "goldfish", "blue": "2"}
    for colour, name in names.items():
        shutil.copytree(pictures / "test" / colour, tmp_path / "data" / name)
    (tmp_path / "data" / "n01440764" / "0.png").unlink()
    words = ("evaluate", weights, "--data", tmp_path / "data", "--workers", 1)
    found = json.loads(command(*words, "--json", "--out", tmp_path / "out").out)
    assert found["images"] == 11
    assert list(found["class_accuracy"]) == list(imagenet_classes()[:3])
    expected = 0
    for index, colour in enumerate(names):
        files = sorted((tmp_path / "data" / names[colour]).glob("*.png"))
        loaded, images = inputs_of(weights, files)
        expected += (class_probabilities(loaded.model, images).argmax(1) == index).sum()
    assert found["accuracy"] == expected / 11
    known = imagenet_classes()
    assert found["confusion_classes"] == [*known[:3], "other classes"]
    assert list(map(sum, found["confusion"])) == [3, 4, 4, 0]
    assert (tmp_path / "out" / "confusion.png").is_file()
    text = command(*words)
    assert text.out.startswith(f"weights   {weights}\n")
    assert "11 test images, 3 of 1,000 classes" in text.out
    assert len(text.out.splitlines()) < 15


def test_weights_need_data_to_be_evaluated_on(command, weights):
    result = command("evaluate", weights)
    assert result.status == 1
    assert "name it with --data" in result.err
    again = command("evaluate", weights, "--weights", weights)
    assert "expected one model" in again.err


def test_inspect_says_what_a_file_holds(command, weights, run_folder):
    result = command("inspect", weights, "--arrays", "--classes")
    assert (result.status, result.err) == (0, "")
    assert "blocks.1.attn.qkv.weight" in result.out
    assert "144 x 48" in result.out
    assert " n01440764  tench" in result.out
    assert "parameters, 0.001 G multiply-adds a picture" in " ".join(result.out.split())
    own = command("inspect", run_folder).out
    assert re.search(r"9,795 parameters,\s+\d\d,\d{3}\s+multiply-adds", own)
    assert "numpyvit's own checkpoint" in own
    assert "3: blue, green, red" in own
    assert "as numpyvit trains" in own


def test_inspect_names_parts_of_another_kind(command, tmp_path):
    model = create_model("vit_cifar_patch4_32", block="parallel", norm="rms", depth=1)
    path = tmp_path / "model.npz"
    save_model(path, "tiny", model, Labelling(class_names=tuple("abcdefghij")))
    shown = " ".join(command("inspect", path).out.split())
    assert "(gelu_tanh), block parallel, norm rms; the head reads the class token" in shown


def test_inspect_as_json_holds_the_preprocessing(command, weights):
    found = json.loads(command("inspect", weights, "--json").out)
    loaded = load_pretrained(weights)
    assert found["preprocessing"] == loaded.preprocessing.to_dict()
    assert found["config"] == loaded.model.config.to_dict()
    assert found["parameters"] == loaded.model.num_parameters()
    assert found["class_names"] == list(imagenet_classes())
    assert found["wordnet_ids"] == list(imagenet_wordnet_ids())


def test_classes_are_found_by_name_synonym_number_and_wordnet_id():
    known = imagenet_classes()
    for index in (0, 282, 999):
        for text in (known[index], known[index].upper(), str(index), imagenet_wordnet_ids()[index]):
            assert classes.class_index(text, known, 1000) == index
    assert classes.class_index("tabby cat", ["dog", "tabby, tabby cat"], 2) == 1
    assert classes.class_index("7", ["3", "7"], 2) == 1
    assert classes.class_index("1", ["3", "7"], 2) == 1
    assert classes.class_index("5", (), 48) == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("goldfihs", "did you mean 'goldfish'"),
        ("1000", "expected a class from 0 to 999, got 1000"),
        ("cat", "did you mean 'tiger cat' or .* or 'Egyptian cat'"),
        ("-1", "expected a class from 0 to 999, got -1"),
        ("crane", r"several classes are called 'crane': 134 \(crane"),
        ("n99999999", "no class is called 'n99999999'"),
    ],
)
def test_a_class_that_is_not_there_is_a_clear_error(text, message):
    with pytest.raises(ValueError, match=message):
        classes.class_index(text, imagenet_classes(), 1000)


def test_wordnet_ids_are_known_for_imagenet_in_other_words_and_for_ids_alone():
    ids = imagenet_wordnet_ids()
    longer = [f"{name}, and more" for name in imagenet_classes()]
    assert classes.wordnet_ids(longer) == ids
    assert classes.wordnet_ids(ids[:3]) == ids[:3]
    assert classes.wordnet_ids([f"class {number}" for number in range(1000)]) is None
    assert classes.wordnet_ids(["cat", "dog"]) is None
    assert classes.wordnet_ids([]) is None


def test_own_models_prepare_pictures_as_they_were_trained(run_folder, tmp_path):
    opened = opening.open_model(str(run_folder))
    pillow = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3)).astype(np.uint8)
    turned, picture = pillow.Exif(), tmp_path / "turned.png"
    turned[0x0112] = 6  # orientation: a quarter turn
    pillow.fromarray(pixels).save(picture, exif=turned)
    prepared = opened.preprocessing(opened.preprocessing.load(picture))
    normalize = Normalize(opened.labelling.mean, opened.labelling.std)
    assert_same_bits(prepared, normalize(read_picture(picture, 16)[None])[0])


def test_a_tuned_run_is_evaluated_as_it_was_validated(command, weights, pictures, tmp_path):
    words = ("--data", pictures, "--epochs", 1, "--batch-size", 8, "--out", tmp_path / "run")
    assert command("train", "--weights", weights, *words).status == 0
    found = json.loads(command("evaluate", tmp_path / "run", "--json").out)
    (row,) = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    last = json.loads(row)
    assert (found["loss"], found["accuracy"]) == (last["val_loss"], last["val_accuracy"])
    rule = json.loads(command("inspect", tmp_path / "run", "--json").out)["preprocessing"]
    assert (rule["mode"], rule["upright"]) == ("shortest", True)


def test_an_own_checkpoint_that_unpacks_to_far_more_than_its_size_is_refused(
    command, run_folder, red_picture, tmp_path
):
    with np.load(run_folder / "last.npz") as file:
        entries = {name: file[name] for name in file.files}
    bomb = tmp_path / "bomb.npz"
    np.savez_compressed(bomb, **entries, zeros=np.zeros(1 << 25, np.float32))
    message = command("predict", red_picture, "--weights", bomb).mistake()
    assert "bomb.npz" in message
    assert "which no weights do" in message
