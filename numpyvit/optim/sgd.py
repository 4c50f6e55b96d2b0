"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from typing import Any

from numpyvit.backend import Array, array_module, stretches
from numpyvit.optim.optimizer import Group, Optimizer, Parameters


class SGD(Optimizer):
    """Gradient descent with momentum, in PyTorch's form: the rate is outside of the velocity.

        g <- g + weight_decay * p
        u <- momentum * u + (1 - dampening) g          (u = g at the first step)
        p <- p - lr * u;                               Nesterov: p - lr (g + momentum * u)

    Sutskever et al. 2013, section 2, has the rate inside. Raises as `Optimizer` does, and
    ValueError for `nesterov` without momentum or with dampening.
    """

    kept = frozenset({"momentum_buffer"})

    def __init__(
        self,
        params: Parameters,
        *,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
        }
        super().__init__(params, defaults)

    def _check(self, settings: Group) -> None:
        super()._check(settings)
        self._check_range(settings, momentum=float("inf"), dampening=float("inf"))
        if settings["nesterov"] and (settings["momentum"] == 0 or settings["dampening"] != 0):
            got = f"momentum={settings['momentum']}, dampening={settings['dampening']}"
            self._fail(ValueError, "momentum and no dampening with nesterov=True", got)

    def _update(self, value: Array, gradient: Array, group: Group, state: dict[str, Any]) -> None:
        # Python's floats leave the dtype of the arrays alone; NumPy's would not.
        lr, momentum, dampening, weight_decay = (
            float(group[name]) for name in ("lr", "momentum", "dampening", "weight_decay")
        )
        if not momentum:
            for p, g in stretches(value, gradient):
                p -= lr * (g + weight_decay * p if weight_decay else g)
            return
        keep, take = momentum, 1 - dampening
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = array_module(value).zeros_like(value)
            keep, take = 0.0, 1.0
        for p, g, u in stretches(value, gradient, state["momentum_buffer"]):
            if weight_decay:
                g = g + weight_decay * p
            u *= keep
            u += take * g
            p -= lr * (g + momentum * u if group["nesterov"] else u)
