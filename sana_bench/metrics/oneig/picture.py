"""What OneIG-Bench's scorers see of an image, and what must be known beside each of its numbers."""

import numpy as np
from numpy.typing import NDArray

from sana_bench.core.images import load_image
from sana_bench.core.preprocess import as_jpeg
from sana_bench.core.samples import Sample

__all__ = ["CODEC", "NOTE", "picture"]

#: The published scripts cut a grid into files of this kind, whatever the grid was stored as.
CODEC = "jpeg-75"
#: The benchmark's fifth dimension, and the mean of the five.
NOTE = "OneIG-Bench's reasoning is not measured, nor its overall"


def picture(sample: Sample) -> NDArray[np.uint8]:
    """An RGB image (height, width, 3) after JPEG of quality 75; raises `ImageError` for a missing or damaged file."""
    return as_jpeg(load_image(sample.image_path))
