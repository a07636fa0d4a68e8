"""The training loop: seeded by step, resumable after a kill, with progress, a CSV curve and a plot.

Every random draw of step `s` comes from a generator seeded by (seed, s), so a checkpoint needs no random state: weights,
optimizer, moving average and the step number make a resumed run equal to one that was never stopped. Started by `torchrun`, the
processes share each batch; only the first one writes. A step whose loss or gradient is not finite changes nothing: it is
skipped, counted, and its records are named.
"""

import csv
import io
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn

from sana_models.files import read_text
from sana_models.training.distributed import (
    all_true,
    barrier,
    gathered,
    is_main,
    local_rows,
    mean_over_processes,
    world_size,
)
from sana_models.training.optimizers import OPTIMIZERS, check_optimizer, make_optimizer
from sana_models.training.progress import tell, training_progress
from sana_models.training.reading import Section
from sana_models.training.state import StateFolder, identity_of

__all__ = ["LoopConfig", "NamesRecords", "Task", "TrainingResult", "step_generator", "train"]

_AUTOCAST = {"fp32": None, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopConfig:
    """Optimisation settings; learning rate warms up linearly, then follows a cosine to `final_lr_fraction` of it.

    `final_lr_fraction` 1 is a constant rate after warm-up, `ema_decay` 0 no moving average. `batch_size` is that of all processes
    together. `scale_learning_rate` multiplies the rate by sqrt(batch_size / 256), as the published code silently does.
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

    def __post_init__(self) -> None:
        self._read({entry.name: getattr(self, entry.name) for entry in fields(self)})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build from the section `training` of a configuration; raises ValueError, one line, for what cannot be."""
        return cls(**cls._read(data))

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
            "batch_size": values.integer("batch_size"),
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
            "precision": values.text("precision", "bf16", choices=list(_AUTOCAST)),
            "checkpoint_every": values.integer("checkpoint_every", 100),
            "log_every": values.integer("log_every", 10),
            "stop_after_skipped": values.integer("stop_after_skipped", 10),
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


class Task(Protocol):
    """What the loop trains."""

    modules: dict[str, nn.Module]

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Optimizer groups with their own `lr`."""
        ...

    def loss(self, step: int, batch_size: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Scalar loss of one step, over this process's rows of the batch, and further numbers for the curve."""
        ...


@runtime_checkable
class NamesRecords(Protocol):
    """A task that can say whose fault a skipped step is."""

    def suspects(self) -> list[str]:
        """Records of the last batch, of this process, whose own error is not finite."""
        ...

    def batch_names(self) -> list[str]:
        """All records of the last batch, of this process."""
        ...


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """Outcome of a finished run; `seconds` adds up over resumed parts, `bad_records` were left out of the data.

    `skipped_steps` had a loss or gradient that was not finite, and changed no weight.
    """

    steps: int
    seconds: float
    final_loss: float
    bad_records: int = 0
    skipped_steps: int = 0


def step_generator(seed: int, step: int) -> torch.Generator:
    """Return the CPU generator of one step."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)


def train(
    task: Task,
    config: LoopConfig,
    out: Path,
    *,
    identity: Mapping[str, Any] | None = None,
    fresh: bool = False,
) -> TrainingResult:
    """Train `task` for `config.steps` steps in all, continuing from the newest state in `out` when there is one.

    `fresh` removes such states first, once everything else was found in order.

    Afterwards the modules hold their moving-average weights. Writes `out/state.pt` atomically every `checkpoint_every` steps,
    keeps the two before it, and writes `out/curve.csv`. `identity` is the whole configuration, which a state must belong to,
    `config` aside. Raises FloatingPointError when `stop_after_skipped` steps in a row have no finite gradient or a weight is not
    finite, and ValueError for a state of another configuration or past the last step, and for a batch that the processes cannot
    share evenly.
    """
    out.mkdir(parents=True, exist_ok=True)
    local_rows(config.batch_size)
    states = StateFolder(out, identity_of({**(identity or {}), "training": asdict(config)}))
    if fresh and is_main():
        states.clear()
    run = _Run(task, config, states)
    start = run.restore()
    last_loss, unlogged = math.nan, False
    curve = _Curve(out / "curve.csv", start)
    with training_progress(config.steps, start) as report:
        mark = time.monotonic()
        for step in range(start, config.steps):
            loss, extra, used = run.step(step)
            # A row that a skipped step leaves out is made by the next one that is not.
            unlogged = unlogged or step % config.log_every == 0 or step + 1 == config.steps
            if used and unlogged:
                unlogged = False
                last_loss = float(mean_over_processes(loss))
                elapsed = run.seconds + time.monotonic() - mark
                curve.add({"step": step, "loss": last_loss, "seconds": round(elapsed, 1), **extra})
                report(step + 1, last_loss)
            # No state from among skipped steps, so that a run continued after a repair makes them again.
            due = (step + 1) % config.checkpoint_every == 0 and not run.in_row
            if due or step + 1 == config.steps:
                run.seconds, mark = run.seconds + time.monotonic() - mark, time.monotonic()
                curve.flush()
                run.save(step + 1)
    run.take_average()
    return TrainingResult(config.steps, run.seconds, last_loss, skipped_steps=run.skipped)


class _Run:
    """What one training holds: optimizer, moving average, counts, and where its states lie."""

    def __init__(self, task: Task, config: LoopConfig, states: StateFolder) -> None:
        self.task, self.config, self.states = task, config, states
        self.optimizer = make_optimizer(
            config.optimizer,
            task.parameter_groups(config.peak_rate),
            learning_rate=config.peak_rate,
            weight_decay=config.weight_decay,
            betas=config.betas,
            eps=config.eps,
        )
        self.base_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.parameters = [
            p for module in task.modules.values() for p in module.parameters() if p.requires_grad
        ]
        self.average = [p.detach().clone() for p in self.parameters]
        self.seconds = 0.0
        self.skipped = self.in_row = 0
        self.compute = _loss_function(task)

    def step(self, step: int) -> tuple[Tensor, dict[str, float], bool]:
        """Make one step; return its loss, further numbers, and whether it changed the weights."""
        config = self.config
        for group, base in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = base * config.rate(step)
        dtype = _AUTOCAST[config.precision]
        with torch.autocast(self.parameters[0].device.type, dtype=dtype, enabled=dtype is not None):
            loss, extra = self.compute(step, config.batch_size, config.seed)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, config.gradient_clip)
        if not all_true(torch.isfinite(norm) & torch.isfinite(loss.detach())):
            self._skip(step, float(loss.detach()), float(norm))
            return loss.detach(), extra, False
        self.in_row = 0
        self.optimizer.step()
        # A short memory early on keeps the average from remembering the random start.
        decay = min(config.ema_decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - decay)
        return loss.detach(), extra, True

    def _skip(self, step: int, loss: float, norm: float) -> None:
        self.skipped += 1
        self.in_row += 1
        # Those whose own error is not finite, in any process; else, when the gradient alone is not, the whole batch.
        task = self.task
        names = (
            gathered(task.suspects()) or gathered(task.batch_names())
            if isinstance(task, NamesRecords)
            else []
        )
        records = f"; records: {', '.join(names)}" if names else ""
        tell(f"step {step} skipped: loss {loss:g}, gradient norm {norm:g}{records}")
        if self.in_row >= min(self.config.stop_after_skipped, self.config.steps):
            first = step + 1 - self.in_row
            raise FloatingPointError(
                f"no finite loss and gradient in {self.in_row} steps in a row, from step {first} on; "
                f"the states in {self.states.folder} are from before{records}"
            )

    def save(self, step: int) -> None:
        """Write the state after `step` steps, by the first process; the others wait. Raises FloatingPointError."""
        if is_main():
            modules = {name: module.state_dict() for name, module in self.task.modules.items()}
            counts = {"step": step, "seconds": self.seconds, "skipped": self.skipped}
            parts = {"modules": modules, "optimizer": self.optimizer.state_dict(), "average": self.average}
            self.states.save(counts | parts)
        barrier()

    def restore(self) -> int:
        """Continue from the newest state; return the number of steps made. Raises ValueError for one that does not fit."""
        state = self.states.load()
        if state is None:
            return 0
        if state["step"] > self.config.steps:
            raise ValueError(
                f"{self.states.folder}: its state is at step {state['step']}, past the {self.config.steps} of the "
                "configuration; give --fresh to start anew, or another folder"
            )
        try:
            if state["modules"].keys() != self.task.modules.keys():
                raise ValueError(f"of {', '.join(state['modules'])}, not of {', '.join(self.task.modules)}")
            for name, module in self.task.modules.items():
                module.load_state_dict(state["modules"][name])
            self.optimizer.load_state_dict(state["optimizer"])
            for target, value in zip(self.average, state["average"], strict=True):
                target.copy_(value)
        except (KeyError, RuntimeError, ValueError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(
                f"{self.states.folder}: its state is of another model ({first}); give --fresh to start anew, "
                "or another folder"
            ) from error
        self.seconds = float(state["seconds"])
        self.skipped = int(state.get("skipped", 0))
        return int(state["step"])

    @torch.no_grad()
    def take_average(self) -> None:
        """Give the modules their moving-average weights."""
        for parameter, value in zip(self.parameters, self.average, strict=True):
            parameter.copy_(value)


class _LossModule(nn.Module):
    """A task as one module, so that DistributedDataParallel can average the gradients of all its networks."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.networks = nn.ModuleDict(task.modules)
        self._task = task

    def forward(self, step: int, batch_size: int, seed: int) -> tuple[Tensor, dict[str, float]]:
        return self._task.loss(step, batch_size, step_generator(seed, step))


def _loss_function(task: Task) -> Callable[[int, int, int], tuple[Tensor, dict[str, float]]]:
    """Return (step, batch_size, seed) -> loss and further numbers, synchronised over processes when there are several."""
    module = _LossModule(task)
    return nn.parallel.DistributedDataParallel(module) if world_size() > 1 else module


class _Curve:
    """Rows of the loss curve; on resume, rows after the checkpoint are dropped because they will be made again."""

    def __init__(self, path: Path, start: int) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if start and path.exists():
            rows = csv.DictReader(io.StringIO(read_text(path), newline=""))
            self.rows = [row for row in rows if int(row["step"]) < start]

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def flush(self) -> None:
        if not self.rows or not is_main():
            return
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(self.rows[-1]))
            writer.writeheader()
            writer.writerows(self.rows)
        temporary.replace(self.path)
