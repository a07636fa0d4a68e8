"""How a training optimises: the section `training` of a configuration."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import torch

from sana_models.training.optimizers import OPTIMIZERS, check_optimizer
from sana_models.training.reading import LARGEST_BATCH, Section

__all__ = ["COMPUTE", "LoopConfig", "autocast_of"]

#: What networks compute in by `precision`; None is what they are stored in.
COMPUTE = {"fp32": None, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopConfig:
    """Optimisation settings; learning rate warms up linearly, then follows a cosine to `final_lr_fraction` of it.

    `final_lr_fraction` 1 is a constant rate after warm-up, `ema_decay` 0 no moving average. `batch_size` is that of all processes
    together, and of all `gradient_accumulation` parts that each computes one after another. `distributed` is `ddp`, the whole
    model in every process, or `fsdp`, a share of it in each; without `torchrun` neither does anything.
    `scale_learning_rate` multiplies the rate by sqrt(batch_size / 256), as the published code silently does.
    So many steps in a row without a finite gradient as `stop_after_skipped` says end the training.
    """

    steps: int
    batch_size: int
    learning_rate: float
    seed: int = 0
    warmup_steps: int = 100
    final_lr_fraction: float = 0.0
    weight_decay: float = 0.01
    optimizer: str = "adamw"
    betas: tuple[float, ...] | None = None
    eps: float | tuple[float, ...] | None = None
    scale_learning_rate: bool = False
    gradient_clip: float = 1.0
    ema_decay: float = 0.999
    precision: str = "bf16"
    checkpoint_every: int = 100
    log_every: int = 10
    stop_after_skipped: int = 10
    gradient_accumulation: int = 1
    distributed: str = "ddp"

    def __post_init__(self) -> None:
        self._read({entry.name: getattr(self, entry.name) for entry in fields(self)})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, large: bool = False) -> Self:
        """Build from the section `training` of a configuration; raises ValueError, one line, for what cannot be.

        Only a `large` training, whose task is a `loop.LargeTask`, can share its model and compute its batches in parts.
        """
        found = cls(**cls._read(data))
        for name, plain in (("distributed", "ddp"), ("gradient_accumulation", 1)):
            if not large and getattr(found, name) != plain:
                raise ValueError(
                    f"training.{name} is {getattr(found, name)!r}; only kind 'sana' is trained so"
                )
        return found

    @staticmethod
    def _read(data: Mapping[str, Any]) -> dict[str, Any]:
        values = Section(data, "training", [entry.name for entry in fields(LoopConfig)])
        optimizer = values.text("optimizer", "adamw", choices=OPTIMIZERS)
        betas, eps = values.numbers("betas"), data.get("eps")
        if eps is not None:
            eps = values.numbers("eps") if isinstance(eps, list | tuple) else values.number("eps", low=0)
        check_optimizer(optimizer, betas, eps)
        decay = values.number("ema_decay", 0.999, low=0)
        if decay >= 1:
            raise ValueError(f"training.ema_decay is {decay:g}; allowed: 0 (off) to below 1")
        return {
            "steps": values.integer("steps"),
            "batch_size": values.integer("batch_size", high=LARGEST_BATCH),
            "learning_rate": values.number("learning_rate", low=0, above=True),
            "seed": values.integer("seed", 0, low=0),
            "warmup_steps": values.integer("warmup_steps", 100, low=0),
            "final_lr_fraction": values.number("final_lr_fraction", 0.0, low=0, high=1),
            "weight_decay": values.number("weight_decay", 0.01, low=0),
            "optimizer": optimizer,
            "betas": betas,
            "eps": eps,
            "scale_learning_rate": values.flag("scale_learning_rate", False),
            "gradient_clip": values.number("gradient_clip", 1.0, low=0, above=True),
            "ema_decay": decay,
            "precision": values.text("precision", "bf16", choices=list(COMPUTE)),
            "checkpoint_every": values.integer("checkpoint_every", 100),
            "log_every": values.integer("log_every", 10),
            "stop_after_skipped": values.integer("stop_after_skipped", 10),
            "gradient_accumulation": values.integer("gradient_accumulation", 1),
            "distributed": values.text("distributed", "ddp", choices=("ddp", "fsdp")),
        }

    @property
    def peak_rate(self) -> float:
        """Learning rate after warm-up."""
        scale = math.sqrt(self.batch_size / 256) if self.scale_learning_rate else 1.0
        return self.learning_rate * scale

    def rate(self, step: int) -> float:
        """Factor on the learning rate at `step` (0-based)."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        return self.final_lr_fraction + (1 - self.final_lr_fraction) * cosine


def autocast_of(precision: str, device: torch.device) -> torch.autocast:
    """Return the context in which networks compute at a training's precision."""
    dtype = COMPUTE[precision]
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)
