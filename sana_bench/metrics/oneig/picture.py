"""What OneIG-Bench's scorers see of an image, and what must be known beside each of its numbers."""

from typing import TYPE_CHECKING

from sana_bench.core.images import load_image
from sana_bench.core.preprocess import as_jpeg
from sana_bench.core.samples import Sample

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["CODEC", "NOTE", "codec_of", "picture"]

#: The published scripts cut a grid into files of this kind, whatever the grid was stored as.
CODEC = "jpeg-75"
#: The benchmark's fifth dimension, and the mean of the five.
NOTE = "OneIG-Bench's reasoning is not measured, nor its overall"


def codec_of(protocol: str) -> str:
    """What images go through by a protocol: `CODEC`, or nothing (`png`) on the micro tier, whose judge knows no JPEG."""
    return "png" if protocol.endswith("/micro@1") else CODEC


def picture(sample: Sample, codec: str = CODEC) -> "NDArray[np.uint8]":
    """An RGB image (height, width, 3) after `codec`; raises `ImageError` for a missing or damaged file."""
    image = load_image(sample.image_path)
    return as_jpeg(image) if codec == CODEC else image
