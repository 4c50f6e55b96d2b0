"""How to train: named recipes, each with its source."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable
from typing import Any

from numpyvit.backend import suggest
from numpyvit.data import (
    Compose,
    Mixing,
    Normalize,
    RandAugment,
    RandomCrop,
    RandomErasing,
    RandomHorizontalFlip,
    RandomResizedCrop,
    ToFloat,
    ToUint8,
    Transform,
)
from numpyvit.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from numpyvit.models import INITIALIZATIONS, check_kinds

SCHEDULES = ("cosine", "constant")

_LIMITS: dict[str, tuple[str, Callable[[float, float], bool]]] = {
    "least": (">=", operator.ge),
    "above": (">", operator.gt),
    "below": ("<", operator.lt),
    "most": ("<=", operator.le),
}


def _number(default: float, **limits: float) -> Any:
    """A field of a number that has some of these limits."""
    return dataclasses.field(default=default, metadata=limits)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything about a training but its data and its model. Rates are per step.

    `crop_padding` is in pixels, `crop_scale` the smallest share of the area that a random resized
    crop keeps (1 for none), `warmup_epochs` a number of epochs. With `decay_vectors` weight decay
    also acts on biases, norms, positions and the tokens in front. `layer_decay` is what each
    layer's learning rate is multiplied by, compared to the layer above it. `initialization` is for
    models that are trained from nothing.

    0 switches these off: `randaugment`, the magnitude from 0 to 10 of so many operations a picture
    (`RandAugment`'s variant "timm"); `random_erasing`, a probability; `mixup` and `cutmix`, the
    alphas of `Mixing`, which mixes a batch with `mixing_probability`, by cutmix in so many cases as
    `switch_probability` says; `ema_decay`, that of the weights' moving average, with its warm-up.
    `repeats` is how often an epoch shows each of its pictures (see `Loader`). Labels are smoothed
    by the loss, mixed or not. Raises ValueError for values of another kind or out of range, and for
    unknown names.
    """

    source: str = ""
    epochs: int = _number(15, least=1)
    batch_size: int = _number(64, least=1)
    lr: float = _number(3e-3, above=0)
    layer_decay: float = _number(1.0, above=0, most=1)
    weight_decay: float = _number(0.05, least=0)
    beta2: float = _number(0.98, least=0, below=1)
    decay_vectors: bool = False
    schedule: str = "cosine"
    warmup_epochs: float = _number(0.5, least=0)
    clip_norm: float = _number(0.0, least=0)
    ema_decay: float = _number(0.0, least=0, below=1)
    label_smoothing: float = _number(0.0, least=0, below=1)
    dropout: float = _number(0.0, least=0, below=1)
    drop_path: float = _number(0.0, least=0, below=1)
    initialization: str = "structured"
    flip: bool = True
    crop_padding: int = _number(2, least=0)
    crop_scale: float = _number(1.0, above=0, most=1)
    randaugment: float = _number(0.0, least=0, most=10)
    randaugment_std: float = _number(0.5, least=0)
    randaugment_ops: int = _number(2, least=0)
    random_erasing: float = _number(0.0, least=0, most=1)
    mixup: float = _number(0.0, least=0)
    cutmix: float = _number(0.0, least=0)
    mixing_probability: float = _number(1.0, least=0, most=1)
    switch_probability: float = _number(0.5, least=0, most=1)
    repeats: int = _number(1, least=1)
    mean: tuple[float, ...] = (0.4914, 0.4822, 0.4465)
    std: tuple[float, ...] = (0.2470, 0.2435, 0.2616)

    def __post_init__(self) -> None:
        check_kinds(self)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            for limit, bound in field.metadata.items():
                sign, holds = _LIMITS[limit]
                if not holds(value, bound):
                    self._fail(f"{field.name} {sign} {bound}", value)
        if len(self.mean) != len(self.std) or min(self.std) <= 0:
            self._fail("mean and std of one length, std above 0", f"{self.mean}, {self.std}")
        if self.repeats > 1 and self.repeats >= self.batch_size:
            self._fail(f"repeats below the batch_size of {self.batch_size}", self.repeats)
        for name, known in (("schedule", SCHEDULES), ("initialization", INITIALIZATIONS)):
            value = getattr(self, name)
            if value not in known:
                raise ValueError(f"[Recipe] unknown {name} {value!r}; {suggest(value, known)}")

    def _fail(self, expected: str, got: object) -> None:
        raise ValueError(f"[Recipe] expected {expected}, got {got}")

    @property
    def augments(self) -> bool:
        """Whether an epoch is other than each picture once, as it is."""
        return bool(self.augmentation)

    @property
    def augmentation(self) -> list[str]:
        """What is done to the training pictures, in words."""
        mixed = " or ".join(
            f"{name} {getattr(self, name):g}" for name in ("mixup", "cutmix") if getattr(self, name)
        )
        if self.mixing_probability < 1:
            mixed += f" in {self.mixing_probability:.0%} of the batches"
        words = {
            "flips": self.flip,
            f"crops from a border of {self.crop_padding}": self.crop_padding,
            f"resized crops of {self.crop_scale:g} or more": self.crop_scale < 1,
            f"RandAugment {self.randaugment:g}": self.randaugment,
            f"random erasing {self.random_erasing:g}": self.random_erasing,
            mixed: self.mixup or self.cutmix,
            f"each picture {self.repeats} times": self.repeats > 1,
        }
        return [text for text, is_on in words.items() if is_on]

    @property
    def regularization(self) -> list[str]:
        """What else keeps the model from learning the training pictures by heart, in words."""
        names = ("label_smoothing", "dropout", "drop_path", "clip_norm", "ema_decay")
        values = {name: getattr(self, name) for name in names}
        return [f"{name.replace('_', ' ')} {value:g}" for name, value in values.items() if value]

    def describe(self) -> dict[str, list[str]]:
        """Both of these by their names."""
        return {"augmentation": self.augmentation, "regularization": self.regularization}

    def replace(self, **overrides: Any) -> Recipe:
        """A copy with some fields changed; ValueError that suggests a name for an unknown one."""
        names = [field.name for field in dataclasses.fields(self)]
        for name in overrides:
            if name not in names:
                raise ValueError(f"[Recipe] unknown option {name!r}; {suggest(name, names)}")
        return dataclasses.replace(self, **overrides)

    def train_transform(self, image_size: int | tuple[int, int]) -> Transform:
        """Augmentation and normalisation: uint8 (B, C, H, W) -> float32."""
        steps: list[Transform] = []
        if self.crop_padding:
            steps.append(RandomCrop(self.crop_padding))
        if self.crop_scale < 1:
            # As floats from 0 to 1: a resized picture has no whole numbers any more.
            steps += [ToFloat(), RandomResizedCrop(image_size, scale=(self.crop_scale, 1.0))]
        if self.flip:
            steps.append(RandomHorizontalFlip())
        if self.randaugment:
            steps += [ToUint8(), self._randaugment()]
        steps.append(self.normalize())
        if self.random_erasing:
            steps.append(RandomErasing(self.random_erasing))
        return Compose(steps)

    def _randaugment(self) -> RandAugment:
        return RandAugment(
            self.randaugment_ops,
            self.randaugment,
            magnitude_std=self.randaugment_std,
            variant="timm",
            fill=[round(255 * value) for value in self.mean],  # grey, once it is normalised
        )

    def mixing(self, num_classes: int) -> Mixing | None:
        """What mixes the pictures of a batch and their labels; None for nothing."""
        if not (self.mixup or self.cutmix):
            return None
        return Mixing(
            num_classes,
            mixup_alpha=self.mixup,
            cutmix_alpha=self.cutmix,
            probability=self.mixing_probability,
            switch_probability=self.switch_probability,
        )

    def normalize(self) -> Transform:
        """Normalisation alone, for evaluation: uint8 (B, C, H, W) -> float32."""
        return Normalize(self.mean, self.std)


RECIPES: dict[str, Recipe] = {
    "default": Recipe(source="docs/recipe.md: found by experiment on a validation split"),
    "shapes": Recipe(source="the default recipe, cut to what the built-in data needs", epochs=7),
    "tutorial": Recipe(
        source="Tin Nguyen, Vision Transformer from scratch (2023), its settings for CIFAR-10",
        batch_size=256,
        lr=1e-3,
        weight_decay=1e-2,
        beta2=0.999,
        decay_vectors=True,
        schedule="constant",
        warmup_epochs=0,
        dropout=0.1,
        initialization="timm",
        crop_padding=0,
        crop_scale=0.8,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    ),
    "finetune": Recipe(
        source="docs/fine_tuning.md; layer decay as BEiT (Bao et al. 2022) and MAE (He et al. 2022)"
        " fine-tune, for folders of some hundreds of pictures",
        epochs=5,
        batch_size=32,
        lr=5e-4,
        layer_decay=0.75,
        beta2=0.999,
        warmup_epochs=1,
        clip_norm=1.0,
        crop_padding=0,
        crop_scale=0.5,
    ),
    "probe": Recipe(
        source="docs/fine_tuning.md; a linear layer on frozen features (Alain and Bengio 2017)",
        epochs=20,
        batch_size=64,
        lr=1e-3,
        weight_decay=0.0,
        beta2=0.999,
        warmup_epochs=1,
        flip=False,
        crop_padding=0,
    ),
    "mae": Recipe(
        source="He et al. 2022 (MAE), table 8; fewer epochs, batch size and learning rate as found "
        "to suit CIFAR-10, starting weights as in `default`",
        epochs=50,
        batch_size=256,
        lr=1.5e-3,
        beta2=0.95,
        warmup_epochs=2.5,
        crop_padding=0,
        crop_scale=0.2,
    ),
    "deit": Recipe(
        source="Touvron et al. 2021 (DeiT), table 9, for ImageNet; learning rate 5e-4 x batch size "
        "/ 512, and no moving average, which gave it 0.1 points",
        epochs=300,
        batch_size=1024,
        lr=1e-3,
        beta2=0.999,
        warmup_epochs=5,
        label_smoothing=0.1,
        drop_path=0.1,
        initialization="timm",
        crop_padding=0,
        crop_scale=0.08,
        randaugment=9,
        random_erasing=0.25,
        mixup=0.8,
        cutmix=1.0,
        repeats=3,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    ),
    "cifar_long": Recipe(
        source="Lee et al. 2021, Vision Transformer for Small-Size Datasets, and its code, whose "
        "100 epochs are 300 passes over the data; RandAugment in the place of AutoAugment, "
        "starting weights as in `default`",
        epochs=300,
        batch_size=128,
        lr=1e-3,
        beta2=0.999,
        decay_vectors=True,
        warmup_epochs=30,
        label_smoothing=0.1,
        drop_path=0.1,
        crop_padding=4,
        randaugment=9,
        random_erasing=0.25,
        mixup=1.0,
        cutmix=1.0,
        mixing_probability=0.5,
    ),
}


def recipe(name: str, **overrides: Any) -> Recipe:
    """The recipe called `name`, with some fields replaced; ValueError that suggests a name."""
    if name not in RECIPES:
        raise ValueError(f"[recipe] unknown recipe {name!r}; {suggest(name, RECIPES)}")
    return RECIPES[name].replace(**overrides)
