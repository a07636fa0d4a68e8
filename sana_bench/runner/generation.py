"""Generation in this process: batches on the device, PNG encoding and durable writes behind it in threads."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from collections.abc import Generator as Steps
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sana_bench.core import atomic
from sana_bench.core.errors import SampleError
from sana_bench.core.fingerprint import sha256_bytes
from sana_bench.core.images import png_bytes
from sana_bench.core.samples import Sample
from sana_bench.core.stopping import workers
from sana_bench.generators.base import (
    Generator,
    OutOfMemoryError,
    TellsCost,
    TellsFormat,
    request_for,
)
from sana_bench.results.schema import ImageRow
from sana_bench.suites.cells import Cell
from sana_bench.suites.plan import CellPlan

__all__ = ["Finished", "Halved", "generate_missing", "make_batch"]

_WRITERS = 4


_BATCHES_IN_FLIGHT = 2


@dataclass(frozen=True)
class Finished:
    """A batch whose images are on disk and can be recorded."""

    rows: tuple[ImageRow, ...]


@dataclass(frozen=True)
class Halved:
    """The device ran out of memory, and smaller batches are used from here on."""

    batch_size: int
    reason: str


@dataclass(frozen=True)
class _Image:
    """The pixels of one sample on their way to disk; none where the sample failed.

    With them what the search behind it cost, and the format that it was decoded from.
    """

    pixels: np.ndarray | None
    error: str | None = None
    search: dict[str, float] | None = None
    source_format: str | None = None


@dataclass(frozen=True)
class _Made:
    """Images of one batch, and the seconds for each."""

    images: list[_Image]
    seconds: float


@dataclass(frozen=True)
class _Timing:
    """Seconds an image of its batch took, the batch's size, and where; all None for images that were there before."""

    seconds: float | None
    batch_size: int | None
    device: str | None


_UNTIMED = _Timing(None, None, None)


def generate_missing(
    plan: CellPlan, generator: Generator, *, output: Path, run_directory: Path, batch_size: int, device: str
) -> Steps[Finished | Halved, None, None]:
    """Generate what a plan misses batch by batch; yield each batch once its files are durable.

    Batches are fixed stretches of the order of work, whatever of them is missing, because the last bits of a
    network's output depend on the batch it ran in: an image made again comes out as it was. Batches
    that miss nothing are skipped, and images that are there are not written again.

    While one batch is being computed, the ones before it are encoded and written. A sample that the generator
    cannot make is yielded as failed, after its batch was tried again one by one. Any other exception ends the
    generation; what was yielded stays valid.
    """
    missing = {sample.place for sample in plan.missing}
    waiting: deque[list[Future[ImageRow]]] = deque()
    position = 0
    with workers(_WRITERS) as pool:
        while position < len(plan.wanted):
            batch = plan.wanted[position : position + batch_size]
            if not any(sample.place in missing for sample in batch):
                position += len(batch)
                continue
            try:
                made = make_batch(plan.cell, batch, generator)
            except OutOfMemoryError as error:
                if batch_size > 1:
                    batch_size = max(1, min(batch_size, len(batch)) // 2)
                    yield Halved(batch_size, str(error))
                    continue
                made = _Made([_Image(None, f"out of memory even with one image: {error}")], 0.0)
            position += len(batch)
            # Reading a file is no generation: its time would be taken for a model's.
            generates = plan.cell.variant.variant.generates
            timing = _Timing(made.seconds, len(batch), device) if generates else _UNTIMED
            write = _writer(output, run_directory, timing)
            jobs = zip(batch, made.images, strict=True)
            waiting.append([pool.submit(write, *job) for job in jobs if job[0].place in missing])
            while len(waiting) > _BATCHES_IN_FLIGHT or (waiting and all(job.done() for job in waiting[0])):
                yield _finish(waiting.popleft())
        while waiting:
            yield _finish(waiting.popleft())


def make_batch(cell: Cell, batch: Sequence[Sample], generator: Generator) -> _Made:
    """Make the images of a batch, in its order, one by one where the whole cannot be made; raises `OutOfMemoryError`."""
    requests = [request_for(cell, sample) for sample in batch]
    started = time.perf_counter()
    try:
        images = _checked(generator.generate(requests), cell, len(requests))
    except SampleError as error:
        if len(batch) == 1:
            return _Made([_Image(None, str(error))], time.perf_counter() - started)
    else:
        seconds = (time.perf_counter() - started) / len(batch)
        costs = [generator.cost(r) if isinstance(generator, TellsCost) else None for r in requests]
        formats = [
            generator.source_format(r) if isinstance(generator, TellsFormat) else None for r in requests
        ]
        made = zip(images, costs, formats, strict=True)
        return _Made([_Image(pixels, None, cost, name) for pixels, cost, name in made], seconds)
    singles = [make_batch(cell, [sample], generator) for sample in batch]
    seconds = sum(single.seconds for single in singles) / len(singles)
    return _Made([single.images[0] for single in singles], seconds)


def _checked(
    images: np.ndarray | Sequence[np.ndarray], cell: Cell, count: int
) -> np.ndarray | Sequence[np.ndarray]:
    model = cell.variant.variant.model
    if model.height is None:  # images that exist have sizes of their own
        return images
    expected = (count, *model.size, 3)
    shapes = {np.shape(image) for image in images}
    if len(shapes) > 1:
        raise SampleError(f"the generator gave images of {len(shapes)} shapes instead of {expected[1:]}")
    given = np.asarray(images)
    if given.shape != expected or given.dtype != np.uint8:
        raise SampleError(f"the generator gave {given.dtype} {given.shape} instead of uint8 {expected}")
    return given


def _writer(output: Path, run_directory: Path, timing: _Timing) -> Callable[[Sample, _Image], ImageRow]:
    def write(sample: Sample, image: _Image) -> ImageRow:
        failed = ImageRow(
            prompt_id=sample.prompt.id,
            index=sample.index,
            prompt_sha256=sample.prompt.sha256,
            status="failed",
            path=None,
            sha256=None,
            length=None,
            seconds=None,
            batch_size=timing.batch_size,
            device=timing.device,
            error=image.error or "no image",
        )
        if image.pixels is None:
            return failed
        content = png_bytes(image.pixels, image.source_format)
        path = run_directory / sample.image_path
        atomic.write_bytes(path, content)
        return replace(
            failed,
            status="ok",
            path=path.relative_to(output).as_posix(),
            sha256=sha256_bytes(content),
            length=len(content),
            seconds=timing.seconds,
            error=None,
            search=image.search,
        )

    return write


def _finish(jobs: list[Future[ImageRow]]) -> Finished:
    return Finished(tuple(job.result() for job in jobs))
