"""Optimizers by the name that a training configuration gives."""

from collections.abc import Callable
from typing import Any

import torch

from sana_models.came import CAME, CAME8bit

__all__ = ["OPTIMIZERS", "make_optimizer"]

OPTIMIZERS = ("adamw", "came", "came_8bit")
_ADAMW_BETAS, _ADAMW_EPS = (0.9, 0.99), 1e-8
_CAME_BETAS, _CAME_EPS = (0.9, 0.999, 0.9999), (1e-30, 1e-16)


def make_optimizer(
    name: str,
    groups: list[dict[str, Any]],
    *,
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, ...] | None,
    eps: float | tuple[float, ...] | None,
) -> torch.optim.Optimizer:
    """Build an optimizer; `betas` and `eps` of None are its own defaults (two betas and one eps for AdamW, three and two for
    CAME). Raises ValueError for an unknown name or the wrong count.
    """
    if name == "adamw":
        chosen = _ADAMW_BETAS if betas is None else betas
        if len(chosen) != 2 or isinstance(eps, tuple):
            raise ValueError("adamw takes two betas and one eps")
        return torch.optim.AdamW(
            groups,
            lr=learning_rate,
            betas=(chosen[0], chosen[1]),
            eps=_ADAMW_EPS if eps is None else eps,
            weight_decay=weight_decay,
            fused=True,
        )
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {"came": CAME, "came_8bit": CAME8bit}
    if name not in kinds:
        raise ValueError(f"optimizer is {name!r}; allowed: {', '.join(OPTIMIZERS)}")
    if isinstance(eps, float):
        raise ValueError(f"{name} takes two values of eps")
    return kinds[name](
        groups,
        lr=learning_rate,
        betas=_CAME_BETAS if betas is None else betas,
        eps=_CAME_EPS if eps is None else eps,
        weight_decay=weight_decay,
    )
