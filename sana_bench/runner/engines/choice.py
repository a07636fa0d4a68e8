"""Which engine a run takes, and how many workers."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, Literal

from sana_bench.core.engines import EngineRequest
from sana_bench.core.errors import UsageError
from sana_bench.core.fingerprint import FileHashes
from sana_bench.core.provenance import package_versions
from sana_bench.core.registry import MEASURED
from sana_bench.metrics.base import FeatureMetric, Metric, metric_key
from sana_bench.metrics.fid import OWN
from sana_bench.runner.engines.base import Engine
from sana_bench.runner.engines.local import LocalEngine
from sana_bench.runner.engines.queue import BatchQueue
from sana_bench.runner.engines.worker import Bench, identity_of
from sana_bench.runner.workshop import ImageBatch, Workplace, Workshop, image_batches
from sana_bench.suites.cells import ResolvedBenchmark, ResolvedSuite
from sana_bench.suites.plan import CellPlan

__all__ = ["Choice", "choose_engine", "open_engine", "plan_lines"]

_INSTALL = "pip install 'sana-bench[distributed]'"


@dataclass(frozen=True)
class Choice:
    """The engine, the number of workers (None: all that a cluster has), and a line that says why where nobody asked."""

    engine: Literal["local", "ray"]
    workers: int | None = 1
    line: str = ""


def choose_engine(request: EngineRequest, device: str, benchmarks: Sequence[ResolvedBenchmark]) -> Choice:
    """The engine that a run takes: Ray where it is asked for, or where several GPUs are visible and nothing speaks against it.

    Raises `UsageError` for options that contradict one another, more workers than GPUs, a package that is not there, and a
    benchmark that measures one device.
    """
    given = {
        "--workers": request.workers,
        "--address": request.address,
        "--worker-timeout": request.timeout_s,
    }
    named = [option for option, value in given.items() if value is not None]
    if request.engine == "local":
        if named and (named != ["--workers"] or request.workers != 1):
            raise UsageError(
                f"{named[0]}: the engine local is one process on one device; --engine ray has workers"
            )
        return Choice("local")
    gpus = _visible_gpus() if device.startswith("cuda") else 0
    measured = [one.name for one in benchmarks if set(one.metrics) & set(MEASURED)]
    asked = request.engine == "ray" or request.address is not None or (request.workers or 1) > 1
    if not asked:
        if request.timeout_s is not None:
            raise UsageError("--worker-timeout goes with --workers, --address or --engine ray")
        return _unasked(gpus, measured) if request.workers is None else Choice("local")
    if measured:
        raise UsageError(
            f"benchmark {measured[0]!r} measures the time of one device, which others beside it would slow down: "
            "run it without workers, or the rest of the suite without it"
        )
    if find_spec("ray") is None:
        raise UsageError(f"several workers need the package ray, which is not installed: {_INSTALL}")
    if request.address is not None:
        return Choice("ray", request.workers)
    most = gpus or len(os.sched_getaffinity(0))
    if gpus and (request.workers or 0) > gpus:
        raise UsageError(f"--workers {request.workers}: this machine has {gpus} GPUs")
    return Choice("ray", request.workers or most)


def open_engine(
    choice: Choice,
    request: EngineRequest,
    resolved: ResolvedSuite,
    place: Workplace,
    metrics: Mapping[str, Metric | FeatureMetric],
    hashes: FileHashes,
    note_event: Callable[[str, dict[str, Any]], None],
    note_worker: Callable[[str, Mapping[str, Any]], None],
) -> Engine:
    """The engine that was chosen; that of workers starts them with the first work, and needs closing."""
    # What a distance is held against changes nothing about how it is computed.
    protocols = [metric.protocol.removesuffix(OWN) for metric in metrics.values()]
    if choice.engine == "local":
        by_key = {metric_key(metric): metric for metric in metrics.values()}
        return LocalEngine(Workshop(place, resolved.cells(), by_key), place, protocols, note_worker)
    from sana_bench.runner.engines.ray import RayEngine
    from sana_bench.runner.engines.seats import Seats

    bench = Bench.of(resolved, place, protocols, hashes)
    identity = identity_of(resolved, metrics, package_versions())
    asked = replace(request, workers=choice.workers)
    return RayEngine(Seats(bench, identity, note_event, note_worker, asked), bench.place, request.timeout_s)


def _unasked(gpus: int, measured: Sequence[str]) -> Choice:
    if gpus < 2:
        return Choice("local")
    idle = f"{gpus - 1} of {gpus} GPUs idle"
    if measured:
        return Choice("local", line=f"{idle}: benchmark {measured[0]!r} measures one device alone")
    if find_spec("ray") is None:
        return Choice("local", line=f"{idle}: {_INSTALL} lets all of them work")
    return Choice(
        "ray", gpus, f"engine: Ray with {gpus} workers, as {gpus} GPUs are visible (--engine local takes one)"
    )


def _visible_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def plan_lines(plans: Iterable[CellPlan], workers: int, batch_size: int) -> list[str]:
    """What each of so many workers would do if every image took as long as any other: a line each."""
    batches = [batch for plan in plans for batch in image_batches(plan, batch_size)]
    done: list[list[ImageBatch]] = [[] for _ in range(workers)]
    cells: list[str | None] = [None] * workers
    queue = BatchQueue(batches)
    while len(queue):
        # The one with the least to do so far is the first that is free.
        free = min(range(workers), key=lambda worker: sum(len(batch.samples) for batch in done[worker]))
        batch = queue.take(cells[free], [*cells[:free], *cells[free + 1 :]], ())
        if batch is None:
            break
        done[free].append(batch)
        cells[free] = batch.cell
    lines = []
    for worker, own in enumerate(done):
        parts = [
            f"{sum(sum(batch.lacks) for batch in own if batch.cell == cell)} of {cell}"
            for cell in dict.fromkeys(batch.cell for batch in own)
        ]
        count = f"{len(own)} batch{'' if len(own) == 1 else 'es'}"
        lines.append(f"worker {worker + 1} of {workers}: {count}: {', '.join(parts) or 'nothing'}")
    return lines
