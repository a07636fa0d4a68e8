"""The engine that needs nothing: all work in this process, one batch after another."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from sana_bench.core.fingerprint import fingerprint, short
from sana_bench.core.provenance import describe_worker
from sana_bench.core.stopping import workers
from sana_bench.runner.workshop import (
    ImageBatch,
    ScoreChunk,
    Scored,
    Workplace,
    Workshop,
    Writing,
    WrittenBatch,
)

__all__ = ["LocalEngine"]

_WRITERS = 4
_BATCHES_IN_FLIGHT = 2


class LocalEngine:
    """See `sana_bench.runner.engines.base.Engine`. While a batch is computed, the ones before it are encoded and written."""

    at_once = False
    note = ""

    def __init__(
        self,
        workshop: Workshop,
        place: Workplace,
        protocols: Sequence[str],
        note_worker: Callable[[str, Mapping[str, Any]], None],
    ) -> None:
        """`protocols` are those that scores will be made by; `note_worker` is told the key and description of this process."""
        self._workshop, self._place, self._protocols = workshop, place, protocols
        self._note_worker = note_worker
        self.checked: dict[str, Any] = {}

    def check(self) -> None:
        """Check this device now."""
        from sana_bench.metrics.selfcheck.session import check_run, tell_failed

        self.checked = check_run(self._protocols, self._place.device, self._place.output)
        tell_failed(self.checked)

    def images(self, batches: Iterable[ImageBatch]) -> Generator[tuple[ImageBatch, WrittenBatch]]:
        """Make batches in their order; any exception but those that a batch deals with ends it."""
        waiting = deque[tuple[ImageBatch, Writing]]()
        with workers(_WRITERS) as pool:
            for batch in batches:
                computed = self._workshop.compute(batch)
                waiting.append((batch, self._workshop.start_writing(computed, pool)))
                while len(waiting) > _BATCHES_IN_FLIGHT or (waiting and waiting[0][1].is_done):
                    done, writing = waiting.popleft()
                    yield done, replace(writing.finish(), worker=self._worker)
            while waiting:
                done, writing = waiting.popleft()
                yield done, replace(writing.finish(), worker=self._worker)

    def scores(
        self, chunks: Iterable[ScoreChunk], gpu_share: float = 1.0
    ) -> Iterator[tuple[ScoreChunk, Scored, str]]:
        """Score chunks in their order."""
        for chunk in chunks:
            yield chunk, self._workshop.score(chunk), self._worker

    @cached_property
    def _worker(self) -> str:
        """The key of this process, asked for once it has computed something: then it knows its threads."""
        machine = describe_worker(self._place.device)
        key = short(fingerprint(machine))
        self._note_worker(key, machine)
        return key

    def release(self) -> None:
        """Drop loaded generators."""
        self._workshop.release()

    def close(self) -> None:
        """Nothing was started."""
