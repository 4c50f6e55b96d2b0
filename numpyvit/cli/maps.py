"""Maps over pictures for `numpyvit attention`: computed, drawn, and saved."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from numpyvit.cli import output
from numpyvit.cli.opening import Opened
from numpyvit.cli.photos import Photo, as_batch
from numpyvit.explain import (
    METHODS,
    MapOptions,
    attention_mass,
    class_attention,
    draw_heads,
    draw_methods,
    explain,
    map_caption,
    options_note,
    without_padding,
)
from numpyvit.models import replacing
from numpyvit.train import class_probabilities


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is made of each picture; of each map, the patches that hold `mass` of it are kept."""

    opened: Opened
    methods: list[str]
    options: MapOptions
    mass: float = 1.0

    @property
    def name(self) -> str:
        """What the files are named after: the methods, and the class that was asked for."""
        methods = "all" if self.methods == list(METHODS) else "-".join(self.methods)
        target = self.options.target
        return f"{methods}-{self._class_name(target)}" if isinstance(target, int) else methods

    def _class_name(self, target: int) -> str:
        names = self.opened.class_names
        if not names:
            return f"feature-{target}"
        parts = [output.in_a_name(name.split(",")[0]) for name in names]
        is_one = parts.count(parts[target]) == 1 and parts[target]
        return parts[target] if is_one else f"{parts[target]}-{target}".lstrip("-")


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A picture that `draw(path)` writes, and the numbers behind it; of which picture it is."""

    picture: str
    draw: Callable[[Path], None]
    arrays: Mapping[str, NDArray[Any]]


def drawings(plan: Plan, photos: list[Photo]) -> Iterator[Drawing]:
    """One for each of `photos`, in their order."""
    batch = as_batch(photos)
    model, options = plan.opened.model, plan.options
    knows_classes = model.config.num_classes > 0
    chances = class_probabilities(model, batch) if knows_classes else None
    if plan.methods == ["heads"]:
        found = {"heads": class_attention(model, batch, options.block)}
    else:
        found = {name: explain(model, batch, name, options) for name in plan.methods}
    if plan.mass < 1:
        found = {name: maps * attention_mass(maps, plan.mass) for name, maps in found.items()}
    for index, photo in enumerate(photos):
        maps = {name: values[index] for name, values in found.items()}
        own = None if chances is None else chances[index]
        yield Drawing(photo.path, _draw(plan, photo, maps, own), _arrays(plan, photo, maps, own))


def save_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an .npz, all or nothing."""
    save: Any = numpy.savez
    with replacing(path) as file:
        save(file, **arrays)


def _draw(
    plan: Plan, photo: Photo, maps: dict[str, Any], chances: NDArray[Any] | None
) -> Callable[[Path], None]:
    shown: Any = photo.shown
    options, depth = plan.options, plan.opened.model.config.depth
    target = options.target if isinstance(options.target, int) else None
    maps = {name: without_padding(values, plan.opened.model) for name, values in maps.items()}
    title = map_caption(photo.path, chances, plan.opened.class_names, target, plan.methods)
    note = options_note(plan.methods, options, depth, plan.mass)
    if plan.methods == ["heads"]:
        title += f"\nattention of each head of block {range(depth)[options.block]}"
        return lambda path: draw_heads(shown, maps["heads"], path, title=title, note=note)
    batched = {name: values[None] for name, values in maps.items()}
    return lambda path: draw_methods(shown[None], batched, [title], path, note=note)


def _arrays(
    plan: Plan, photo: Photo, maps: dict[str, Any], chances: NDArray[Any] | None
) -> dict[str, NDArray[Any]]:
    """The maps by their methods, of which picture they are, and the class that was explained."""
    target = plan.options.target
    arrays = {**maps, "picture": numpy.array(photo.path)}
    if chances is not None:
        index = int(chances.argmax()) if not isinstance(target, int) else target
        arrays["class_index"] = numpy.array(index)
        arrays["class_name"] = numpy.array(plan.opened.class_names[index])
        arrays["probability"] = chances[index]
    elif isinstance(target, int):
        arrays["class_index"] = numpy.array(target)
    return arrays
