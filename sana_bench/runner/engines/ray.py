"""The engine for several devices and nodes: Ray's actors do the work, this process decides who does what.

Nothing here is decided by time or by how many workers there are but who makes a batch: batches and chunks are those of the local
engine. Ray restarts nothing by itself: a worker that was lost is replaced here, and shows first that it is the driver's equal.
"""

import time
from collections.abc import Generator, Iterable
from dataclasses import replace
from typing import Any

from sana_bench.core import atomic
from sana_bench.core.errors import BenchError, IncompleteError
from sana_bench.core.progress import say
from sana_bench.results.schema import ImageRow
from sana_bench.runner.engines.queue import BatchQueue, ChunkQueue, WorkQueue
from sana_bench.runner.engines.seats import ATTEMPTS, IN_FLIGHT, Seat, Seats, reason_of
from sana_bench.runner.workshop import ImageBatch, ScoreChunk, Scored, Workplace, WrittenBatch
from sana_models.files import read_bytes

__all__ = ["RayEngine"]

# How often the driver looks for workers that hang.
_TICK_S = 1.0


class RayEngine:
    """See `sana_bench.runner.engines.base.Engine`. Ray is started with the first work; `close` stops what was started."""

    at_once = True

    def __init__(self, seats: Seats, place: Workplace, timeout_s: float | None) -> None:
        """`place` is the driver's; a worker that takes longer than `timeout_s` for a unit is replaced, if given."""
        self._seats, self._place, self._timeout_s = seats, place, timeout_s
        self._attempts: dict[int, int] = {}
        self._released = False

    @property
    def checked(self) -> dict[str, Any]:
        """As of one device; of several kinds also what each says, and of a protocol what speaks against it most."""
        return self._seats.checked

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
                yield batch, WrittenBatch(tuple(_failed(batch, str(written), self._place.device)))
                continue
            for path, content in written.contents.items():
                atomic.write_bytes(self._place.output / path, content)
            yield batch, replace(written, worker=worker)

    def scores(
        self, chunks: Iterable[ScoreChunk], gpu_share: float = 1.0
    ) -> Generator[tuple[ScoreChunk, Scored, str]]:
        """Score chunks; raises `IncompleteError` for one that killed three workers."""
        # While generators are needed again soon, as between rounds, their workers score.
        share = gpu_share if self._seats.on_gpus and self._released else self._seats.share
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
        self._seats.close()

    def _drive(self, queue: WorkQueue, share: float) -> Generator[tuple[Any, Any, str]]:
        """Hand out units until all are done, in the order in which they are finished."""
        if not len(queue):
            return
        self._seats.fill(share)
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

        waited = {**self._seats.waited(), **{ref: seat for seat in self._seats for ref in seat.flying}}
        self._seats.refuse_to_wait_for_ever()
        if not ray.wait(list(waited), num_returns=1, timeout=_TICK_S)[0]:
            return
        for ref in ray.wait(list(waited), num_returns=len(waited), timeout=0)[0]:
            seat = waited[ref]
            # Neither: it is of a worker that was found lost just now.
            if not self._seats.hear(seat, ref) and ref in seat.flying:
                yield from self._finished(seat, ref, queue)

    def _replace_hanging(self, queue: WorkQueue) -> Generator[tuple[Any, Any, str]]:
        self._seats.replace_hanging()
        limit = self._timeout_s
        for seat in self._seats:
            if limit and seat.flying and seat.since is not None and time.monotonic() - seat.since > limit:
                yield from self._lost(seat, f"did not finish a batch in {limit:g} s", queue)

    def _hand_out(self, queue: WorkQueue) -> None:
        for seat in self._seats:
            while seat.is_ready and len(seat.flying) < IN_FLIGHT:
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

    def _send(self, seat: Seat, unit: ImageBatch | ScoreChunk) -> None:
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

    def _finished(self, seat: Seat, ref: Any, queue: WorkQueue) -> Generator[tuple[Any, Any, str]]:
        import ray

        try:
            result = ray.get(ref)
        except ray.exceptions.RayTaskError as error:
            raise error.as_instanceof_cause() from None
        except ray.exceptions.RayError as error:
            yield from self._lost(seat, reason_of(error), queue)
            return
        if isinstance(result, BenchError):
            raise result
        unit = seat.flying.pop(ref)
        self._attempts.pop(id(unit), None)
        seat.since = time.monotonic()
        yield unit, result, seat.key

    def _lost(self, seat: Seat, reason: str, queue: WorkQueue) -> Generator[tuple[Any, Any, str]]:
        """Give a dead worker's units to others, or up; and put another worker on its seat."""
        say(f"{seat.name} is lost ({reason}); others do its work, and a new one is started")
        self._seats.note_event("worker_lost", {"worker": seat.name, "reason": reason})
        units, seat.flying = list(seat.flying.values()), {}
        self._seats.replace(seat)
        for unit in reversed(units):
            attempts = self._attempts[id(unit)] = self._attempts.get(id(unit), 0) + 1
            if attempts < ATTEMPTS:
                queue.put_back(unit)
                continue
            what = unit.cell if isinstance(unit, ImageBatch) else "a chunk of scores"
            yield (
                unit,
                IncompleteError(f"{what}: {attempts} workers were lost with it; the last: {reason}"),
                "",
            )


def _failed(batch: ImageBatch, reason: str, device: str) -> Generator[ImageRow]:
    for sample, lacks in zip(batch.samples, batch.lacks, strict=True):
        if lacks:
            yield ImageRow(
                sample.prompt.id, sample.index, sample.prompt.sha256, "failed",
                path=None, sha256=None, length=None, seconds=None, batch_size=len(batch.samples), device=device,
                error=reason,
            )  # fmt: skip
