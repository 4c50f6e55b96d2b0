"""Pre-training a masked autoencoder: bits, rows, checkpoints, masks, what it is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.random import SFC64, Generator
from tolerances import assert_close, assert_same_bits
from train import tiny
from train.tiny import StoppedTrainer, interrupted, outcome_of, tiny_trainer

from numpyvit.models import (
    VARIANTS,
    MAEConfig,
    MaskedAutoencoder,
    ViTConfig,
    load_model,
    model_config,
)
from numpyvit.nn import use_generator
from numpyvit.tensor import Tensor, no_grad
from numpyvit.train import (
    OBJECTIVES,
    Classification,
    Evaluation,
    NonFiniteError,
    Reconstruction,
    RunConfig,
    RunFolder,
    Teaching,
    Trainer,
    WorkerPool,
    evaluate,
    micro_batch_for,
    objective_of,
    parameter_groups,
    pictures,
    recipe,
    set_gradients,
)

CONFIG = MAEConfig(
    encoder=ViTConfig(
        image_size=8, patch_size=2, num_classes=0, embed_dim=16, depth=2, num_heads=2
    ),
    decoder_embed_dim=8,
    decoder_depth=1,
    decoder_num_heads=2,
)
FIXED = ("pos_embed", "decoder_pos_embed")


@pytest.fixture(autouse=True)
def mae(tiny_variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of the tiny model stands for a masked autoencoder."""
    monkeypatch.setitem(VARIANTS, tiny_variant, CONFIG)


@pytest.fixture
def model() -> MaskedAutoencoder:
    return MaskedAutoencoder(CONFIG, rng=np.random.default_rng(0))


@pytest.fixture
def batch(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """20 images: micro-batches of 8, 8 and 4; and labels."""
    return rng.standard_normal((20, 3, 8, 8), np.float32), rng.integers(0, 4, 20)


def gradients_of(model: MaskedAutoencoder, images: Any, labels: Any, seed: Any = (0, 0)) -> Any:
    with WorkerPool(1) as pool:
        result = set_gradients(
            model, images, labels, pool, seed=seed, objective=Reconstruction(), micro_batch=8
        )
    return result, {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


def noise_of(seed: Any, count: int) -> np.ndarray:
    return Generator(SFC64(seed)).random((count, CONFIG.num_patches))


def test_workers_and_a_stop_in_between_do_not_change_a_bit(tmp_path: Path) -> None:
    tiny_trainer(tmp_path / "whole").fit()
    outcome = outcome_of(tmp_path / "whole")
    tiny_trainer(tmp_path / "two", workers=2).fit()
    interrupted(tiny_trainer(tmp_path / "resumed", kind=StoppedTrainer), step=5)
    tiny_trainer(tmp_path / "resumed").fit()
    assert outcome_of(tmp_path / "two") == outcome_of(tmp_path / "resumed") == outcome


def test_rows_have_losses_that_fall_and_no_accuracies(tmp_path: Path) -> None:
    rows = tiny_trainer(tmp_path, epochs=8, lr=1e-2, dropout=0.0).fit()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == rows
    for row in rows:
        assert row["train_accuracy"] is row["val_accuracy"] is None
    for name in ("train_loss", "val_loss"):
        assert rows[-1][name] < rows[0][name]


def test_the_best_checkpoint_is_the_first_of_the_least_losses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([3.0, 2.0, 2.5, 2.0])
    nothing = np.zeros((0, 0), np.int64)
    monkeypatch.setattr(Trainer, "_validate", lambda self: Evaluation(next(losses), nothing))
    tiny_trainer(tmp_path, epochs=4).fit()
    progress = load_model(tmp_path / "best.npz").archive.record["progress"]
    assert (progress["epoch"], progress["best_loss"]) == (2, 2.0)


def test_a_checkpoint_holds_the_whole_model_and_no_classes(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path)
    before = {name: trainer.model.state_dict()[name].copy() for name in FIXED}
    trainer.fit()
    saved = load_model(tmp_path / "last.npz")
    assert saved.model.config == trainer.model.config
    assert saved.labelling.class_names == ()
    assert saved.labelling.mean == tiny.RECIPE.mean
    for name, array in trainer.model.state_dict().items():
        assert_same_bits(saved.model.state_dict()[name], array)
    for name in FIXED:
        assert_same_bits(saved.model.state_dict()[name], before[name])


def test_masks_are_drawn_from_seed_step_and_micro_batch(
    model: MaskedAutoencoder, batch: tuple[np.ndarray, np.ndarray]
) -> None:
    result, found = gradients_of(model, *batch, seed=(3, 7))
    noise = np.concatenate([noise_of((3, 7, i), n) for i, n in enumerate((8, 8, 4))])
    for parameter in model.parameters():
        parameter.grad = None
    loss = model(batch[0], noise).loss
    loss.backward()
    assert_close(np.float32(result.loss), loss)
    scale = float(np.sqrt(sum(np.square(gradient).sum() for gradient in found.values())))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert_close(found[name], parameter.grad, scale=scale, op=name)
    assert gradients_of(model, *batch, seed=(3, 8))[0].loss != result.loss


def test_labels_have_no_part_in_it(
    model: MaskedAutoencoder, batch: tuple[np.ndarray, np.ndarray]
) -> None:
    images, labels = batch
    result, found = gradients_of(model, images, labels)
    again, others = gradients_of(model, images, np.zeros_like(labels))
    assert result == again
    assert result.correct == 0
    for name, gradient in found.items():
        assert_same_bits(others[name], gradient)


def test_validation_hides_the_same_patches_every_time(model: MaskedAutoencoder) -> None:
    data, normalize = tiny.images_of(tiny.VAL_IMAGES), tiny.RECIPE.normalize()
    losses = []
    for workers in (1, 2, 1):
        with WorkerPool(workers) as pool:
            found = evaluate(
                model, data, normalize, pool, objective=Reconstruction(), micro_batch=8
            )
        losses.append(found.loss)
    assert losses[0] == losses[1] == losses[2]
    images = normalize(data.images(np.arange(len(data))), np.random.default_rng(0))
    noise = np.concatenate([noise_of(i, n) for i, n in enumerate((8, 8, 8, 3))])
    assert_close(np.float32(losses[0]), model(images, noise).loss)


def test_tokens_and_positions_are_exempt_from_decay(model: MaskedAutoencoder) -> None:
    groups = parameter_groups(model, recipe("mae"))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, exempt = ([names.pop(id(p)) for p in group["params"]] for group in groups)
    assert set(names.values()) == set(FIXED)
    assert {"cls_token", "mask_token"} <= set(exempt)
    assert {"decoder_pred.weight", "decoder_embed.weight", "blocks.0.attn.qkv.weight"} <= set(
        decayed
    )


def test_a_micro_batch_is_sized_by_the_larger_of_encoder_and_decoder() -> None:
    # The encoder sees 1 + 49 of the 1 + 196 tokens that the decoder has.
    base = model_config("mae_vit_base_patch16")
    assert base.widest == max(50 * 3072, 197 * 2048)
    assert base.replace(decoder_embed_dim=64).widest == 50 * 3072
    cifar = model_config("mae_vit_cifar_patch4_32")
    assert micro_batch_for(cifar) == micro_batch_for(model_config("vit_cifar_patch4_32")) == 16
    assert micro_batch_for(cifar.replace(decoder_embed_dim=192)) == 4


def test_a_family_says_what_its_models_are_trained_for() -> None:
    assert objective_of(CONFIG) is OBJECTIVES["reconstruction"] is Reconstruction
    assert objective_of(tiny.CONFIG) is Classification
    assert objective_of(model_config("swin_cifar_patch2_32")) is Classification
    assert recipe(Reconstruction.recipe).beta2 == 0.95


def test_a_value_that_is_not_finite_is_found(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path)
    trainer.model.mask_token.data[...] = np.nan
    with pytest.raises(NonFiniteError, match="is in the parameter mask_token"):
        trainer.fit()


def test_a_teacher_is_refused(tmp_path: Path) -> None:
    config = RunConfig(model=tiny.NAME, teaching=Teaching(weights="some.npz"))
    with pytest.raises(ValueError, match="expected no teacher for vit_test_patch4_8, which learns"):
        Trainer(config, RunFolder(tmp_path), tiny.images_of(64), tiny.images_of(8))


def test_a_run_shows_what_the_model_makes_of_hidden_patches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    drawn: dict[str, Any] = {}

    def draw(images: Any, made: Any, mask: Any, path: Path, **options: Any) -> None:
        drawn.update(images=images, made=made, mask=mask, **options)

    monkeypatch.setattr(pictures, "draw_reconstruction", draw)
    trainer = tiny_trainer(tmp_path)
    trainer.fit()
    files = [path.name for path in pictures.write_pictures(trainer)]
    assert files == ["curves.png", "samples.png", "reconstructions.png"]
    images, model = drawn["images"], trainer.model
    with no_grad(), use_generator(np.random.default_rng(0)):
        out = model.eval()(images)
    assert_same_bits(drawn["made"], model.reconstruct(Tensor(images), out.prediction).data)
    assert_same_bits(drawn["mask"].reshape(len(images), -1), out.mask)
    assert drawn["mask"].shape == (pictures.EXAMPLES, 4, 4)
    assert drawn["mean"] == trainer.recipe.mean
    assert "75% of each hidden; validation loss" in drawn["title"]
