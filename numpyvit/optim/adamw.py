"""AdamW and Adam: one update, and two ways to decay the weights."""

from __future__ import annotations

from typing import Any

from numpyvit.backend import Array, array_module, stretches
from numpyvit.optim.optimizer import Group, Optimizer, Parameters


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2).

        p <- p - lr * weight_decay * p
        m <- b1 m + (1 - b1) g;   v <- b2 v + (1 - b2) g^2
        p <- p - lr * m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)

    It decays every parameter that it is given; put those that are not to be decayed into a group
    with `weight_decay=0`. Operations and their order are PyTorch's. Raises as `Optimizer` does.
    """

    decoupled = True
    kept = frozenset({"step", "exp_avg", "exp_avg_sq"})

    def __init__(
        self,
        params: Parameters,
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        defaults = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    def _check(self, settings: Group) -> None:
        super()._check(settings)
        self._check_range(settings, eps=float("inf"))
        betas = settings["betas"]
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            self._fail(ValueError, "'betas' to be two numbers from 0 to below 1", betas)

    def _update(self, value: Array, gradient: Array, group: Group, state: dict[str, Any]) -> None:
        if not state:
            zeros_like = array_module(value).zeros_like
            state.update(step=0, exp_avg=zeros_like(value), exp_avg_sq=zeros_like(value))
        state["step"] += 1
        for arrays in stretches(value, gradient, state["exp_avg"], state["exp_avg_sq"]):
            self._update_stretch(*arrays, group=group, step=state["step"])

    def _update_stretch(
        self, p: Array, g: Array, m: Array, v: Array, *, group: Group, step: int
    ) -> None:
        xp = array_module(p, g, m, v)
        # Python's floats leave the dtype of the arrays alone; NumPy's would not.
        lr, weight_decay, eps = (float(group[name]) for name in ("lr", "weight_decay", "eps"))
        beta1, beta2 = (float(beta) for beta in group["betas"])
        if weight_decay and self.decoupled:
            p *= 1 - lr * weight_decay
        elif weight_decay:
            g = g + weight_decay * p

        work = g - m
        work *= 1 - beta1
        m += work

        v *= beta2
        xp.multiply(g, 1 - beta2, out=work)
        work *= g
        v += work

        denominator = xp.sqrt(v, out=work)
        denominator /= (1 - beta2**step) ** 0.5
        denominator += eps
        change = m * (-lr / (1 - beta1**step))
        change /= denominator
        p += change


class Adam(AdamW):
    """Adam (Kingma and Ba 2015, algorithm 1); weight decay adds `weight_decay * p` to the gradient.

    The update is AdamW's without its first line. Raises as `Optimizer` does.
    """

    decoupled = False

    def __init__(
        self,
        params: Parameters,
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
