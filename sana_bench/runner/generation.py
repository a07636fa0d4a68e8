"""A batch of images on the device: made whole, or one by one where the whole cannot be made."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sana_bench.core.errors import SampleError
from sana_bench.core.samples import Sample
from sana_bench.generators.base import (
    Generator,
    TellsCost,
    TellsFormat,
    request_for,
)
from sana_bench.suites.cells import Cell

if TYPE_CHECKING:
    import numpy as np

__all__ = ["MadeImage", "MadeImages", "make_batch"]


@dataclass(frozen=True)
class MadeImage:
    """The pixels of one sample on their way to disk; none where the sample failed.

    With them what the search behind it cost, and the format that it was decoded from.
    """

    pixels: "np.ndarray | None"
    error: str | None = None
    search: dict[str, float] | None = None
    source_format: str | None = None


@dataclass(frozen=True)
class MadeImages:
    """Images of one batch, and the seconds for each."""

    images: list[MadeImage]
    seconds: float


def make_batch(cell: Cell, batch: Sequence[Sample], generator: Generator) -> MadeImages:
    """Make the images of a batch, in its order, one by one where the whole cannot be made; raises `OutOfMemoryError`."""
    requests = [request_for(cell, sample) for sample in batch]
    started = time.perf_counter()
    try:
        images = _checked(generator.generate(requests), cell, len(requests))
    except SampleError as error:
        if len(batch) == 1:
            return MadeImages([MadeImage(None, str(error))], time.perf_counter() - started)
    else:
        seconds = (time.perf_counter() - started) / len(batch)
        costs = [generator.cost(r) if isinstance(generator, TellsCost) else None for r in requests]
        formats = [
            generator.source_format(r) if isinstance(generator, TellsFormat) else None for r in requests
        ]
        made = zip(images, costs, formats, strict=True)
        return MadeImages([MadeImage(pixels, None, cost, name) for pixels, cost, name in made], seconds)
    singles = [make_batch(cell, [sample], generator) for sample in batch]
    seconds = sum(single.seconds for single in singles) / len(singles)
    return MadeImages([single.images[0] for single in singles], seconds)


def _checked(
    images: "np.ndarray | Sequence[np.ndarray]", cell: Cell, count: int
) -> "np.ndarray | Sequence[np.ndarray]":
    import numpy as np

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
