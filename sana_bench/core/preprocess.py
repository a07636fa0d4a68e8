"""Image chains of the published scorers: which codec, which resize, which crop, before a network sees pixels."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sana_bench.core.images import load_image, source_format
from sana_bench.core.stopping import workers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Resampling

__all__ = [
    "CLIP_MEAN",
    "CLIP_STD",
    "as_jpeg",
    "batches",
    "clip_pixels",
    "crop_resized",
    "fitted_pixels",
    "load_preset",
    "prefetch",
]

# Channel statistics of OpenAI's CLIP, which BLIP and ImageReward use too.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

_JPEG_QUALITY = 75
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def as_jpeg(image: "NDArray[np.uint8]") -> "NDArray[np.uint8]":
    """The image after Pillow's default JPEG: quality 75, chroma halved both ways (4:2:0)."""
    import numpy as np
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=_JPEG_QUALITY, subsampling="4:2:0")
    with Image.open(buffer) as compressed:
        return np.asarray(compressed.convert("RGB"))


def load_preset(path: Path, codec: str) -> "NDArray[np.uint8]":
    """Read an image, (height, width, 3); `codec: jpeg` sends what is no JPEG yet through one of quality 75.

    A stored PNG whose pixels were decoded from a JPEG counts as one: no image is compressed twice.

    Raises:
        ImageError: the file is missing or damaged.
    """
    image = load_image(path)
    return as_jpeg(image) if codec == "jpeg" and source_format(path) != "jpeg" else image


def crop_resized(
    image: "NDArray[np.uint8]",
    size: int,
    resample: "Resampling",
    corner: Callable[[float], int] = round,
) -> "NDArray[np.uint8]":
    """Shorter side to `size` (Pillow, antialiased, quantised), then the centre square: torchvision's recipe.

    The longer side is rounded down and the crop's corner rounded half to even, as torchvision does, or by `corner`.
    """
    import numpy as np
    from PIL import Image

    height, width = image.shape[:2]
    short = min(width, height)
    new = int(size * width / short), int(size * height / short)
    resized = Image.fromarray(image)
    if resized.size != new:
        resized = resized.resize(new, resample)
    left, top = corner((new[0] - size) / 2.0), corner((new[1] - size) / 2.0)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


def clip_pixels(
    image: "NDArray[np.uint8]", size: int, corner: Callable[[float], int] = round
) -> "NDArray[np.float32]":
    """Input of a CLIP-like network, (3, size, size): bicubic resize, centre crop, CLIP's mean and deviation."""
    import numpy as np
    from PIL import Image

    square = crop_resized(image, size, Image.Resampling.BICUBIC, corner).astype(np.float32) / np.float32(255)
    return _normalised(square.transpose(2, 0, 1))


def fitted_pixels(image: "NDArray[np.uint8]", size: int, *, antialias: bool) -> "NDArray[np.float32]":
    """As `clip_pixels`, but the whole image: longer side to `size`, the rest black; resized in float, not quantised.

    `antialias` widens the bicubic filter where the image shrinks, as torchvision does with tensors from 0.17 on.
    """
    import numpy as np
    import torch
    from torch.nn import functional

    height, width = image.shape[:2]
    scale = size / float(max(height, width))
    # Halves are rounded to even, and the odd row or column of the margin lies below and to the right.
    new = round(height * scale), round(width * scale)
    planes = torch.from_numpy(image.transpose(2, 0, 1) / np.float32(255))[None]
    if new != (height, width):
        planes = functional.interpolate(planes, new, mode="bicubic", align_corners=False, antialias=antialias)
    fitted = np.zeros((3, size, size), np.float32)
    top, left = (size - new[0]) // 2, (size - new[1]) // 2
    fitted[:, top : top + new[0], left : left + new[1]] = planes[0].numpy()
    return _normalised(fitted)


def _normalised(planes: "NDArray[np.float32]") -> "NDArray[np.float32]":
    """Planes (3, height, width) of 0 to 1 by CLIP's mean and deviation."""
    import numpy as np

    mean, deviation = (np.array(values, np.float32)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
    return np.ascontiguousarray((planes - mean) / deviation)


def prefetch(
    work: Callable[[_Item], _Result],
    items: Sequence[_Item],
    n_threads: int,
    stop: Callable[[], None] = lambda: None,
) -> Iterator[_Result]:
    """Results of `work` in order, computed by `n_threads` threads that stay at most two batches ahead.

    Decoding and resizing release the interpreter lock. Memory holds `4 * n_threads` results at most. Where one fails, or no more
    are wanted, `stop` tells those that are being worked on to give up, before they are waited for.
    """
    with workers(n_threads) as pool:
        rest = iter(items)
        waiting: list[Future[_Result]] = [pool.submit(work, item) for item in islice(rest, 4 * n_threads)]
        try:
            while waiting:
                result = waiting.pop(0).result()
                waiting += [pool.submit(work, item) for item in islice(rest, 1)]
                yield result
        finally:
            if waiting:
                stop()


def batches(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Lists of up to `size` items."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
