"""Optimizers by the name that a training configuration gives."""

from collections.abc import Callable
from typing import Any, cast

import torch

from sana_models.came import CAME, CAME8bit

__all__ = ["OPTIMIZERS", "check_optimizer", "make_optimizer"]

OPTIMIZERS = ("adamw", "came", "came_8bit")
_ADAMW_BETAS, _ADAMW_EPS = (0.9, 0.99), 1e-8
_CAME_BETAS, _CAME_EPS = (0.9, 0.999, 0.9999), (1e-30, 1e-16)


def check_optimizer(
    name: str, betas: tuple[float, ...] | None, eps: float | tuple[float, ...] | None
) -> None:
    """Raise ValueError for an unknown name, the wrong count of `betas` or `eps`, and betas outside 0 to below 1."""
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer is {name!r}; allowed: {', '.join(OPTIMIZERS)}")
    counts = (
        (2, 1, "two betas and one eps") if name == "adamw" else (3, 2, "three betas and two values of eps")
    )
    n_eps = counts[1] if eps is None else len(eps) if isinstance(eps, tuple) else 1
    if (
        (betas is not None and len(betas) != counts[0])
        or n_eps != counts[1]
        or (n_eps == 1 and isinstance(eps, tuple))
    ):
        raise ValueError(f"optimizer {name} takes {counts[2]}")
    if betas is not None and not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"training.betas is {list(betas)}; allowed: 0 to below 1")


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
    check_optimizer(name, betas, eps)
    if name == "adamw":
        chosen = _ADAMW_BETAS if betas is None else betas
        return torch.optim.AdamW(
            groups,
            lr=learning_rate,
            betas=(chosen[0], chosen[1]),
            eps=_ADAMW_EPS if eps is None else cast(float, eps),
            weight_decay=weight_decay,
            fused=True,
        )
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {"came": CAME, "came_8bit": CAME8bit}
    return kinds[name](
        groups,
        lr=learning_rate,
        betas=_CAME_BETAS if betas is None else betas,
        eps=_CAME_EPS if eps is None else eps,
        weight_decay=weight_decay,
    )
