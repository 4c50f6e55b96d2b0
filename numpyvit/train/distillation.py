"""Learning from a teacher as well as from labels (DeiT: Touvron et al. 2021, section 4)."""

from __future__ import annotations

import dataclasses
import functools

import numpy

from numpyvit import functional
from numpyvit.backend import Array, array_module, suggest, to_device, to_numpy
from numpyvit.data.resample import resize_images
from numpyvit.models import ImageModel, Labelling, check_kinds
from numpyvit.tensor import Tensor, no_grad
from numpyvit.train.objectives import Classification, count_correct
from numpyvit.weights import Pretrained, load_pretrained

KINDS = ("hard", "soft")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Teaching:
    """Who teaches, and how: "hard" by its answers, "soft" by its probabilities at a `temperature`.

    `weights` is a file or a run folder, of any model that `load_pretrained` opens; in a run's
    configuration its path may start from the run folder. `sha256` tells whether they are still the
    same: without it a process reads them once. `share` of the loss is the teacher's, the rest the
    labels'. Raises ValueError for what is of another kind, an unknown `kind`, a temperature that is
    not positive, and a share outside [0, 1].
    """

    weights: str
    sha256: str | None = None
    kind: str = "hard"
    temperature: float = 3.0
    share: float = 0.5

    def __post_init__(self) -> None:
        check_kinds(self)
        if self.kind not in KINDS:
            raise ValueError(f"[Teaching] unknown kind {self.kind!r}; {suggest(self.kind, KINDS)}")
        if self.temperature <= 0:
            raise ValueError(f"[Teaching] expected a temperature > 0, got {self.temperature}")
        if not 0 <= self.share <= 1:
            raise ValueError(f"[Teaching] expected 0 <= share <= 1, got {self.share}")


@dataclasses.dataclass(frozen=True)
class Distillation(Classification):
    """(1 - share) CE(head, labels) + share D(distillation head, teacher), on the same images.

    D of a hard teacher is the cross entropy with its answers (eq. 3), of a soft one
    T^2 KL(teacher / T || student / T) (eq. 2; Hinton et al. 2015). A student with one head learns
    both with it. Validation is that of any classifier. `labelling` says what the student's pixels
    and classes mean. Each process opens the teacher for itself.
    """

    teaching: Teaching = dataclasses.field(kw_only=True)
    labelling: Labelling = dataclasses.field(kw_only=True)

    def loss(self, model: ImageModel, images: Tensor, targets: numpy.ndarray) -> tuple[Tensor, int]:
        """The two losses, weighted; right is what has the largest mean of the heads' logits."""
        given = self.teacher(model).logits(images.data)
        tokens = model.forward_features(images, keep=model.tokens_read)
        logits, distilled = model.forward_heads(tokens)
        target = to_device(targets, logits.device)
        labels_loss = functional.cross_entropy(logits, target, self.label_smoothing, "sum")
        share = self.teaching.share
        loss = labels_loss * (1 - share) + self._teacher_loss(distilled, given) * share
        return loss, count_correct(Tensor(logits.data + distilled.data), target)

    def _teacher_loss(self, distilled: Tensor, given: Array) -> Tensor:
        if self.teaching.kind == "hard":
            return functional.cross_entropy(distilled, given.argmax(-1), 0.0, "sum")
        xp, t = array_module(given), self.teaching.temperature
        wanted = functional.softmax(Tensor(given) / t).data
        entropy = -float(xp.where(wanted > 0, wanted * xp.log(xp.maximum(wanted, 1e-30)), 0).sum())
        cross = functional.cross_entropy(distilled / t, wanted, 0.0, "sum")
        return (cross - entropy) * (t * t)

    def teacher(self, student: ImageModel) -> Teacher:
        """The teacher for a `student`, opened once; ValueError where it does not fit."""
        teaching, like = self.teaching, (str(student.dtype), student.device)
        return _opened(teaching.weights, teaching.sha256, self.labelling, *like)


class Teacher:
    """A trained model that answers about images as a student gets them: its sizes, its classes.

    Raises ValueError where it does not know all of the student's classes, and where its images
    have other channels.
    """

    def __init__(self, found: Pretrained, labelling: Labelling) -> None:
        if (channels := found.model.config.in_channels) != len(labelling.mean):
            raise ValueError(
                f"[Distillation] expected a teacher of images of {len(labelling.mean)} channels, "
                f"got one of {channels}; train it on the same data"
            )
        self.model = found.model.eval()
        self.classes = _classes(found.labelling.class_names, labelling.class_names)
        shape = (-1, 1, 1)
        mean, std = (numpy.reshape(labelling.mean, shape), numpy.reshape(labelling.std, shape))
        its_mean = numpy.reshape(found.labelling.mean, shape)
        its_std = numpy.reshape(found.labelling.std, shape)
        # Its normalisation of the student's pixels: ((x std + mean) - its mean) / its std.
        self.scale, self.shift = std / its_std, (mean - its_mean) / its_std

    def logits(self, images: Array) -> Array:
        """Images (B, C, H, W), normalised for the student: logits (B, classes of the student)."""
        like = images.dtype
        size = self.model.config.image_shape
        device = self.model.device
        if images.shape[-2:] != size:
            images = to_device(resize_images(to_numpy(images), size), device)
        scale, shift = (to_device(part.astype(like), device) for part in (self.scale, self.shift))
        with no_grad():
            return self.model(images * scale + shift).data[:, self.classes]


def _classes(known: tuple[str, ...], wanted: tuple[str, ...]) -> list[int]:
    """Where the teacher has each of the student's classes."""
    if not known:
        raise ValueError(
            "[Distillation] expected a teacher that knows classes, got one without a head; "
            "fine-tune it first, with train --weights"
        )
    if missing := [name for name in wanted if name not in known]:
        raise ValueError(
            f"[Distillation] expected a teacher that knows the classes {', '.join(wanted)}, got "
            f"one without {', '.join(missing[:5])}; train it on the same data"
        )
    return [known.index(name) for name in wanted]


@functools.lru_cache(maxsize=2)
def _opened(
    weights: str, sha256: str | None, labelling: Labelling, dtype: str, device: str
) -> Teacher:
    """What is kept belongs to these weights (`sha256`), not to what was at their path before."""
    found = load_pretrained(weights, dtype=dtype)
    found.model.to(device=device)
    return Teacher(found, labelling)
