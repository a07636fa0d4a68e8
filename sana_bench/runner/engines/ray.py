"""The engine for several devices and nodes: Ray's actors do the work, this process decides who does what.

Nothing here is decided by time or by how many workers there are but who makes a batch: batches and chunks are those of the local
engine. Ray restarts nothing by itself: a worker that was lost is replaced here, and shows first that it is the driver's equal.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sana_bench.core import atomic
from sana_bench.core.engines import EngineRequest
from sana_bench.core.errors import AssetError, BenchError, IncompleteError, UsageError
from sana_bench.core.fingerprint import fingerprint, short
from sana_bench.core.progress import say
from sana_bench.metrics.selfcheck.session import check_run, tell_failed
from sana_bench.results.schema import ImageRow
from sana_bench.runner.engines.queue import BatchQueue, ChunkQueue, WorkQueue
from sana_bench.runner.engines.worker import Bench, Hello, Worker, differences
from sana_bench.runner.workshop import ImageBatch, ScoreChunk, Scored, WrittenBatch
from sana_models.files import read_bytes

__all__ = ["RayEngine"]

_Unit = ImageBatch | ScoreChunk

# Enough that a device never waits for the driver: one unit at work, one behind it.
_IN_FLIGHT = 2
_ATTEMPTS = 3
# How often the driver looks for workers that hang.
_TICK_S = 1.0
# How long a run without any worker waits for the first.
_PATIENCE_S = 600.0
# Units are small: this holds many, and fits the small /dev/shm of containers.
_OBJECT_STORE_BYTES = 512 * 2**20
# On a CPU a worker is one thread, so that sums do not depend on how many threads shared them.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@dataclass
class _Seat:
    """A worker's place, whoever sits on it: the units that its worker has, the oldest first, and since when that is at work."""

    number: int
    actor: Any = None
    hello: Any = None
    check: Any = None
    told: Hello | None = None
    key: str = ""
    cell: str | None = None
    flying: dict[Any, _Unit] = field(default_factory=dict)
    since: float = 0.0
    failed_starts: int = 0
    closed: str = ""

    @property
    def is_ready(self) -> bool:
        """Whether its worker can be given work."""
        return self.told is not None and self.check is None

    @property
    def name(self) -> str:
        """How messages call it."""
        where = f" on {self.told.machine['node']}" if self.told is not None else ""
        return f"worker {self.number + 1}{where}"


class RayEngine:
    """See `sana_bench.runner.engines.base.Engine`. Ray is started with the first work; `close` stops what was started."""

    at_once = True

    def __init__(
        self,
        bench: Bench,
        identity: Mapping[str, str],
        note_event: Callable[[str, dict[str, Any]], None],
        note_worker: Callable[[str, Mapping[str, Any]], None],
        request: EngineRequest,
    ) -> None:
        """Without `request.workers` every device of a cluster is taken.

        `note_event` is told what a reader should know, and `note_worker` the key and the description of each worker.
        """
        self._bench, self._identity, self._request = bench, identity, request
        self._note_event, self._note_worker = note_event, note_worker
        self._seats: list[_Seat] = []
        self._attempts: dict[int, int] = {}
        self._on_gpus = bench.place.device.startswith("cuda")
        self._share, self._released = 1.0, False
        self._started_ray = False
        self._alone_since = 0.0
        self._bench_ref: Any = None
        self._checked: dict[str, dict[str, Any]] = {}

    @property
    def checked(self) -> dict[str, Any]:
        """As of one device; of several kinds also what each says, and of a protocol what speaks against it most."""
        kinds = {kind: found for kind, found in self._checked.items() if found}
        if not kinds:  # there was nothing to do
            place = self._bench.place
            return check_run(self._bench.protocols, place.device, place.output)
        first, *others = kinds.values()
        if not others:
            return first
        states = [(name, state) for found in kinds.values() for name, state in found["protocols"].items()]
        worst = dict(sorted(states, key=lambda pair: pair[1].startswith("failed")))
        summary = "; ".join(f"{kind}: {found['summary']}" for kind, found in kinds.items())
        return {**first, "summary": summary, "protocols": worst, "kinds": kinds}

    def check(self) -> None:
        """Left to the first worker of each kind of device."""

    @property
    def note(self) -> str:
        """How many workers are alive."""
        return f"{sum(seat.is_ready for seat in self._seats)} of {len(self._seats)} workers"

    def images(self, batches: Iterable[ImageBatch]) -> Generator[tuple[ImageBatch, WrittenBatch]]:
        """Make batches; those that killed three workers come back with failed rows."""
        self._released = False
        for batch, written, worker in self._drive(BatchQueue(batches), 1.0):
            if isinstance(written, Exception):
                yield batch, WrittenBatch(tuple(_failed(batch, str(written), self._bench.place.device)))
                continue
            for path, content in written.contents.items():
                atomic.write_bytes(self._bench.place.output / path, content)
            yield batch, replace(written, worker=worker)

    def scores(
        self, chunks: Iterable[ScoreChunk], gpu_share: float = 1.0
    ) -> Generator[tuple[ScoreChunk, Scored, str]]:
        """Score chunks; raises `IncompleteError` for one that killed three workers."""
        # While generators are needed again soon, as between rounds, their workers score.
        share = gpu_share if self._on_gpus and self._released else self._share
        for chunk, scored, worker in self._drive(ChunkQueue(chunks), share):
            if isinstance(scored, Exception):
                raise scored
            yield chunk, scored, worker

    def release(self) -> None:
        """Drop loaded generators."""
        self._released = True
        for seat in self._seats:
            seat.cell = None
            if seat.is_ready:
                seat.actor.release.remote()

    def close(self) -> None:
        """Stop the workers, and Ray where it was started here."""
        if not self._started_ray and self._bench_ref is None:
            return
        import ray

        for seat in self._seats:
            if seat.actor is not None and ray.is_initialized():
                ray.kill(seat.actor)
        self._seats, self._bench_ref = [], None
        if self._started_ray:
            ray.shutdown()
        self._bench.probe.unlink(missing_ok=True)

    def _drive(self, queue: WorkQueue, share: float) -> Generator[tuple[Any, Any, str]]:
        """Hand out units until all are done, in the order in which they are finished."""
        if not len(queue):
            return
        self._start()
        self._seat_workers(share)
        self._attempts.clear()
        try:
            while len(queue) or any(seat.flying for seat in self._seats):
                self._hand_out(queue)
                yield from self._next_finished(queue)
                yield from self._replace_hanging(queue)
        finally:
            # Where somebody gave up, such as a metric that one image was missing for, what still flies is nobody's.
            for seat in self._seats:
                seat.flying.clear()

    def _next_finished(self, queue: WorkQueue) -> Generator[tuple[Any, Any, str]]:
        """Wait for whatever comes next, a moment at most, and deal with it."""
        import ray

        waited = {ref: seat for seat in self._seats for ref in (seat.hello, seat.check, *seat.flying) if ref}
        self._refuse_to_wait_for_ever()
        if not ray.wait(list(waited), num_returns=1, timeout=_TICK_S)[0]:
            return
        for ref in ray.wait(list(waited), num_returns=len(waited), timeout=0)[0]:
            seat = waited[ref]
            if ref == seat.hello:
                self._welcome(seat)
            elif ref == seat.check:
                self._keep_check(seat)
            elif ref in seat.flying:  # not of a worker that was found lost just now
                yield from self._finished(seat, ref, queue)

    def _replace_hanging(self, queue: WorkQueue) -> Generator[tuple[Any, Any, str]]:
        limit = self._request.timeout_s
        for seat in self._seats:
            if limit and seat.flying and time.monotonic() - seat.since > limit:
                yield from self._lost(seat, f"did not finish a batch in {limit:g} s", queue)

    def _hand_out(self, queue: WorkQueue) -> None:
        for seat in self._seats:
            while seat.is_ready and len(seat.flying) < _IN_FLIGHT:
                suspects = [self._attempts.get(id(unit), 0) for unit in seat.flying.values()]
                if any(suspects):
                    break  # a unit that was there when a worker died flies alone: then it is known who did it
                others = [other for other in self._seats if other is not seat]
                elsewhere = [unit for other in others for unit in other.flying.values()]
                unit = queue.take(seat.cell, [other.cell for other in others], elsewhere)
                if unit is None:
                    break
                if seat.flying and self._attempts.get(id(unit)):
                    queue.put_back(unit)
                    break
                self._send(seat, unit)

    def _send(self, seat: _Seat, unit: _Unit) -> None:
        if isinstance(unit, ImageBatch):
            seat.cell = unit.cell
            ref = seat.actor.images.remote(unit)
        else:
            samples = [replace(one, image_path=one.image_path.absolute()) for one in unit.samples]
            sent = replace(unit, samples=tuple(samples))
            contents = None
            if seat.told is not None and not seat.told.shared:
                contents = [read_bytes(sample.image_path) for sample in samples]
            ref = seat.actor.scores.remote(sent, contents)
        if not seat.flying:
            seat.since = time.monotonic()
        seat.flying[ref] = unit

    def _finished(self, seat: _Seat, ref: Any, queue: WorkQueue) -> Generator[tuple[Any, Any, str]]:
        import ray

        try:
            result = ray.get(ref)
        except ray.exceptions.RayTaskError as error:
            raise error.as_instanceof_cause() from None
        except ray.exceptions.RayError as error:
            yield from self._lost(seat, _reason(error), queue)
            return
        if isinstance(result, BenchError):
            raise result
        unit = seat.flying.pop(ref)
        self._attempts.pop(id(unit), None)
        seat.since = time.monotonic()
        yield unit, result, seat.key

    def _lost(self, seat: _Seat, reason: str, queue: WorkQueue) -> Generator[tuple[Any, Any, str]]:
        """Give a dead worker's units to others, or up; and put another worker on its seat."""
        say(f"{seat.name} is lost ({reason}); others do its work, and a new one is started")
        self._note_event("worker_lost", {"worker": seat.name, "reason": reason})
        units, seat.flying = list(seat.flying.values()), {}
        self._seat_worker(seat)
        for unit in reversed(units):
            attempts = self._attempts[id(unit)] = self._attempts.get(id(unit), 0) + 1
            if attempts < _ATTEMPTS:
                queue.put_back(unit)
                continue
            what = unit.cell if isinstance(unit, ImageBatch) else "a chunk of scores"
            yield (
                unit,
                IncompleteError(f"{what}: {attempts} workers were lost with it; the last: {reason}"),
                "",
            )

    def _start(self) -> None:
        if self._bench_ref is not None:
            return
        import ray

        atomic.write_bytes(self._bench.probe, self._bench.token)
        if not ray.is_initialized():
            self._connect()
        self._bench_ref = ray.put(self._bench)

    def _seat_workers(self, share: float) -> None:
        """Have workers that take this part of a GPU each: as many as asked for, or several on each of so many GPUs."""
        import ray

        if self._seats and share == self._share:
            return
        for seat in self._seats:
            ray.kill(seat.actor)
        gpus = int(ray.cluster_resources().get("GPU", 0))
        count = self._request.workers or gpus or int(ray.cluster_resources().get("CPU", 1))
        if self._on_gpus and gpus < count:
            raise UsageError(f"--workers {count}: the cluster has {gpus} GPUs")
        self._share = share
        self._seats = [_Seat(number) for number in range(int(count / share))]
        self._alone_since = time.monotonic()
        for seat in self._seats:
            self._seat_worker(seat)

    def _connect(self) -> None:
        import ray

        where = self._request.address or "this machine"
        say(f"engine: Ray on {where} is being started, which takes about 15 s")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        own: dict[str, Any] = {} if self._request.address else {
            "num_cpus": self._request.workers or os.cpu_count(), "object_store_memory": _OBJECT_STORE_BYTES,
            "include_dashboard": False,
        }  # fmt: skip
        # Ray takes termination requests for itself, and ends the program without a word of how to go on.
        is_main = threading.current_thread() is threading.main_thread()
        heard = signal.getsignal(signal.SIGTERM)
        try:
            # Without `local` Ray would join a cluster that happens to run here.
            address = self._request.address or "local"
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **own)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UsageError(f"Ray cannot be reached at {where}: {error}") from None
        finally:
            if is_main:
                signal.signal(signal.SIGTERM, heard)
        self._started_ray = True

    def _seat_worker(self, seat: _Seat) -> None:
        import ray

        options = {"num_gpus": self._share} if self._on_gpus else {"runtime_env": {"env_vars": _ONE_THREAD}}
        # Two units, and a word between them.
        kind = ray.remote(
            num_cpus=self._share,
            max_concurrency=_IN_FLIGHT + 1,
            max_restarts=0,
            max_task_retries=0,
            **options,
        )
        if seat.actor is not None:
            ray.kill(seat.actor)  # one that is out of reach would keep its device
        seat.told = seat.check = seat.cell = None
        seat.actor = kind(Worker).remote(self._bench_ref)
        seat.hello = seat.actor.hello.remote()

    def _welcome(self, seat: _Seat) -> None:
        """Let a worker work that is the driver's equal."""
        import ray

        ref, seat.hello = seat.hello, None
        try:
            told: Hello = ray.get(ref)
        except ray.exceptions.RayTaskError as error:
            raise error.as_instanceof_cause() from None
        except ray.exceptions.RayError as error:
            seat.failed_starts += 1
            if seat.failed_starts < _ATTEMPTS:
                self._seat_worker(seat)
            else:
                self._close_seat(seat, f"did not start {_ATTEMPTS} times: {_reason(error)}")
            return
        found = [told.problem] if told.problem else differences(self._identity, told.identity)
        if found:
            seat.told = told
            self._close_seat(seat, f"is refused: {'; '.join(found)}")
            return
        seat.told, seat.failed_starts = told, 0
        seat.key = short(fingerprint(dict(told.machine)))
        self._note_worker(seat.key, told.machine)
        kind = str(told.machine["device_name"])
        if kind not in self._checked:
            self._checked[kind] = {}
            seat.check = seat.actor.check.remote()

    def _keep_check(self, seat: _Seat) -> None:
        import ray

        kind = str(seat.told.machine["device_name"]) if seat.told is not None else ""
        ref, seat.check = seat.check, None
        try:
            self._checked[kind] = ray.get(ref)
        except ray.exceptions.RayTaskError as error:
            raise error.as_instanceof_cause() from None
        except ray.exceptions.RayError:
            del self._checked[kind]
            self._seat_worker(seat)
            return
        tell_failed(self._checked[kind], f"{kind}: ")

    def _close_seat(self, seat: _Seat, why: str) -> None:
        import ray

        seat.closed = f"{seat.name} {why}"
        say(seat.closed)
        self._note_event("worker_refused", {"worker": seat.name, "reason": why})
        ray.kill(seat.actor)
        seat.told = None

    def _refuse_to_wait_for_ever(self) -> None:
        """Raise `AssetError` where no worker is left, or none comes."""
        closed = [seat.closed for seat in self._seats if seat.closed]
        if len(closed) == len(self._seats):
            raise AssetError(f"no worker is left: {closed[0]}")
        if any(seat.told is not None for seat in self._seats):
            self._alone_since = time.monotonic()
        elif time.monotonic() - self._alone_since > _PATIENCE_S:
            raise AssetError(
                f"no worker was there for {_PATIENCE_S:.0f} s: does the cluster have {len(self._seats)} free devices?"
            )


def _failed(batch: ImageBatch, reason: str, device: str) -> Generator[ImageRow]:
    for sample in batch.samples:
        if sample.place in batch.missing:
            yield ImageRow(
                sample.prompt.id, sample.index, sample.prompt.sha256, "failed",
                path=None, sha256=None, length=None, seconds=None, batch_size=len(batch.samples), device=device,
                error=reason,
            )  # fmt: skip


def _reason(error: Exception) -> str:
    """What Ray says, in its first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
