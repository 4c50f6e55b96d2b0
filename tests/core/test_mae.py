"""The masked autoencoder: against PyTorch written out, against transformers, and by itself."""

from __future__ import annotations

import importlib
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tolerances import as_numpy, assert_close, assert_same_bits

from numpyvit import Tensor, create_model, gradients, no_grad
from numpyvit.backend import to_device
from numpyvit.check import gradcheck
from numpyvit.models import (
    MAE_VARIANTS,
    MAEConfig,
    MaskedAutoencoder,
    VisionTransformer,
    ViTConfig,
    count_multiply_adds,
    model_config,
)
from numpyvit.nn import Module, init, use_generator
from numpyvit.optim import AdamW
from numpyvit.weights import open_weights

FIXTURE = Path(__file__).resolve().parents[1] / "weights" / "fixtures" / "mae_pretraining"
FIXED = {"pos_embed", "decoder_pos_embed"}

SMALL = MAEConfig(
    encoder=ViTConfig(
        image_size=12, patch_size=3, num_classes=0, embed_dim=12, depth=2, num_heads=3
    ),
    decoder_embed_dim=8,
    decoder_depth=1,
    decoder_num_heads=2,
)
# Each in other sizes and choices.
VARIED: dict[str, dict[str, Any]] = {
    "the paper's choices": {},
    "raw pixels": {"norm_pix": False},
    "few are hidden": {"mask_ratio": 0.3, "decoder_mlp_ratio": 1.5},
    "one is seen": {"mask_ratio": 0.93, "activation": "gelu_tanh", "norm_eps": 1e-5},
    "grey, without qkv bias": {"in_channels": 1, "qkv_bias": False, "decoder_depth": 2},
}

# As transformers 5.23.0 counts a ViTMAEForPreTraining, and PyTorch's counter its products: all
# parameters, those that are trained, multiply-adds.
PUBLISHED = {
    "mae_vit_base_patch16": (111_907_840, 111_655_680, 9_781_133_312),
    "mae_vit_large_patch16": (329_541_888, 329_239_296, 20_755_783_680),
    "mae_vit_huge_patch14": (657_074_508, 656_613_964, 48_561_911_808),
}


def roughened(config: MAEConfig, dtype: Any = "float32", device: str = "cpu") -> MaskedAutoencoder:
    """A model with no value near zero."""
    model = MaskedAutoencoder(config, rng=np.random.default_rng(0)).to(dtype)
    rng = np.random.default_rng(5)
    for parameter in model.parameters():
        parameter.data += (0.2 * rng.standard_normal(parameter.shape)).astype(dtype)
    return model.to(device)


def a_batch(config: MAEConfig, count: int, dtype: Any = "float32") -> tuple[Any, Any]:
    """Images and noise."""
    rng = np.random.default_rng(1)
    side = config.encoder.image_size
    images = rng.standard_normal((count, config.encoder.in_channels, side, side)).astype(dtype)
    return images, rng.random((count, config.num_patches))


def trained(model: Module) -> dict[str, Any]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@pytest.fixture
def oracle(torch: ModuleType) -> ModuleType:
    return importlib.import_module("core.torch_mae")  # not before PyTorch is known to be there


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    with np.load(FIXTURE / "expected.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", VARIED)
def test_mask_prediction_loss_and_every_gradient_are_pytorchs(
    name: str,
    reduction: str,
    oracle: ModuleType,
    torch: ModuleType,
    dtype: np.dtype,
    device: str,
) -> None:
    config = SMALL.replace(**VARIED[name])
    model = roughened(config, dtype, device)
    images, noise = a_batch(config, 3, dtype)
    state = {
        name: torch.tensor(as_numpy(array), requires_grad=name not in FIXED)
        for name, array in model.state_dict().items()
    }
    pixels = torch.tensor(images, requires_grad=True)
    losses, prediction, mask = oracle.forward(state, pixels, noise, config)
    expected = getattr(losses, reduction)()
    expected.backward()

    ours = Tensor(to_device(images, device), requires_grad=True)
    out = model(ours, noise, reduction=reduction)
    out.loss.backward()
    assert_same_bits(out.mask, mask)
    assert_close(out.prediction, prediction)
    assert_close(out.loss, expected)
    assert_close(ours.grad, pixels.grad, op="images")
    assert trained(model).keys() == state.keys() - FIXED
    for parameter_name, parameter in trained(model).items():
        theirs = state[parameter_name].grad
        assert_close(parameter.grad, theirs, op=parameter_name)


def test_a_file_of_the_paper_gives_transformers_mask_loss_prediction_and_gradients(
    recorded: dict[str, np.ndarray], dtype: np.dtype
) -> None:
    model = the_recorded_model().to(dtype)
    out = model(recorded["images"].astype(dtype), recorded["noise"])
    assert_same_bits(out.mask, recorded["mask"] == 1)
    assert_close(out.prediction, recorded["prediction"], dtype)
    assert_close(out.loss, recorded["loss"], dtype)
    out.loss.backward()
    expected = {
        name.removeprefix("gradient."): array
        for name, array in recorded.items()
        if name.startswith("gradient.")
    }
    assert trained(model).keys() == expected.keys()
    for name, parameter in trained(model).items():
        assert_close(parameter.grad, expected[name], dtype, op=name)


def test_the_loss_of_raw_pixels_is_transformers(recorded: dict[str, np.ndarray]) -> None:
    out = the_recorded_model(norm_pix=False)(recorded["images"], recorded["noise"])
    assert_close(out.loss, recorded["loss_of_raw_pixels"])


def test_fixed_positions_are_transformers(recorded: dict[str, np.ndarray]) -> None:
    model = MaskedAutoencoder(the_recorded_config())
    for name in FIXED:
        assert_close(model.state_dict()[name], recorded[f"start_{name}"])


def the_recorded_config(**changes: Any) -> MAEConfig:
    encoder = {"image_size": 16, "patch_size": 4, "num_heads": 2, "mlp_ratio": 3, "depth": 2}
    config = SMALL.replace(embed_dim=8, norm_eps=1e-12, **encoder)
    decoder = {"decoder_embed_dim": 4, "decoder_num_heads": 1, "decoder_mlp_ratio": 3}
    return config.replace(**decoder, **changes)


def the_recorded_model(**changes: Any) -> MaskedAutoencoder:
    model = MaskedAutoencoder(the_recorded_config(**changes)).to("float64")
    arrays = open_weights(FIXTURE / "weights.pth").arrays
    model.load_state_dict({name.removeprefix("model."): a.read() for name, a in arrays.items()})
    return model


@pytest.mark.parametrize(("name", "counts"), PUBLISHED.items())
def test_named_models_have_the_published_sizes(name: str, counts: tuple[int, int, int]) -> None:
    with init.undrawn():
        model = create_model(name)
    found = model.num_parameters(), sum(p.size for p in trained(model).values())
    assert (*found, count_multiply_adds(model.config)) == counts


def test_the_decoder_is_of_the_encoders_kind() -> None:
    kind = {"mlp": "swiglu", "qk_norm": True, "layer_scale": 0.1, "drop_path": 0.2, "dropout": 0.3}
    decoder = SMALL.replace(**kind).decoder
    assert {name: getattr(decoder, name) for name in kind} == kind
    assert (decoder.embed_dim, decoder.depth, decoder.num_heads) == (8, 1, 2)
    assert decoder.num_classes == 0


def test_every_named_model_has_a_configuration_that_json_can_hold() -> None:
    for name, config in MAE_VARIANTS.items():
        assert model_config(name) == config
        assert MAEConfig.from_dict(config.to_dict()) == config


def test_the_encoder_of_the_cifar_model_is_the_cifar_vits() -> None:
    model = create_model("mae_vit_cifar_patch4_32", seed=3)
    tuned = model.to_vit(num_classes=10, final_norm=False)
    plain = create_model("vit_cifar_patch4_32")
    assert tuned.num_parameters() == plain.num_parameters() == 119_098
    assert {n: p.shape for n, p in tuned.named_parameters()} == {
        n: p.shape for n, p in plain.named_parameters()
    }
    plain.load_state_dict(model.encoder_state(), strict=False)
    for name, array in tuned.state_dict().items():
        if not name.startswith("head"):
            assert_same_bits(array, model.state_dict()[name])
            assert_same_bits(plain.state_dict()[name], array)


def test_a_vit_with_the_encoders_weights_computes_what_the_encoder_does(dtype: np.dtype) -> None:
    model = roughened(SMALL, dtype)
    images, _ = a_batch(SMALL, 2, dtype)
    everything = np.tile(np.arange(SMALL.num_patches), (2, 1))
    tokens = model.forward_encoder(Tensor(images), everything)
    tuned = model.to_vit()
    assert tuned.dtype == dtype
    assert_close(tuned.forward_features(images), tokens)
    assert tuned.pos_embed.requires_grad
    tuned.pos_embed.data[...] = 0  # a copy
    assert model.pos_embed.data.any()


def test_the_form_that_the_paper_trains_further_starts_with_norm_and_head_of_its_own() -> None:
    model = roughened(SMALL)
    changes = {"pooling": "avg", "final_norm": False, "head_norm": True, "num_classes": 4}
    tuned = model.to_vit(rng=np.random.default_rng(0), **changes)
    names = tuned.state_dict().keys() - model.encoder_state().keys()
    assert names == {"fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias"}
    assert tuned(a_batch(SMALL, 2)[0]).shape == (2, 4)


def test_a_vit_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"pos_embed: expected shape \(1, 5, 12\), got \(1, 17"):
        MaskedAutoencoder(SMALL).to_vit(image_size=6)


def test_the_encoder_sees_the_visible_patches_and_nothing_else() -> None:
    model = roughened(SMALL)
    images, noise = a_batch(SMALL, 2)
    with no_grad():
        before = model(images, noise)
        hidden = np.repeat(before.mask[:, :, None], 27, axis=2).astype(np.float32)
        painted = images + model.unpatchify(Tensor(100 * hidden)).data
        after = model(painted, noise)
    assert not np.array_equal(painted, images)
    assert_same_bits(after.prediction, before.prediction)
    tokens: list[tuple[int, ...]] = []
    count_tokens_of(model, tokens)
    with no_grad():
        model(images, noise)
    assert tokens == [(2, 1 + 4, 12), (2, 1 + 4, 12), (2, 1 + 16, 8)]


def count_tokens_of(model: MaskedAutoencoder, shapes: list[tuple[int, ...]]) -> None:
    class Watched(Module):
        def __init__(self, block: Module) -> None:
            self.block = block

        def forward(self, x: Tensor) -> Tensor:
            shapes.append(x.shape)
            return self.block(x)

    model.blocks = [Watched(block) for block in model.blocks]
    model.decoder_blocks = [Watched(block) for block in model.decoder_blocks]


def test_visible_patches_have_no_part_in_the_loss() -> None:
    model = roughened(SMALL)
    images, noise = a_batch(SMALL, 2)
    out = model(images, noise)
    visible, hidden = np.split(noise.argsort(1), [SMALL.num_visible], axis=1)
    assert_same_bits(out.mask, np.array([[n in row for n in range(16)] for row in hidden]))
    prediction = Tensor(out.prediction.data, requires_grad=True)
    loss = model.forward_loss(Tensor(images), prediction, hidden)
    gradient = gradients(loss, [prediction])[0]
    for image, row in enumerate(visible):
        assert not gradient[image, row].any()
        assert gradient[image, hidden[image]].all()


def test_of_patches_with_equal_noise_the_last_are_hidden() -> None:
    model = create_model("mae_vit_cifar_patch4_32")
    noise = np.arange(2 * 64).reshape(2, 64) * 7 % 5  # a sort that is not stable hides others
    mask = model(np.zeros((2, 3, 32, 32), np.float32), noise).mask
    for row, numbers in zip(mask, noise.tolist(), strict=True):
        ranking = sorted(range(64), key=lambda patch, n=numbers: (n[patch], patch))
        assert set(np.flatnonzero(~row)) == set(ranking[:16])


def test_without_noise_a_seed_gives_the_same_bits_in_any_thread() -> None:
    model = roughened(SMALL)
    images, _ = a_batch(SMALL, 4)

    def run(seed: int) -> list[np.ndarray]:
        with use_generator(np.random.default_rng(seed)):
            out = model(images)
        return [out.mask, *gradients(out.loss, list(trained(model).values()))]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(run, [7, 7, 7, 8]))
    for again in found[1:3]:
        for ours, first in zip(again, found[0], strict=True):
            assert_same_bits(ours, first)
    assert not np.array_equal(found[3][0], found[0][0])
    assert len(np.unique(found[0][0], axis=0)) > 1  # not one mask for all images


def test_the_sum_over_images_is_the_sum_over_micro_batches() -> None:
    model = roughened(SMALL, "float64")
    images, noise = a_batch(SMALL, 4, "float64")
    parts = [
        model(images[s], noise[s], reduction="sum").loss.item() for s in (slice(1), slice(1, 4))
    ]
    whole = model(images, noise, reduction="sum").loss
    assert_close(np.array(sum(parts)), whole)
    assert_close(whole / 4, model(images, noise).loss)


def test_positions_are_never_trained() -> None:
    model = roughened(SMALL)
    assert not FIXED & trained(model.requires_grad_(False).requires_grad_(True)).keys()
    before = {name: model.state_dict()[name].copy() for name in FIXED}
    images, noise = a_batch(SMALL, 2)
    optimizer = AdamW(trained(model).values(), lr=0.1)
    model(images, noise).loss.backward()
    optimizer.step()
    for name, array in before.items():
        assert_same_bits(model.state_dict()[name], array)


def test_a_copy_for_another_process_keeps_its_positions_frozen() -> None:
    model = roughened(SMALL)
    images, noise = a_batch(SMALL, 2)
    copied = pickle.loads(pickle.dumps(model))
    assert trained(copied).keys() == trained(model).keys()
    assert_same_bits(copied(images, noise).prediction, model(images, noise).prediction)


def test_a_gradient_step_in_any_one_direction_is_what_the_loss_does() -> None:
    model = roughened(SMALL, "float64")
    images, noise = a_batch(SMALL, 2, "float64")

    class Loss(Module):
        def __init__(self) -> None:
            self.model = model

        def forward(self, x: Any) -> Any:
            return self.model(x, noise).loss

    assert gradcheck(Loss(), [images], directions=1).ok


def test_a_few_images_are_learned_by_heart() -> None:
    model = create_model("mae_vit_cifar_patch4_32", norm_pix=False)
    rows, columns = np.mgrid[:32, :32] / 8
    waves = [np.sin(rows + shift) * np.cos(columns - shift) for shift in range(12)]
    images = np.array(waves, np.float32).reshape(4, 3, 32, 32)
    optimizer = AdamW(trained(model).values(), lr=3e-3)
    losses = []
    with use_generator(np.random.default_rng(0)):
        for _ in range(40):
            loss = model(images).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < losses[0] / 4


def test_patches_are_in_the_order_row_column_channel_and_go_back(rng: np.random.Generator) -> None:
    model = MaskedAutoencoder(SMALL)
    images = Tensor(rng.standard_normal((2, 3, 12, 12)).astype(np.float32))
    patches = model.patchify(images)
    assert patches.shape == (2, 16, 27)
    window = images.data[1, :, 3:6, 6:9]  # the patch in row 1, column 2
    assert_same_bits(patches.data[1, 1 * 4 + 2], window.transpose(1, 2, 0).ravel())
    assert_same_bits(model.unpatchify(patches), images)


@pytest.mark.parametrize("norm_pix", [True, False])
def test_a_prediction_of_the_targets_themselves_gives_the_images_back(norm_pix: bool) -> None:
    model = MaskedAutoencoder(SMALL.replace(norm_pix=norm_pix)).to("float64")
    images, _ = a_batch(SMALL, 2, "float64")
    targets = model.patchify(Tensor(images)).data
    if norm_pix:
        targets = targets - targets.mean(-1, keepdims=True)
        targets /= np.sqrt(targets.var(-1, ddof=1, keepdims=True) + 1e-6)
    assert_close(model.reconstruct(images, Tensor(targets)), images)


def test_constant_patches_have_finite_losses_and_gradients() -> None:
    model = roughened(SMALL)
    _, noise = a_batch(SMALL, 2)
    out = model(np.ones((2, 3, 12, 12), np.float32), noise)
    assert np.isfinite(out.loss.item())
    assert all(np.isfinite(g).all() for g in gradients(out.loss, list(trained(model).values())))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"final_norm": False}, "an encoder with final_norm=True, got False"),
        (
            {"encoder": ViTConfig(class_token=False, pooling="avg")},
            "an encoder with class_token=True, got False",
        ),
        ({"num_registers": 2}, "an encoder with num_registers=0, got 2"),
        ({"positions": "patches"}, "an encoder with positions='all', got 'patches'"),
        ({"pre_norm": True}, "an encoder with pre_norm=False, got True"),
        ({"decoder_num_heads": 3}, "the decoder's sizes do not fit: .* 3 heads divide, got 8"),
        ({"decoder_depth": 0}, "the decoder's sizes do not fit: .* must be positive"),
        ({"decoder_depth": "2"}, "a whole number as decoder_depth, got '2'"),
        ({"decoder_embed_dim": 6}, "widths that 4 divides, 4 at least, got 6"),
        ({"mask_ratio": 0.0}, "a mask_ratio that hides some of 16 patches and not all, got 0.0"),
        ({"mask_ratio": 0.95}, "a mask_ratio that hides some of 16 patches and not all"),
        ({"mask_ratio": 1.5}, "a mask_ratio that hides some"),
        ({"mask_ratio": -1}, "a mask_ratio that hides some"),
        ({"mask_ratio": float("nan")}, "a finite number as mask_ratio"),
        ({"mask_ratio": "0.75"}, "a finite number as mask_ratio"),
        ({"norm_pix": 1}, "True or False as norm_pix, got 1"),
        ({"mask_rato": 0.5}, "unknown option 'mask_rato'; did you mean 'mask_ratio'"),
        ({"num_classes": 7}, "unknown option 'num_classes'"),
        ({"pooling": "map"}, "unknown option 'pooling'"),
        ({"patch_sizes": 4}, "unknown option 'patch_sizes'; did you mean 'patch_size'"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SMALL.replace(**changes)


def test_noise_images_and_names_that_do_not_fit_are_refused() -> None:
    model = MaskedAutoencoder(SMALL)
    images, noise = a_batch(SMALL, 2)
    with pytest.raises(ValueError, match=r"expected noise \(B, N\) of shape \(2, 16\), got \(1"):
        model(images, noise[:1])
    with pytest.raises(TypeError, match="expected images of dtype float32, got float64"):
        model(images.astype(float), noise)
    with pytest.raises(ValueError, match=r"\[PatchEmbed\] expected images \(B, 3, 12, 12\)"):
        model(images[..., :9], noise)
    with pytest.raises(ValueError, match="expected reduction 'mean' or 'sum', got 'max'"):
        model(images, noise, reduction="max")
    with pytest.raises(ValueError, match="did you mean 'mae_vit_base_patch16'"):
        create_model("mae_vit_base_patch14")


def test_images_may_lie_on_the_tape_of_another_model() -> None:
    model = roughened(SMALL)
    images, noise = a_batch(SMALL, 2)
    assert isinstance(model.to_vit(), VisionTransformer)
    source = Tensor(images, requires_grad=True)
    assert_same_bits(model(source * 1.0, noise).prediction, model(images, noise).prediction)
