"""The places of a run's workers on a Ray cluster: who sits there, and whether that is the driver's equal.

Ray restarts nothing by itself: a worker that was lost is replaced here, and shows first that it is the driver's equal.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sana_bench.core import atomic
from sana_bench.core.engines import EngineRequest
from sana_bench.core.errors import AssetError, UsageError
from sana_bench.core.fingerprint import fingerprint, short
from sana_bench.core.progress import say
from sana_bench.metrics.selfcheck.session import check_run, tell_failed
from sana_bench.runner.engines.worker import Bench, Hello, Worker, differences
from sana_bench.runner.workshop import ImageBatch, ScoreChunk

__all__ = ["ATTEMPTS", "IN_FLIGHT", "Seat", "Seats", "reason_of"]

#: Units that a worker is given at once, enough that a device never waits for the driver: one at work, one behind it.
IN_FLIGHT = 2
#: How often something is tried that may kill a worker.
ATTEMPTS = 3
# How long a run without any worker waits for the first, and a worker may take to start.
_PATIENCE_S = 600.0
# Units are small: this holds many, and fits the small /dev/shm of containers.
_OBJECT_STORE_BYTES = 512 * 2**20
# On a CPU a worker is one thread, so that sums do not depend on how many threads shared them.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@dataclass
class Seat:
    """A worker's place, whoever sits on it: the units that its worker has, the oldest first.

    `since` is when what its worker is at began: its start, or the oldest unit. None while it has no process yet: it may wait
    for a device that others have.
    """

    number: int
    actor: Any = None
    process: Any = None
    hello: Any = None
    check: Any = None
    told: Hello | None = None
    key: str = ""
    cell: str | None = None
    flying: dict[Any, ImageBatch | ScoreChunk] = field(default_factory=dict)
    since: float | None = None
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


class Seats:
    """All seats of a run. Ray is started with the first workers; `close` stops what was started."""

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
        self.note_event, self._note_worker = note_event, note_worker
        self._seats: list[Seat] = []
        #: Whether workers take GPUs, and which part of one each takes.
        self.on_gpus = bench.place.device.startswith("cuda")
        self.share = 1.0
        self._started_ray = False
        self._alone_since = 0.0
        self._bench_ref: Any = None
        self._checked: dict[str, dict[str, Any]] = {}

    def __iter__(self) -> Iterator[Seat]:
        return iter(self._seats)

    def __len__(self) -> int:
        return len(self._seats)

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

    def fill(self, share: float) -> None:
        """Have workers that take this part of a GPU each: as many as asked for, or several on each of so many GPUs."""
        import ray

        self._start()
        if self._seats and share == self.share:
            return
        for seat in self._seats:
            ray.kill(seat.actor)
        gpus = int(ray.cluster_resources().get("GPU", 0))
        count = self._request.workers or gpus or int(ray.cluster_resources().get("CPU", 1))
        if self.on_gpus and gpus < count:
            raise UsageError(f"--workers {count}: the cluster has {gpus} GPUs")
        self.share = share
        self._seats = [Seat(number) for number in range(int(count / share))]
        for seat in self._seats:
            self.replace(seat)

    def waited(self) -> dict[Any, Seat]:
        """Whatever tells how the start of a worker goes."""
        return {ref: seat for seat in self._seats for ref in (seat.process, seat.hello, seat.check) if ref}

    def hear(self, seat: Seat, ref: Any) -> bool:
        """Deal with what `waited` gave and is there now; False for anything else."""
        if ref == seat.process:
            seat.process, seat.since = None, time.monotonic()
        elif ref == seat.hello:
            self._welcome(seat)
        elif ref == seat.check:
            self._keep_check(seat)
        else:
            return False
        return True

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

    def replace(self, seat: Seat) -> None:
        """Put another worker on a seat, or the first one."""
        import ray

        options = {"num_gpus": self.share} if self.on_gpus else {"runtime_env": {"env_vars": _ONE_THREAD}}
        # Two units, and a word between them.
        kind = ray.remote(
            num_cpus=self.share,
            max_concurrency=IN_FLIGHT + 1,
            max_restarts=0,
            max_task_retries=0,
            **options,
        )
        if seat.actor is not None:
            ray.kill(seat.actor)  # one that is out of reach would keep its device
        self._alone_since = time.monotonic()
        seat.told = seat.check = seat.cell = seat.since = None
        seat.actor = kind(Worker).remote(self._bench_ref)
        seat.process = seat.actor.__ray_ready__.remote()
        seat.hello = seat.actor.hello.remote()

    def _welcome(self, seat: Seat) -> None:
        """Let a worker work that is the driver's equal."""
        import ray

        ref, seat.hello = seat.hello, None
        try:
            told: Hello = ray.get(ref)
        except ray.exceptions.RayTaskError as error:
            raise error.as_instanceof_cause() from None
        except ray.exceptions.RayError as error:
            self._start_again(seat, reason_of(error))
            return
        found = [told.problem] if told.problem else differences(self._identity, told.identity)
        if found:
            seat.told = told
            self._close_seat(seat, f"is refused: {'; '.join(found)}")
            return
        seat.told, seat.since = told, time.monotonic()
        seat.key = short(fingerprint(dict(told.machine)))
        self._note_worker(seat.key, told.machine)
        kind = str(told.machine["device_name"])
        if kind not in self._checked:
            self._checked[kind] = {}
            seat.check = seat.actor.check.remote()
        else:
            seat.failed_starts = 0

    def _keep_check(self, seat: Seat) -> None:
        import ray

        kind = str(seat.told.machine["device_name"]) if seat.told is not None else ""
        ref, seat.check = seat.check, None
        try:
            self._checked[kind] = ray.get(ref)
        except ray.exceptions.RayTaskError as error:
            raise error.as_instanceof_cause() from None
        except ray.exceptions.RayError as error:
            self._start_again(seat, reason_of(error))
            return
        seat.failed_starts = 0
        tell_failed(self._checked[kind], f"{kind}: ")

    def replace_hanging(self) -> None:
        """Replace workers that take too long to start, `--worker-timeout` or ten minutes, whichever is longer."""
        limit = max(_PATIENCE_S, self._request.timeout_s or 0)
        for seat in self._seats:
            is_starting = not seat.closed and not seat.is_ready
            if is_starting and seat.since is not None and time.monotonic() - seat.since > limit:
                self._start_again(seat, f"was not ready in {limit:g} s")

    def _start_again(self, seat: Seat, reason: str) -> None:
        """Put another worker on the seat of one that did not become ready; on the third time close it."""
        # Whichever worker of this kind is ready next is checked.
        if seat.told is not None:
            self._checked.pop(str(seat.told.machine["device_name"]), None)
        seat.failed_starts += 1
        if seat.failed_starts >= ATTEMPTS:
            self._close_seat(seat, f"did not start {ATTEMPTS} times: {reason}")
            return
        say(f"{seat.name} {reason}; a new one is started")
        self.note_event("worker_lost", {"worker": seat.name, "reason": reason})
        self.replace(seat)

    def refuse_to_wait_for_ever(self) -> None:
        """Raise `AssetError` where no worker is left, or none comes."""
        closed = [seat.closed for seat in self._seats if seat.closed]
        if len(closed) == len(self._seats):
            raise AssetError(f"no worker is left: {closed[0]}")
        if any(seat.since is not None for seat in self._seats):
            self._alone_since = time.monotonic()
        elif time.monotonic() - self._alone_since > _PATIENCE_S:
            raise AssetError(
                f"no worker was there for {_PATIENCE_S:.0f} s: does the cluster have {len(self._seats)} free devices?"
            )

    def _close_seat(self, seat: Seat, why: str) -> None:
        import ray

        seat.closed = f"{seat.name} {why}"
        say(seat.closed)
        self.note_event("worker_refused", {"worker": seat.name, "reason": why})
        ray.kill(seat.actor)
        seat.told = seat.process = seat.hello = seat.check = seat.since = None

    def _start(self) -> None:
        if self._bench_ref is not None:
            return
        import ray

        atomic.write_bytes(self._bench.probe, self._bench.token)
        if not ray.is_initialized():
            self._connect()
        self._bench_ref = ray.put(self._bench)

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


def reason_of(error: Exception) -> str:
    """What Ray says, in its first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
