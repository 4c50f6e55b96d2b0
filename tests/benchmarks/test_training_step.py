from __future__ import annotations

import dataclasses
import importlib

import numpy as np
import pytest

from benchmarks import training_step
from benchmarks.contenders.contract import Case
from numpyvit.models import VisionTransformer, ViTConfig

CONTENDERS = {
    "torch": ("torch_step:TorchStep", {"fused": False, "compiled": False, "threads": 1}),
    "torch, fused": ("torch_step:TorchStep", {"fused": True, "compiled": False, "threads": 1}),
    "torch, pruned": (
        "torch_step:TorchStep",
        {"fused": True, "compiled": False, "threads": 1, "class_token_only": True},
    ),
    "mygrad": ("mygrad_vit:MyGradStep", {}),
    "autograd": ("hips_vit:HipsStep", {}),
}


@pytest.fixture
def case():
    """Three small images and a model of one narrow block."""
    config = ViTConfig(
        image_size=8,
        patch_size=4,
        num_classes=5,
        embed_dim=8,
        depth=1,
        num_heads=2,
        activation="gelu_tanh",
    )
    model, rng = VisionTransformer(config), np.random.default_rng(0)
    weights = {name: array.copy() for name, array in model.state_dict().items()}
    images = rng.standard_normal((3, 3, 8, 8), np.float32)
    return Case(config.to_dict(), weights, images, rng.integers(0, 5, 3))


def first_step(factory, options, case):
    """Loss, gradients and weights, in this process."""
    module, name = factory.split(":")
    made = getattr(importlib.import_module(f"benchmarks.contenders.{module}"), name)(**options)
    made.prepare(case)
    return made(), made.gradients(), made.weights()


@pytest.fixture
def ours(case):
    return first_step("numpyvit_step:NumpyvitStep", {"workers": 1}, case)


@pytest.mark.parametrize("name", CONTENDERS)
def test_every_contender_takes_the_same_step(name, case, ours):
    pytest.importorskip(name.partition(",")[0])
    results = first_step(*CONTENDERS[name], case)
    found = training_step.check(case.weights, {"numpyvit, 1 worker": ours, name: results})
    assert max(found[name].values()) < 1e-4


@pytest.mark.parametrize("fused", [False, True])
def test_the_class_token_alone_has_the_same_logits_and_gradients(fused):
    torch = pytest.importorskip("torch")
    from benchmarks.contenders.torch_vit import TorchViT

    config = ViTConfig(image_size=8, patch_size=4, embed_dim=8, depth=2, num_heads=2, num_classes=5)
    every = TorchViT(config, fused=fused).double()
    pruned = TorchViT(config, fused=fused, class_token_only=True).double()
    pruned.load_state_dict(every.state_dict())
    images = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    tokens = []
    pruned.blocks[1].mlp.register_forward_hook(lambda *call: tokens.append(call[2].shape[1]))
    logits = [model(images) for model in (every, pruned)]
    torch.testing.assert_close(logits[1], logits[0])
    for found in logits:
        found.square().sum().backward()
    for (name, wanted), parameter in zip(
        every.named_parameters(), pruned.parameters(), strict=True
    ):
        torch.testing.assert_close(parameter.grad, wanted.grad, msg=name)
    assert tokens == [1]


@pytest.mark.parametrize("spoiled", ["loss", "gradients", "updates"])
def test_a_contender_that_does_something_else_is_found_out(spoiled, case, ours):
    loss, gradients, weights = ours
    if spoiled == "loss":
        loss *= 1.001
    elif spoiled == "gradients":
        gradients = {**gradients, "head.weight": gradients["head.weight"] * 1.01}
    else:
        weights = {**weights, "head.weight": case.weights["head.weight"]}
    taken = {"numpyvit, 1 worker": ours, "other": (loss, gradients, weights)}
    with pytest.raises(RuntimeError, match=rf"other does not agree.*{spoiled}"):
        training_step.check(case.weights, taken)


@pytest.mark.parametrize("spoiled", ["loss", "cls_token", "head.weight"])
@pytest.mark.parametrize("by_us", [False, True])
def test_what_is_not_a_number_is_refused(spoiled, by_us, case, ours):
    loss, gradients, weights = ours
    if spoiled == "loss":
        loss = float("nan")
    else:
        gradients = {**gradients, spoiled: gradients[spoiled] * np.float32("nan")}
    results = [ours, (loss, gradients, weights)]
    first, second = reversed(results) if by_us else results
    with pytest.raises(RuntimeError, match="does not agree"):
        training_step.check(case.weights, {"numpyvit, 1 worker": first, "other": second})


def test_gradients_in_another_precision_are_found_out(case, ours):
    loss, gradients, weights = ours
    gradients = {**gradients, "head.bias": gradients["head.bias"].astype(np.float64)}
    with pytest.raises(ValueError, match=r"head\.bias: float64"):
        training_step.disagreement(case.weights, ours, (loss, gradients, weights))


def test_patches_of_images_are_what_the_convolution_sees(case):
    weight = case.weights["patch_embed.proj.weight"]
    products = case.patches() @ weight.reshape(len(weight), -1).T
    corner = np.einsum("bcpq,dcpq->bd", case.images[:, :, :4, 4:], weight)
    np.testing.assert_allclose(products[:, 1], corner, rtol=1e-4, atol=1e-6)


def test_the_summary_takes_the_fastest_of_each_kind():
    kinds = {"a": "PyTorch", "b": "PyTorch", "one": "numpyvit", "two": "numpyvit"}
    kinds["c"] = training_step.PRUNED
    medians = {"a": 3.0, "b": 2.0, "c": 1.25, "one": 1.5, "two": 1.0}
    rows = [{"contender": name, "median_s": value} for name, value in medians.items()]
    found = training_step.summary("case", rows, kinds)
    assert found["fastest PyTorch mode"] == "b"
    assert found["numpyvit / it"] == 0.5
    assert found["numpyvit / class token only"] == 0.8
    assert found["numpyvit / that"] is None
    assert found["speed-up by workers"] == 1.5


def test_a_remote_contender_that_cannot_take_part_is_named(case, capsys):
    class Refuses:
        def ask(self, *words):
            raise RuntimeError("[Remote] it has no GELU")

    entry = training_step.Entry("NumPy library", Refuses())
    assert training_step.prepare({"other": entry}, dataclasses.replace(case)) == {}
    assert capsys.readouterr().out == "skipped: other: [Remote] it has no GELU\n"
