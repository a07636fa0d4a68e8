"""The training loop: seeded by step, resumable after a kill, with progress, a CSV curve and a plot.

Every random draw of step `s` comes from a generator seeded by (seed, s), so a checkpoint needs no random state: weights,
optimizer, moving average and the step number make a resumed run equal to one that was never stopped. Started by `torchrun`, the
processes share each batch, and with `distributed: fsdp` the model; only the first one writes, but for the states of a shared
model. A step whose loss or gradient is not finite changes nothing: it is
skipped, counted, and its records are named.
"""

import math
import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sana_models.came import local_part
from sana_models.training.curve import Curve, Observer
from sana_models.training.distributed import (
    all_true,
    barrier,
    gathered,
    in_group,
    is_main,
    local_rows,
    mean_over_processes,
    world_size,
)
from sana_models.training.loop_config import COMPUTE, LoopConfig, autocast_of
from sana_models.training.meter import Extra, Meter
from sana_models.training.optimizers import make_optimizer
from sana_models.training.progress import tell, training_progress
from sana_models.training.sharding import clip_gradient, is_sharded, like, shard
from sana_models.training.state import StateFolder, identity_of

__all__ = [
    "LargeTask",
    "NamesRecords",
    "Seen",
    "Task",
    "TrainingResult",
    "Watch",
    "step_generator",
    "train",
]


class Task(Protocol):
    """What the loop trains."""

    modules: dict[str, nn.Module]

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Optimizer groups with their own `lr`."""
        ...

    def loss(self, step: int, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Extra]:
        """Scalar loss of one step, over this process's rows of the batch, and further numbers for the curve."""
        ...


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at a training found: numbers, and pictures by name."""

    values: Mapping[str, float] = field(default_factory=dict)
    pictures: Mapping[str, Path] = field(default_factory=dict)


class Watch(Protocol):
    """Who looks at a training every so many steps, and at its end, in all processes."""

    every: int

    def look(self, step: int) -> Seen:
        """Called after `step` steps with the weights that would be exported, without gradients."""
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


class LargeTask(Task, Protocol):
    """A task whose networks can be sharded, and whose loss is a mean over the batch's rows and so can be computed in parts."""

    def units(self) -> Iterable[nn.Module]:
        """What is gathered together when the networks are sharded, inner modules first."""
        ...

    def loss(
        self, step: int, batch_size: int, generator: torch.Generator, part: int = 0, parts: int = 1
    ) -> tuple[Tensor, Extra]:
        """As `Task.loss`, of one of `parts` equal parts of this process's rows, asked for in their order."""
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
    watch: Watch | None = None,
    observer: Observer | None = None,
) -> TrainingResult:
    """Train `task` for `config.steps` steps in all, continuing from the newest state in `out` when there is one.

    `fresh` removes such states first, once everything else was found in order.

    Afterwards the modules hold their moving-average weights, where there are any. Writes `out/state.pt` atomically every
    `checkpoint_every` steps, keeps the two before it, and writes `out/curve.csv`. `watch` looks every so often and its numbers
    join the curve, of whose rows `observer` hears. `identity` is the whole configuration, which a state must belong to,
    `config` aside. Raises FloatingPointError when `stop_after_skipped` steps in a row have no finite gradient or a weight is not
    finite, and ValueError for a state of another configuration or past the last step, and for a batch that the processes cannot
    share evenly. `distributed: fsdp` and `gradient_accumulation` need a `LargeTask`.
    """
    out.mkdir(parents=True, exist_ok=True)
    local_rows(config.batch_size, config.gradient_accumulation)
    states = StateFolder(out, identity_of({**(identity or {}), "training": asdict(config)}))
    if fresh and is_main():
        states.clear()
    run = _Run(task, config, states)
    start = run.restore()
    last_loss, unlogged = math.nan, False
    curve = Curve(out / "curve.csv", start, observer)
    with training_progress(config.steps, start) as report:
        mark = time.monotonic()
        for step in range(start, config.steps):
            last = step + 1 == config.steps
            loss, used = run.step(step)
            # A row that a skipped step leaves out is made by the next one that is not.
            unlogged = unlogged or step % config.log_every == 0 or last
            if used and unlogged:
                unlogged = False
                last_loss = float(mean_over_processes(loss))
                elapsed = run.seconds + time.monotonic() - mark
                row = {"step": step, "loss": last_loss, "seconds": round(elapsed, 1), **run.row()}
                curve.add(row)
                report(step + 1, _told(row))
            if watch is not None and ((step + 1) % watch.every == 0 or last):
                seen = run.look(watch, step + 1)
                curve.add({"step": step, **seen.values}, seen.pictures)
            # No state from among skipped steps, so that a run continued after a repair makes them again.
            due = (step + 1) % config.checkpoint_every == 0 and not run.in_row
            if due or last:
                run.seconds, mark = run.seconds + time.monotonic() - mark, time.monotonic()
                curve.flush()
                run.save(step + 1)
    run.take_average()
    return TrainingResult(config.steps, run.seconds, last_loss, skipped_steps=run.skipped)


def _told(row: Mapping[str, Any]) -> str:
    """The numbers of a row that stand in the line of progress."""
    return (
        f"loss {row['loss']:.4f}  rate {row['learning_rate']:.2g}  gradient {row['gradient_norm']:.3g}  "
        f"{row['images_per_s']:.1f} images/s  {row['memory_gb']:.1f} GB"
    )


class _Run:
    """What one training holds: optimizer, moving average, counts, and where its states lie."""

    def __init__(self, task: Task, config: LoopConfig, states: StateFolder) -> None:
        self.task, self.config, self.states = task, config, states
        self.compute = _parallel(task, config)
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
        # Without a moving average there is no copy of the weights.
        self.average = [p.detach().clone() for p in self.parameters] if config.ema_decay else []
        self.meter = Meter()
        self.norm = math.nan
        self.seconds = 0.0
        self.skipped = self.in_row = 0
        self.sharded = any(map(is_sharded, task.modules.values()))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.parameters[0].device

    def step(self, step: int) -> tuple[Tensor, bool]:
        """Make one step; return its loss, and whether it changed the weights."""
        config = self.config
        for group, base in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = base * config.rate(step)
        self.optimizer.zero_grad(set_to_none=True)
        loss, extras = self._gradient(step)
        norm = clip_gradient(self.parameters, config.gradient_clip)
        if not all_true(torch.isfinite(norm) & torch.isfinite(loss)):
            self._skip(step, float(loss), float(norm))
            return loss, False
        self.in_row = 0
        self.optimizer.step()
        if self.average:
            # A short memory early on keeps the average from remembering the random start.
            decay = min(config.ema_decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(*self._pairs(), 1 - decay)
        for extra in extras:
            self.meter.add(extra, config.batch_size // len(extras))
        self.norm = float(norm)
        return loss, True

    def _gradient(self, step: int) -> tuple[Tensor, list[Extra]]:
        """Leave the gradient of this process's rows in the parameters, part by part; return loss and further numbers."""
        config, parts = self.config, self.config.gradient_accumulation
        losses, extras = [], []
        for part in range(parts):
            last = part + 1 == parts
            # Gradients of whole copies are averaged once; sharded ones each time, for a sum would need room for all of them.
            once = isinstance(self.compute, DistributedDataParallel) and not last
            with cast(Any, self.compute).no_sync() if once else nullcontext():
                with autocast_of(config.precision, self.device):
                    loss, extra = self.compute(step, config.batch_size, config.seed, part, parts)
                (loss / parts).backward()
            losses.append(loss.detach())
            extras.append(extra)
        return torch.stack(losses).mean(), extras

    def _pairs(self) -> tuple[list[Tensor], list[Tensor]]:
        """Average and weights, of each the part that this process holds."""
        weights = [local_part(p.detach()) for p in self.parameters]
        return [local_part(value) for value in self.average], weights

    def row(self) -> dict[str, float | None]:
        """Return the numbers of the steps since the last row, beside the loss."""
        rate = self.optimizer.param_groups[0]["lr"]
        return {"learning_rate": rate, "gradient_norm": self.norm, **self.meter.row(self.device)}

    @torch.no_grad()
    def look(self, watch: Watch, step: int) -> Seen:
        """Let `watch` look at the averaged weights; afterwards all is as it was, bit by bit."""
        self._swap()
        try:
            with autocast_of(self.config.precision, self.device):
                return watch.look(step)
        finally:
            self._swap()
            self.meter.skip_time()

    @torch.no_grad()
    def _swap(self) -> None:
        for value, parameter in zip(*self._pairs(), strict=False):
            kept = parameter.clone()
            parameter.copy_(value)
            value.copy_(kept)
        if self.sharded and self.device.type == "cuda":
            # A look need not begin with an outermost unit, which alone waits for what was done to the weights.
            torch.cuda.synchronize(self.device)

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
        """Write the state after `step` steps, by the first process, or what each holds. Raises FloatingPointError."""
        counts: dict[str, Any] = {"step": step, "seconds": self.seconds, "skipped": self.skipped}
        counts["meter"] = self.meter.all_totals(self.device)
        if self.sharded or is_main():
            self.states.save(counts | self._tensors(), sharded=self.sharded)
        barrier()

    def _tensors(self) -> dict[str, Any]:
        modules = {name: module.state_dict() for name, module in self.task.modules.items()}
        return {"modules": modules, "optimizer": self.optimizer.state_dict(), "average": self.average}

    def _template(self) -> dict[str, Any]:
        """Tensors of a state to be read into: those in use, and what the optimizer would keep after a step that moves nothing."""
        for group in self.optimizer.param_groups:
            group["lr"] = 0.0
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return self._tensors()

    def restore(self) -> int:
        """Continue from the newest state; return the number of steps made. Raises ValueError for one that does not fit."""
        state = self.states.load(self._template)
        if state is None:
            return 0
        if state["step"] > self.config.steps:
            raise ValueError(
                f"{self.states.folder}: its state is at step {state['step']}, past the {self.config.steps} of the "
                "configuration; give --fresh to start anew, or another folder"
            )
        if "modules" in state:
            self._take(like(self._template(), state) if self.sharded else state)
        self.seconds = float(state["seconds"])
        self.skipped = int(state.get("skipped", 0))
        self.meter.resume(state.get("meter", {}))
        return int(state["step"])

    def _take(self, state: Mapping[str, Any]) -> None:
        try:
            if state["modules"].keys() != self.task.modules.keys():
                raise ValueError(f"of {', '.join(state['modules'])}, not of {', '.join(self.task.modules)}")
            for name, module in self.task.modules.items():
                module.load_state_dict(state["modules"][name])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average:
                for target, value in zip(self.average, state["average"], strict=True):
                    target.copy_(value)
        except (KeyError, RuntimeError, ValueError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(
                f"{self.states.folder}: its state is of another model ({first}); give --fresh to start anew, "
                "or another folder"
            ) from error

    @torch.no_grad()
    def take_average(self) -> None:
        """Give the modules their moving-average weights, where there are any."""
        if self.average:
            for value, parameter in zip(*self._pairs(), strict=True):
                parameter.copy_(value)


class _LossModule(nn.Module):
    """A task as one module, so that DistributedDataParallel can average the gradients of all its networks."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.networks = nn.ModuleDict(task.modules)
        self._task = task

    def forward(self, step: int, batch_size: int, seed: int, part: int, parts: int) -> tuple[Tensor, Extra]:
        generator = step_generator(seed, step)
        if parts == 1:
            return self._task.loss(step, batch_size, generator)
        return cast(LargeTask, self._task).loss(step, batch_size, generator, part, parts)


def _parallel(task: Task, config: LoopConfig) -> nn.Module:
    """Return (step, batch_size, seed, part, parts) -> loss and further numbers, with gradients averaged over the processes."""
    if config.distributed == "fsdp" and in_group():
        device = next(next(iter(task.modules.values())).parameters()).device
        shard(cast(LargeTask, task).units(), device, COMPUTE[config.precision])
        return _LossModule(task)
    module = _LossModule(task)
    # Gradients are where they are averaged, and not there as well.
    return DistributedDataParallel(module, gradient_as_bucket_view=True) if world_size() > 1 else module
