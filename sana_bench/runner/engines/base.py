"""What the runner asks of an engine."""

from collections.abc import Generator, Iterable, Iterator
from typing import Protocol

from sana_bench.runner.workshop import ImageBatch, ScoreChunk, Scored, WrittenBatch

__all__ = ["Engine"]


class Engine(Protocol):
    """Does units of work, and hands each back with what became of it, in any order."""

    #: Whether work of several cells is better given at once than one cell after another.
    at_once: bool

    @property
    def note(self) -> str:
        """What a line of progress says of the engine; empty for nothing."""
        ...

    def images(self, batches: Iterable[ImageBatch]) -> Generator[tuple[ImageBatch, WrittenBatch]]:
        """Make batches; what was handed back stays valid whatever happens to the others."""
        ...

    def scores(self, chunks: Iterable[ScoreChunk]) -> Iterator[tuple[ScoreChunk, Scored]]:
        """Score chunks, which are taken as there is somebody to do them."""
        ...

    def release(self) -> None:
        """Drop loaded generators: what follows is no image."""
        ...

    def close(self) -> None:
        """Stop whatever was started; what is in the middle of something is lost."""
        ...
