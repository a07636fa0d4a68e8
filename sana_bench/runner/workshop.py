"""The units of work of a run, and what does them in one process: a fixed batch of images, a fixed chunk of scores.

The last bits of a network's output depend on the batch it ran in. So batches and chunks are fixed stretches of the order of
work, whatever of them is missing and whoever makes them: an image made again comes out as it was.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Union

from sana_bench import generators
from sana_bench.core import atomic
from sana_bench.core.cut_texts import CutTexts
from sana_bench.core.fingerprint import sha256_bytes
from sana_bench.core.images import SharedImages, png_bytes
from sana_bench.core.samples import Sample
from sana_bench.generators.base import CutsPrompts, Generator, OutOfMemoryError, PreparesPrompts
from sana_bench.metrics.base import FeatureMetric, Metric, ScoreRow
from sana_bench.profiling.image_flops import count_flops
from sana_bench.results.schema import ImageRow
from sana_bench.runner.generation import MadeImage, make_batch
from sana_bench.suites.cells import Cell
from sana_bench.suites.plan import CellPlan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "ImageBatch",
    "ScoreChunk",
    "Scored",
    "Work",
    "Workplace",
    "Workshop",
    "Writing",
    "WrittenBatch",
    "image_batches",
]

# Pixels held for the metrics that follow: more than a chunk of 64 images of 1024 pixels has.
_SHARED_BYTES = 1 << 28

#: What a chunk of scores gives: rows, or feature vectors.
Scored = Union[list[ScoreRow], "NDArray[np.float32]"]
Work = Literal["score", "features", "score_features"]


@dataclass(frozen=True, slots=True)
class ImageBatch:
    """A fixed stretch of a cell's order of work; images of the samples that `lacks` says are written, the others only computed.

    `asks` are facts of the cell that nobody recorded yet: `cuts` and `flops`. `models` is how many loaded models are kept for
    the batches that follow. `searches` are those whose winners other batches have too.
    """

    cell: str
    samples: Sequence[Sample]
    lacks: tuple[bool, ...]
    asks: frozenset[str] = frozenset()
    models: int = 1
    searches: frozenset[tuple[str, int]] = frozenset()


@dataclass(frozen=True)
class WrittenBatch:
    """What became of a batch: a row for each missing image, and what was learnt on the way.

    `contents` are files, by path relative to the output folder, that could not be written where the batch was made. `halved`
    are the batch sizes, with reasons, with which it went on where the device ran out of memory. `worker` is who did it.
    """

    rows: tuple[ImageRow, ...]
    contents: Mapping[str, bytes] = field(default_factory=dict)
    halved: tuple[tuple[int, str], ...] = ()
    cuts: tuple[CutTexts, ...] = ()
    flops: Mapping[str, int] | None = None
    worker: str | None = None


@dataclass(frozen=True)
class ScoreChunk:
    """Images that a metric is given together: to score, to turn into features, or to score by `features`.

    `metric` is its key, and `number` tells the chunk from others of the same call.
    """

    metric: str
    work: Work
    samples: tuple[Sample, ...]
    number: int
    features: "NDArray[np.float32] | None" = None


@dataclass(frozen=True)
class Workplace:
    """Where work is done: the run's output folder and directory, the device, and the folder of caches.

    With `delivers` a file that cannot be written is handed back instead, and without `writes` each one is.
    """

    output: Path
    directory: Path
    device: str
    cache: Path
    text_cache: bool = True
    writes: bool = True
    delivers: bool = False


@dataclass
class _Loaded:
    """A generator, and how many images fit on the device at once, once that was found out."""

    generator: Generator
    largest: int | None = None


@dataclass(frozen=True)
class _Part:
    """The images of (part of) a batch that are to be written, and how they were made."""

    images: Sequence[tuple[Sample, MadeImage]]
    seconds: float
    batch_size: int


@dataclass(frozen=True)
class ComputedBatch:
    """A batch in memory, on its way to disk."""

    parts: Sequence[_Part]
    generates: bool
    told: WrittenBatch


def image_batches(
    plan: CellPlan, batch_size: int, *, asks: frozenset[str] = frozenset(), models: int = 1
) -> Iterator[ImageBatch]:
    """The batches of a plan that miss something, in the order of work; the first of them carries `asks`."""
    missing = iter(plan.missing)  # in the same order
    following = next(missing, None)
    search = plan.cell.variant.variant.best_of_n
    keep, label = search.keep if search is not None else 1, plan.cell.label
    for start in range(0, len(plan.wanted), batch_size):
        samples = plan.wanted[start : start + batch_size]
        lacks = []
        for sample in samples:
            lacks.append(following is not None and sample.place == following.place)
            following = next(missing, None) if lacks[-1] else following
        if any(lacks):
            searches = {(sample.prompt.id, sample.index // keep) for sample in samples} if keep > 1 else ()
            yield ImageBatch(label, samples, tuple(lacks), asks, models, frozenset(searches))
            asks = frozenset()


class Workshop:
    """Makes images and scores, and keeps the models that it loaded for the work that follows."""

    def __init__(
        self, place: Workplace, cells: Iterable[Cell], metrics: Mapping[str, Metric | FeatureMetric]
    ) -> None:
        """`metrics` are by their key; their networks are loaded when they are first used."""
        self._place = place
        self._cells = {cell.label: cell for cell in cells}
        self._metrics = metrics
        self._loaded: dict[str, _Loaded] = {}
        # Metrics that are given the same images one after the other read each file once.
        self._images = SharedImages(_SHARED_BYTES)

    def release(self) -> None:
        """Drop the generators, so that their memory is free for metrics."""
        self._loaded.clear()

    def compute(self, batch: ImageBatch) -> ComputedBatch:
        """Do a batch's part of the work that belongs on the device.

        A batch that is too large for it is halved, and so are later ones of this generator. A sample that cannot be made becomes
        a failed row, after its batch was tried again one by one; any other exception passes.
        """
        cell, loaded = self._cells[batch.cell], self._open(batch.cell, batch.models)
        told = self._facts(cell, loaded.generator, batch.asks)
        self._prepare(cell, loaded.generator, batch.samples)
        parts, halved = list[_Part](), list[tuple[int, str]]()
        position = 0
        while position < len(batch.samples):
            samples = batch.samples[position : position + (loaded.largest or len(batch.samples))]
            lacking = batch.lacks[position : position + len(samples)]
            if any(lacking):
                try:
                    made = make_batch(cell, samples, loaded.generator)
                    images, seconds = made.images, made.seconds
                except OutOfMemoryError as error:
                    if len(samples) > 1:
                        loaded.largest = len(samples) // 2
                        halved.append((loaded.largest, str(error)))
                        continue
                    reason = f"out of memory even with one image: {error}"
                    images, seconds = [MadeImage(None, reason)], 0.0
                pairs = zip(samples, images, strict=True)
                kept = [pair for pair, lacks in zip(pairs, lacking, strict=True) if lacks]
                parts.append(_Part(kept, seconds, len(samples)))
            position += len(samples)
        generates = cell.variant.variant.generates
        return ComputedBatch(parts, generates, replace(told, halved=tuple(halved)))

    def start_writing(self, computed: ComputedBatch, pool: Executor) -> "Writing":
        """Encode and write the images of a computed batch in the threads of `pool`."""
        jobs = [
            pool.submit(self._write, sample, image, part, computed.generates)
            for part in computed.parts
            for sample, image in part.images
        ]
        return Writing(computed.told, jobs)

    def score(self, chunk: ScoreChunk) -> Scored:
        """Give a chunk to its metric: rows in the order of its samples, or feature vectors, shape (samples, d)."""
        import numpy as np

        metric, samples = self._metrics[chunk.metric], list(chunk.samples)
        if isinstance(metric, FeatureMetric) and chunk.work != "features" and chunk.features is not None:
            return metric.score_features(samples, chunk.features)
        with self._images.over([sample.image_path for sample in samples]):
            if not isinstance(metric, FeatureMetric):
                return metric.score(samples)
            return np.asarray(metric.features(samples), dtype=np.float32)

    def _open(self, label: str, models: int) -> _Loaded:
        if label not in self._loaded:
            # The one used longest ago goes first, and before the next one needs its memory.
            while len(self._loaded) >= models:
                del self._loaded[next(iter(self._loaded))]
            spec = replace(self._cells[label].spec, search_cache=self._place.cache / "search")
            if self._place.text_cache:
                spec = replace(spec, text_cache=self._place.cache / "text")
            self._loaded[label] = _Loaded(generators.build(spec, self._place.device))
        self._loaded[label] = self._loaded.pop(label)
        return self._loaded[label]

    def _facts(self, cell: Cell, generator: Generator, asks: frozenset[str]) -> WrittenBatch:
        cuts: Iterable[CutTexts] = ()
        if "cuts" in asks and isinstance(generator, CutsPrompts):
            cuts = generator.cut_texts(sorted({cell.given_text(prompt) for prompt in cell.benchmark.prompts}))
        flops = count_flops(cell, generator) if "flops" in asks else None
        return WrittenBatch((), cuts=tuple(cuts), flops=flops)

    def _prepare(self, cell: Cell, generator: Generator, samples: Sequence[Sample]) -> None:
        """Encode texts before the clock runs, so that the seconds of an image do not depend on which variant came first."""
        if isinstance(generator, PreparesPrompts):
            for text in dict.fromkeys(cell.given_text(sample.prompt) for sample in samples):
                generator.prepare(text)

    def _write(
        self, sample: Sample, image: MadeImage, part: _Part, generates: bool
    ) -> tuple[ImageRow, bytes | None]:
        """The row of an image, and its content where that is not on disk."""
        failed = ImageRow(
            prompt_id=sample.prompt.id,
            index=sample.index,
            prompt_sha256=sample.prompt.sha256,
            status="failed",
            path=None,
            sha256=None,
            length=None,
            seconds=None,
            # Reading a file is no generation: its time would be taken for a model's.
            batch_size=part.batch_size if generates else None,
            device=self._place.device if generates else None,
            error=image.error or "no image",
        )
        if image.pixels is None:
            return failed, None
        content = png_bytes(image.pixels, image.source_format)
        path = self._place.directory / sample.image_path
        row = replace(
            failed,
            status="ok",
            path=path.relative_to(self._place.output).as_posix(),
            sha256=sha256_bytes(content),
            length=len(content),
            seconds=part.seconds if generates else None,
            error=None,
            search=image.search,
        )
        return row, None if self._is_written(path, content) else content

    def _is_written(self, path: Path, content: bytes) -> bool:
        if not self._place.writes:
            return False
        try:
            atomic.write_bytes(path, content)
        except OSError:
            if not self._place.delivers:
                raise
            return False
        return True


@dataclass(frozen=True)
class Writing:
    """A batch whose images are being written."""

    told: WrittenBatch
    jobs: Sequence[Future[tuple[ImageRow, bytes | None]]]

    @property
    def is_done(self) -> bool:
        """Whether `finish` would not wait."""
        return all(job.done() for job in self.jobs)

    def finish(self) -> WrittenBatch:
        """Wait for the images, and return the batch; raises what kept one from being written."""
        written = [job.result() for job in self.jobs]
        contents = {str(row.path): content for row, content in written if content is not None}
        return replace(self.told, rows=tuple(row for row, _ in written), contents=contents)
