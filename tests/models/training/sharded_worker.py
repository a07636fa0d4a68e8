"""One of the processes that test_sharding.py starts with `torchrun`: `sharded_worker.py PLAN.json`, which says what is made."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from sana_models.came import CAME, CAME8bit, local_part, optimizer_state_bytes
from sana_models.training import loop
from sana_models.training.distributed import process_group
from sana_models.training.run import run_training
from sana_models.training.sharding import clip_gradient, like
from sana_models.training.state import KEPT_STATES, StateFolder
from tests.models.training.worker import WORDS, no_source

# Rows that two processes share unevenly or not at all, every kind of parameter, and matrices large enough for 8 bits whose
# shares begin in the middle of a block.
SHAPES = ((131, 130), (2, 8300), (1, 40000), (24, 40), (1, 9), (3, 5, 1, 1), (6, 1, 3, 3), (7,), (1,))
OPTIMIZERS: dict[str, type[CAME]] = {"came": CAME, "came_8bit": CAME8bit}


def split(value: torch.Tensor, mesh: DeviceMesh) -> DTensor:
    return distribute_tensor(value, mesh, (Shard(0),), src_data_rank=None)


def full(value: torch.Tensor) -> torch.Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value


def optimizers(mesh: DeviceMesh) -> dict[str, Any]:
    """How far a sharded optimizer's steps are from those of a whole one that has the same state before each."""
    found: dict[str, Any] = {}
    for name, kind in OPTIMIZERS.items():
        draw = torch.Generator().manual_seed(0)
        whole = [nn.Parameter(torch.randn(shape, generator=draw)) for shape in SHAPES]
        sharded = [nn.Parameter(split(value.detach(), mesh)) for value in whole]
        pair = [kind(parameters, lr=0.01, weight_decay=0.1) for parameters in (whole, sharded)]
        errors: dict[str, float] = {}
        for _ in range(8):
            for one, other in zip(whole, sharded, strict=True):
                scales = torch.randn(one.shape[0], generator=draw).exp()
                one.grad = torch.randn(one.shape, generator=draw) * scales.view(-1, *[1] * (one.ndim - 1))
                other.grad = split(one.grad, mesh)
            before = [value.detach().clone() for value in whole]
            for optimizer in pair:
                optimizer.step()
            for start, one, other in zip(before, whole, sharded, strict=True):
                moved = one.detach() - start
                note(errors, "weights", full(other.detach()) - start, moved)
                for key, value in pair[0].state[one].items():
                    note(errors, key, full(pair[1].state[other][key]), value)
            for one, other in zip(whole, sharded, strict=True):
                other.data.copy_(split(one.detach(), mesh))
                state = pair[1].state[other]
                pair[1].state[other] = {
                    key: like(state[key], value.clone()) for key, value in pair[0].state[one].items()
                }
        found[name] = errors | {"bytes": [optimizer_state_bytes(optimizer) for optimizer in pair]}
    return found


def note(errors: dict[str, float], key: str, found: torch.Tensor, expected: torch.Tensor) -> None:
    """Keep the largest difference, in shares of the largest value; of codes in levels, and how many have one."""
    difference = (found.double() - expected.double()).abs()
    if key == "mean_code":
        errors["codes off"] = errors.get("codes off", 0) + int((difference > 0).sum())
        errors["codes"] = errors.get("codes", 0) + difference.numel()
        size = float(difference.max())
    else:
        size = float(difference.max() / expected.abs().max().clamp_min(1e-30))
    errors[key] = max(errors.get(key, 0.0), size)


def clipped(mesh: DeviceMesh) -> dict[str, list[float]]:
    """Norms before and after clipping, of whole and of sharded gradients: finite, and one value not."""
    found: dict[str, list[float]] = {}
    for bad in (False, True):
        draw = torch.Generator().manual_seed(1)
        whole = [nn.Parameter(torch.zeros(shape)) for shape in SHAPES]
        sharded = [nn.Parameter(split(value.detach(), mesh)) for value in whole]
        for one, other in zip(whole, sharded, strict=True):
            one.grad = torch.randn(one.shape, generator=draw)
            if bad and one.shape == (24, 40):
                # In the rows of the second process.
                one.grad[20, 3] = torch.inf
            other.grad = split(one.grad, mesh)
        for name, parameters in (("whole", whole), ("sharded", sharded)):
            first = clip_gradient(parameters, 1.0)
            found[f"{name} {bad}"] = [float(first), float(clip_gradient(parameters, 1.0))]
    return found


def refused_state(folder: Path, mesh: DeviceMesh) -> str:
    """What is said of a state of which one process holds a value that is not finite."""
    states = StateFolder(folder, {"a": "1"})
    values = torch.arange(12.0).reshape(4, 3)
    parts = {"modules": {"m": {"w": split(values, mesh)}}, "optimizer": {"state": {}}, "average": []}
    states.save({"step": 1} | parts, sharded=True)
    parts["modules"]["m"]["w"].to_local()[0, 0] = torch.nan if dist.get_rank() else 1.0
    try:
        states.save({"step": 2} | parts, sharded=True)
    except FloatingPointError as error:
        return str(error)
    return "saved"


def train(config: dict[str, Any], out: Path) -> dict[str, Any]:
    """Train, and return the bytes that this process holds at the end."""
    runs: list[Any] = []
    start = loop._Run.__init__

    def remembered(self: Any, *arguments: Any) -> None:
        start(self, *arguments)
        runs.append(self)

    loop._Run.__init__ = remembered  # type: ignore[method-assign]
    result = run_training(config, out, source=no_source, vocabulary=WORDS)
    loop._Run.__init__ = start  # type: ignore[method-assign]
    (run,) = runs
    return {
        "skipped": result.skipped_steps,
        "shapes": [list(p.shape) for p in run.parameters],
        "weights": sum(local_part(p).nbytes for p in run.parameters),
        "gradients": sum(local_part(p.grad).nbytes for p in run.parameters if p.grad is not None),
        "average": sum(local_part(value).nbytes for value in run.average),
        "optimizer": optimizer_state_bytes(run.optimizer),
    }


def stopped(source: Path, target: Path) -> None:
    """Copy a training as it was before its last two states: one that a kill stopped after four of eight steps."""
    shutil.copytree(source, target, symlinks=True)
    for name in KEPT_STATES[:2]:
        state = target / name
        shutil.rmtree(state) if state.is_dir() else state.unlink()


def work(path: Path) -> None:
    """Make what a plan says, beside it, and write what was found."""
    out, mesh = path.parent, init_device_mesh("cpu", (dist.get_world_size(),))
    found: dict[str, Any] = {"optimizers": optimizers(mesh), "clipped": clipped(mesh)}
    found["refused"] = refused_state(out / "refused", mesh)
    for name, config, start in json.loads(path.read_text()):
        if start is not None and dist.get_rank() == 0:
            stopped(out / start, out / name)
            # What a kill while a state was written leaves.
            shutil.copytree(out / "refused" / "state.pt", out / name / ".state.tmp")
        dist.barrier()
        found[name] = train(config, out / name)
    (out / f"found{dist.get_rank()}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    with process_group("cpu"):
        work(Path(sys.argv[1]))
