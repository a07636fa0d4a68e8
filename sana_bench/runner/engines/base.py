"""What the runner asks of an engine."""

from collections.abc import Generator, Iterable, Iterator
from typing import Any, Protocol

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

    @property
    def checked(self) -> dict[str, Any]:
        """How far numbers made here can be trusted, as `sana_bench.metrics.selfcheck.session.check_run` says."""
        ...

    def check(self) -> None:
        """Say before any work when numbers made here are known to be wrong."""
        ...

    def images(self, batches: Iterable[ImageBatch]) -> Generator[tuple[ImageBatch, WrittenBatch]]:
        """Make batches; what was handed back stays valid whatever happens to the others."""
        ...

    def scores(
        self, chunks: Iterable[ScoreChunk], gpu_share: float = 1.0
    ) -> Iterator[tuple[ScoreChunk, Scored, str]]:
        """Score chunks, which are taken as there is somebody to do them; with each comes the key of who did it.

        `gpu_share` is the part of a GPU that one worker keeps busy.
        """
        ...

    def release(self) -> None:
        """Drop loaded generators: no images follow, or none at once."""
        ...

    def close(self) -> None:
        """Stop whatever was started; what is in the middle of something is lost."""
        ...
