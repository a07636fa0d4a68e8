"""The training loop: seeded by step, resumable after a kill, with progress, a CSV curve and a plot.

Every random draw of step `s` comes from a generator seeded by (seed, s), so a checkpoint needs no random state: weights,
optimizer, moving average and the step number make a resumed run equal to one that was never stopped. Started by `torchrun`, the
processes share each batch; only the first one writes.
"""

import csv
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sana_models.files import write_whole
from sana_models.training.distributed import barrier, is_main, local_rows, mean_over_processes, world_size
from sana_models.training.optimizers import OPTIMIZERS, make_optimizer
from sana_models.training.progress import training_progress

__all__ = ["LoopConfig", "Task", "TrainingResult", "step_generator", "train"]

_AUTOCAST = {"fp32": None, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopConfig:
    """Optimisation settings; learning rate warms up linearly, then follows a cosine to `final_lr_fraction` of it.

    `final_lr_fraction` 1 is a constant rate after warm-up, `ema_decay` 0 no moving average. `batch_size` is that of all processes
    together. `scale_learning_rate` multiplies the rate by sqrt(batch_size / 256), as the published code silently does.
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

    def __post_init__(self) -> None:
        if self.precision not in _AUTOCAST:
            raise ValueError(f"precision is {self.precision!r}; allowed: {', '.join(_AUTOCAST)}")
        if min(self.steps, self.batch_size, self.checkpoint_every, self.log_every) < 1:
            raise ValueError("steps, batch_size, checkpoint_every and log_every must be at least 1")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be above 0")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer is {self.optimizer!r}; allowed: {', '.join(OPTIMIZERS)}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay is {self.ema_decay}; allowed: 0 (off) to below 1")

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


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """Outcome of a finished run; `seconds` adds up over resumed parts, `bad_records` were left out of the data."""

    steps: int
    seconds: float
    final_loss: float
    bad_records: int = 0


def step_generator(seed: int, step: int) -> torch.Generator:
    """Return the CPU generator of one step."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)


def train(task: Task, config: LoopConfig, out: Path) -> TrainingResult:
    """Train `task` for `config.steps` steps in all, continuing from `out/state.pt` when it is there.

    Afterwards the modules hold their moving-average weights. Writes `out/state.pt` atomically every `checkpoint_every` steps and
    `out/curve.csv` beside it. Raises FloatingPointError when the loss is not finite, and ValueError for a batch that the
    processes cannot share evenly and for a checkpoint of another training or past the last step.
    """
    out.mkdir(parents=True, exist_ok=True)
    local_rows(config.batch_size)
    optimizer = make_optimizer(
        config.optimizer,
        task.parameter_groups(config.peak_rate),
        learning_rate=config.peak_rate,
        weight_decay=config.weight_decay,
        betas=config.betas,
        eps=config.eps,
    )
    base_rates = [group["lr"] for group in optimizer.param_groups]
    parameters = [p for module in task.modules.values() for p in module.parameters() if p.requires_grad]
    average = [p.detach().clone() for p in parameters]
    start, seconds = _restore(out, task, optimizer, average)
    if start > config.steps:
        raise ValueError(
            f"{out / 'state.pt'} is at step {start}, past the {config.steps} of the configuration"
        )
    last_loss = math.nan
    curve = _Curve(out / "curve.csv", start)
    compute = _loss_function(task)
    with training_progress(config.steps, start) as report:
        mark = time.monotonic()
        for step in range(start, config.steps):
            for group, base in zip(optimizer.param_groups, base_rates, strict=True):
                group["lr"] = base * config.rate(step)
            loss, extra = _one_step(compute, config, step, optimizer, parameters)
            # A short memory early on keeps the average from remembering the random start.
            decay = min(config.ema_decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - decay)
            if step % config.log_every == 0 or step + 1 == config.steps:
                last_loss = float(mean_over_processes(loss))
                if not math.isfinite(last_loss):
                    raise FloatingPointError(f"loss is {last_loss} at step {step}")
                elapsed = seconds + time.monotonic() - mark
                curve.add({"step": step, "loss": last_loss, "seconds": round(elapsed, 1), **extra})
                report(step + 1, last_loss)
            if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps:
                seconds, mark = seconds + time.monotonic() - mark, time.monotonic()
                if is_main():
                    curve.flush()
                    _save(out, task, optimizer, average, step + 1, seconds)
                barrier()
    with torch.no_grad():
        for parameter, value in zip(parameters, average, strict=True):
            parameter.copy_(value)
    return TrainingResult(config.steps, seconds, last_loss)


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


def _one_step(
    compute: Callable[[int, int, int], tuple[Tensor, dict[str, float]]],
    config: LoopConfig,
    step: int,
    optimizer: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
) -> tuple[Tensor, dict[str, float]]:
    dtype = _AUTOCAST[config.precision]
    device = parameters[0].device.type
    with torch.autocast(device, dtype=dtype, enabled=dtype is not None):
        loss, extra = compute(step, config.batch_size, config.seed)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, config.gradient_clip)
    optimizer.step()
    return loss.detach(), extra


def _save(
    out: Path,
    task: Task,
    optimizer: torch.optim.Optimizer,
    average: Iterable[Tensor],
    step: int,
    seconds: float,
) -> None:
    state = {
        "step": step,
        "seconds": seconds,
        "modules": {name: module.state_dict() for name, module in task.modules.items()},
        "optimizer": optimizer.state_dict(),
        "average": list(average),
    }
    write_whole(out / "state.pt", lambda stream: torch.save(state, stream))


def _restore(
    out: Path, task: Task, optimizer: torch.optim.Optimizer, average: list[Tensor]
) -> tuple[int, float]:
    path = out / "state.pt"
    if not path.exists():
        return 0, 0.0
    state = torch.load(path, map_location="cpu", weights_only=True)
    if set(state.get("modules", ())) != set(task.modules):
        raise ValueError(f"{path} is of another kind of training: delete it to start anew")
    for name, module in task.modules.items():
        module.load_state_dict(state["modules"][name])
    optimizer.load_state_dict(state["optimizer"])
    for target, value in zip(average, state["average"], strict=True):
        target.copy_(value)
    return int(state["step"]), float(state["seconds"])


class _Curve:
    """Rows of the loss curve; on resume, rows after the checkpoint are dropped because they will be made again."""

    def __init__(self, path: Path, start: int) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if start and path.exists():
            with path.open(newline="") as stream:
                self.rows = [row for row in csv.DictReader(stream) if int(row["step"]) < start]

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def flush(self) -> None:
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(self.rows[-1]))
            writer.writeheader()
            writer.writerows(self.rows)
        temporary.replace(self.path)
