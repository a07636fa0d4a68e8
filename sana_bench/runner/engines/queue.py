"""Which unit of work a free worker is given next."""

from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from typing import Any, Protocol

from sana_bench.runner.workshop import ImageBatch, ScoreChunk

__all__ = ["BatchQueue", "ChunkQueue", "WorkQueue"]


class WorkQueue(Protocol):
    """Units of one kind that are to be done."""

    def __len__(self) -> int: ...

    def put_back(self, unit: Any) -> None: ...

    def take(self, held: str | None, others: Collection[str | None], elsewhere: Collection[Any]) -> Any: ...


class BatchQueue:
    """Batches of images, by cell: a worker stays with the model that it holds for as long as there is work for it."""

    def __init__(self, batches: Iterable[ImageBatch]) -> None:
        self._left: dict[str, deque[ImageBatch]] = {}
        for batch in batches:
            self._left.setdefault(batch.cell, deque()).append(batch)

    def __len__(self) -> int:
        return sum(map(len, self._left.values()))

    def put_back(self, batch: ImageBatch) -> None:
        """Take a batch back that was not finished; it is the next of its cell."""
        self._left[batch.cell].appendleft(batch)

    def take(
        self, held: str | None, others: Collection[str | None], elsewhere: Collection[ImageBatch]
    ) -> ImageBatch | None:
        """The next batch for a worker that holds the model of the cell `held`, where `others` hold these; None for none now.

        Without work for that model it gets the cell with the most batches for each worker on it, so that few models are loaded.
        A search of several winners is done by one worker: its batches wait while one of them is done `elsewhere`.
        """
        on = Counter(others)
        cells = sorted(self._left, key=lambda cell: -len(self._left[cell]) / (on[cell] + 1))
        for cell in [*([held] if held in self._left else []), *cells]:
            busy = {search for batch in elsewhere if batch.cell == cell for search in batch.searches}
            for place, batch in enumerate(self._left[cell]):
                if busy.isdisjoint(batch.searches):
                    del self._left[cell][place]
                    return batch
        return None


class ChunkQueue:
    """Chunks of scores in their order, taken from their source as there is somebody to do them."""

    def __init__(self, chunks: Iterable[ScoreChunk]) -> None:
        self._source: Iterator[ScoreChunk] = iter(chunks)
        self._next = deque[ScoreChunk]()

    def __len__(self) -> int:
        """At least how many there are."""
        if not self._next:
            self._next.extend(islice(self._source, 1))
        return len(self._next)

    def put_back(self, chunk: ScoreChunk) -> None:
        """Take a chunk back that was not finished."""
        self._next.appendleft(chunk)

    def take(self, held: object, others: object, elsewhere: object) -> ScoreChunk | None:
        """The next chunk; None when there is none left."""
        return self._next.popleft() if len(self) else None
