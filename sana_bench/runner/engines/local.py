"""The engine that needs nothing: all work in this process, one batch after another."""

from collections import deque
from collections.abc import Generator, Iterable, Iterator

from sana_bench.core.stopping import workers
from sana_bench.runner.workshop import ImageBatch, ScoreChunk, Scored, Workshop, Writing, WrittenBatch

__all__ = ["LocalEngine"]

_WRITERS = 4
_BATCHES_IN_FLIGHT = 2


class LocalEngine:
    """See `sana_bench.runner.engines.base.Engine`. While a batch is computed, the ones before it are encoded and written."""

    at_once = False
    note = ""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop

    def images(self, batches: Iterable[ImageBatch]) -> Generator[tuple[ImageBatch, WrittenBatch]]:
        """Make batches in their order; any exception but those that a batch deals with ends it."""
        waiting = deque[tuple[ImageBatch, Writing]]()
        with workers(_WRITERS) as pool:
            for batch in batches:
                computed = self._workshop.compute(batch)
                waiting.append((batch, self._workshop.start_writing(computed, pool)))
                while len(waiting) > _BATCHES_IN_FLIGHT or (waiting and waiting[0][1].is_done):
                    done, writing = waiting.popleft()
                    yield done, writing.finish()
            while waiting:
                done, writing = waiting.popleft()
                yield done, writing.finish()

    def scores(self, chunks: Iterable[ScoreChunk]) -> Iterator[tuple[ScoreChunk, Scored]]:
        """Score chunks in their order."""
        for chunk in chunks:
            yield chunk, self._workshop.score(chunk)

    def release(self) -> None:
        """Drop loaded generators."""
        self._workshop.release()

    def close(self) -> None:
        """Nothing was started."""
