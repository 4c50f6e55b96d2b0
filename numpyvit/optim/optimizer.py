"""What all optimizers share: parameter groups, the loop over parameters, and their state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from numpyvit.backend import Array, device_of, to_device, to_numpy
from numpyvit.tensor import Tensor

Group = dict[str, Any]
Parameters = Iterable[Tensor] | Iterable[Mapping[str, Any]]


class Optimizer:
    """Base of the optimizers. A subclass says how one parameter is updated.

    `params` is an iterable of tensors, or of dicts with the key "params" and the settings in which
    that group differs from `defaults`. `param_groups` is the list of groups, each a dict with
    "params" and every setting; changing a setting there takes effect at the next step.

    Raises TypeError for what is not a tensor; ValueError for an empty list, for a parameter given
    twice, and for a setting that is unknown or out of range.
    """

    kept: frozenset[str] = frozenset()  # what `_update` keeps for a parameter, by name

    def __init__(self, params: Parameters, defaults: Mapping[str, Any]) -> None:
        self.defaults = dict(defaults)
        self._settings = {*defaults, "initial_lr"}  # the latter is a schedule's
        self.param_groups: list[Group] = []
        self.steps = 0  # how often step() was called
        self._state: list[dict[str, Any]] = []  # by parameter, in the order of the groups
        if isinstance(params, Tensor | Mapping):
            self._fail(TypeError, "a list of tensors or of groups", f"one {type(params).__name__}")
        given = list(params)
        if not given:
            self._fail(ValueError, "at least one parameter", "none; pass model.parameters()")
        groups = given if isinstance(given[0], Mapping) else [{"params": given}]
        for group in groups:
            self.add_param_group(group)

    def add_param_group(self, group: Any) -> None:
        """Add a dict of "params" (a tensor or an iterable of them) and settings of their own.

        Raises as the constructor does.
        """
        if not isinstance(group, Mapping) or "params" not in group:
            self._fail(TypeError, "every group to be a dict with 'params'", repr(group)[:80])
        params = group["params"]
        params = [params] if isinstance(params, Tensor) else list(params)
        if not params:
            self._fail(ValueError, "at least one parameter in a group", "none")
        known = {id(p) for g in self.param_groups for p in g["params"]}
        for parameter in params:
            if not isinstance(parameter, Tensor):
                self._fail(TypeError, "tensors as parameters", type(parameter).__name__)
            if id(parameter) in known:
                self._fail(ValueError, "every parameter once", f"one twice, {parameter.shape}")
            known.add(id(parameter))
        settings = {**self.defaults, **group, "params": params}
        self._check(settings)
        self.param_groups.append(settings)
        self._state += [{} for _ in params]

    def zero_grad(self) -> None:
        """Forget all gradients: `.grad` becomes None."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient, in place; the gradients stay untouched.

        Raises ValueError when a gradient does not fit its parameter in shape or dtype.
        """
        self.steps += 1
        for index, (parameter, group) in enumerate(self._parameters()):
            if parameter.grad is None:
                continue
            value, gradient = parameter.data, parameter.grad
            if gradient.shape != value.shape or gradient.dtype != value.dtype:
                self._fail(
                    ValueError,
                    f"the gradient of parameter {index} to be {value.shape} {value.dtype}",
                    f"{gradient.shape} {gradient.dtype}",
                )
            self._update(value, gradient, group, self._state[index])

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs, as one flat dict of copies.

        "step" counts the calls of `step`; "<i>.step" and "<i>.<moment>" (an array shaped like the
        parameter) belong to parameter i, counted through all groups; "groups.<g>.<setting>" are
        the numbers that group g uses, as float64 or boolean arrays.
        """
        state: dict[str, Any] = {"step": self.steps}
        for number, group in enumerate(self.param_groups):
            for name, setting in group.items():
                if isinstance(setting, bool | int | float | tuple):
                    dtype = np.bool_ if isinstance(setting, bool) else np.float64
                    state[f"groups.{number}.{name}"] = np.array(setting, dtype)
        for index, entries in enumerate(self._state):
            for name, entry in entries.items():
                state[f"{index}.{name}"] = entry if isinstance(entry, int) else entry.copy()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned, also when it went through a file of arrays.

        Moments are copied to the dtype and the device of their parameter. Raises ValueError, with
        all that does not fit, when the state belongs to other parameters; nothing is changed then.
        """
        loaded: list[dict[str, Any]] = [{} for _ in self._state]
        settings: list[Group] = [{} for _ in self.param_groups]
        values = [parameter.data for parameter, _ in self._parameters()]
        faults = [] if "step" in state else ["'step' is missing"]
        for key, entry in state.items():
            match key.split("."):
                case ["step"]:
                    pass
                case ["groups", number, name] if _fits(number, settings) and name in self._settings:
                    settings[int(number)][name] = _setting(entry)
                case [index, "step"] if _fits(index, loaded) and "step" in self.kept:
                    loaded[int(index)]["step"] = int(entry)
                case [index, name] if _fits(index, loaded) and name in self.kept:
                    value = values[int(index)]
                    if np.shape(entry) == value.shape:
                        loaded[int(index)][name] = _like(entry, value)
                    else:
                        faults.append(f"{key!r} is {np.shape(entry)}, not {value.shape}")
                case _:
                    faults.append(f"{key!r} belongs to no parameter or group")
        faults += [
            f"parameter {index} lacks {', '.join(sorted(self.kept - entries.keys()))}"
            for index, entries in enumerate(loaded)
            if entries and self.kept - entries.keys()
        ]
        if faults:
            self._fail(ValueError, "the state of the same parameters", "; ".join(faults))
        for group, changes in zip(self.param_groups, settings, strict=True):
            group.update(changes)
        self.steps, self._state = int(state["step"]), loaded

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__}("]
        for group in self.param_groups:
            shown = ", ".join(f"{k}={v}" for k, v in group.items() if k != "params")
            size = sum(parameter.size for parameter in group["params"])
            lines.append(f"  {len(group['params'])} tensors, {size:,} values: {shown}")
        return "\n".join([*lines, ")"])

    def _update(self, value: Array, gradient: Array, group: Group, state: dict[str, Any]) -> None:
        """Change `value` in place by one step along `gradient`, and keep what is needed next."""
        raise NotImplementedError

    def _check(self, settings: Group) -> None:
        """Raise where a setting is unknown or out of range; subclasses check their own first."""
        if unknown := settings.keys() - self._settings - {"params"}:
            known = ", ".join(self.defaults)
            self._fail(ValueError, f"settings among {known}", ", ".join(sorted(unknown)))
        self._check_range(settings, lr=np.inf, weight_decay=np.inf)

    def _check_range(self, settings: Group, **below: float) -> None:
        """Raise unless each of the settings named is at least 0 and below its bound."""
        for name, bound in below.items():
            if not 0 <= settings[name] < bound:
                limit = "finite" if bound == np.inf else f"below {bound:g}"
                self._fail(ValueError, f"'{name}' to be at least 0 and {limit}", settings[name])

    def _fail(self, error: type[Exception], expected: str, got: object) -> None:
        raise error(f"[{type(self).__name__}] expected {expected}, got {got}")

    def _parameters(self) -> Iterator[tuple[Tensor, Group]]:
        for group in self.param_groups:
            for parameter in group["params"]:
                yield parameter, group


def _fits(text: str, items: list[Any]) -> bool:
    """Whether `text` is an index into `items`."""
    return text.isdecimal() and int(text) < len(items)


def _setting(entry: Any) -> bool | float | tuple[float, ...]:
    array = to_numpy(entry)
    if array.ndim:
        return tuple(float(number) for number in array)
    return bool(array) if array.dtype == np.bool_ else float(array)


def _like(entry: Any, value: Array) -> Array:
    """A copy of the array `entry` in the dtype and on the device of `value`."""
    return to_device(entry, device_of(value)).astype(value.dtype, copy=True)
