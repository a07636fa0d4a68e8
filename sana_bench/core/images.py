"""The one way images are read for scoring."""

import io
import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from sana_bench.core.errors import BenchError, SampleError
from sana_models.files import open_plain, read_bytes
from sana_models.image_files import ModeError, as_rgb

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["IMAGE_SUFFIXES", "png_bytes"]

#: How names of image files end, in lower case.
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

#: Text chunk of a stored PNG that names the format its pixels were decoded from.
SOURCE_FORMAT = "source-format"


class ImageError(BenchError):
    """An image file that is missing, truncated or damaged. Carries `path` and `reason`."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type["ImageError"], tuple[Path, str]]:
        return ImageError, (self.path, self.reason)


def load_image(path: Path) -> "NDArray[np.uint8]":
    """Read an image as 8-bit RGB, shape (height, width, 3).

    Checksums are verified and every row is decoded; modes, orientation, transparency and animations by `sana_models.image_files`.

    Raises:
        ImageError: the file is missing, truncated, damaged, not an image, or of a mode that is not read.
    """
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    try:
        content = read_bytes(path)
    except FileNotFoundError:
        raise ImageError(path, "no such image") from None
    except OSError as error:
        raise ImageError(path, error.strerror or "cannot be read") from None
    try:
        # Pillow's decoder skips checksums and everything after the last row; verify() reads them.
        Image.open(BytesIO(content)).verify()
        with Image.open(BytesIO(content)) as image:
            return np.asarray(as_rgb(image))
    except UnidentifiedImageError:
        raise ImageError(path, "not an image or damaged at its start") from None
    except ModeError as error:
        raise ImageError(path, str(error)) from None
    except _damage() as error:
        raise ImageError(path, f"damaged image ({error})") from None


def _damage() -> tuple[type[Exception], ...]:
    """What Pillow raises on damaged files, besides OSError: chunk errors, bad headers and absurd sizes."""
    from PIL.Image import DecompressionBombError

    return (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, DecompressionBombError)


def source_format(path: Path) -> str | None:
    """`jpeg` where the pixels of a file come from a JPEG: it is one, or a stored PNG that says so by `SOURCE_FORMAT`.

    None for everything else, and for a file that cannot be read.
    """
    from PIL import Image

    try:
        with open_plain(path) as file:
            start = file.read(8)
            if start.startswith(b"\xff\xd8\xff"):
                return "jpeg"
            if start != b"\x89PNG\r\n\x1a\n":
                return None
            file.seek(0)
            with Image.open(file) as image:
                return "jpeg" if image.info.get(SOURCE_FORMAT) == "jpeg" else None
    except _damage():
        return None


def png_bytes(image: "np.ndarray", source_format: str | None = None) -> bytes:
    """Encode a uint8 (height, width, 3) image; equal pixels give equal bytes.

    `source_format` is kept as a text chunk, see `sana_bench.core.images.source_format`. Raises `SampleError` for any other
    array.
    """
    import numpy as np
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise SampleError(f"the generator gave {image.dtype} {image.shape} instead of a uint8 image")
    buffer = io.BytesIO()
    info = PngInfo()
    if source_format is not None:
        info.add_text(SOURCE_FORMAT, source_format)
    Image.fromarray(image).save(buffer, "PNG", compress_level=3, pnginfo=info)
    return buffer.getvalue()
