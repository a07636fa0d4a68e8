"""The one way images are read for scoring."""

import io
import struct
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from sana_bench.core.errors import BenchError, SampleError, UsageError
from sana_bench.core.fingerprint import FileKey
from sana_bench.core.stopping import workers
from sana_models.files import open_plain, read_bytes
from sana_models.image_files import ModeError, as_rgb

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["IMAGE_SUFFIXES", "SharedImages", "png_bytes"]

#: How names of image files end, in lower case.
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

_PNG = b"\x89PNG\r\n\x1a\n"
# Threads that decode ahead of the networks; decoding releases the interpreter lock.
_DECODERS = 2

#: Text chunk of a stored PNG that names the format its pixels were decoded from.
SOURCE_FORMAT = "source-format"


class ImageError(BenchError):
    """An image file that is missing, truncated or damaged. Carries `path` and `reason`."""

    # A run that finds one of its own gone makes it again when the same command is given.
    exit_code = UsageError.exit_code

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type["ImageError"], tuple[Path, str]]:
        return ImageError, (self.path, self.reason)


def load_image(path: Path) -> "NDArray[np.uint8]":
    """Read an image as 8-bit RGB, shape (height, width, 3).

    Checksums are verified and every row is decoded; modes, orientation, transparency and animations by `sana_models.image_files`.
    Inside `SharedImages.over`, what another reader has decoded already is given again, and nobody may write to it.

    Raises:
        ImageError: the file is missing, truncated, damaged, not an image, or of a mode that is not read.
    """
    return _read(path).pixels if _shared is None else _shared.read(path).pixels


@dataclass(frozen=True)
class _Decoded:
    """An image, and the format that its pixels were decoded from, where `source_format` knows it."""

    pixels: "NDArray[np.uint8]"
    format: str | None


def _read(path: Path) -> _Decoded:
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
            return _Decoded(np.asarray(as_rgb(image)), _format_of(content[:8], image.info))
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

    if _shared is not None and (known := _shared.known(path)) is not None:
        return known.format
    try:
        with open_plain(path) as file:
            start = file.read(8)
            if not start.startswith(_PNG):
                return _format_of(start, {})
            file.seek(0)
            with Image.open(file) as image:
                return _format_of(start, image.info)
    except _damage():
        return None


def _format_of(start: bytes, info: Mapping[Any, Any]) -> str | None:
    """`jpeg` by the first bytes of a file, or by what a stored PNG says of itself."""
    if start.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    return "jpeg" if start.startswith(_PNG) and info.get(SOURCE_FORMAT) == "jpeg" else None


class SharedImages:
    """Decoded images that several readers share: what is held is read and decoded once.

    At most `limit_bytes` of pixels are held, beside those that readers still use; what was asked for longest ago goes first.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._held = 0
        self._images: OrderedDict[FileKey, Future[_Decoded]] = OrderedDict()
        self._lock = Lock()

    @contextmanager
    def over(self, paths: Sequence[Path]) -> Iterator[None]:
        """Let `load_image` share within this block; `paths` are decoded by threads, in their order, while it runs.

        Threads decode ahead only up to the limit: beyond it, images are decoded when they are asked for. One block at a time.
        """
        global _shared
        new = [path for path in dict.fromkeys(paths) if self.known(path) is None]
        _shared = self
        try:
            with workers(_DECODERS) if new else nullcontext() as pool:
                if pool is not None:
                    for path in new:
                        pool.submit(self._ahead, path)
                yield
        finally:
            _shared = None

    def read(self, path: Path) -> _Decoded:
        """The image, decoded here, or by whoever came first; raises `ImageError` as `load_image` does."""
        key = _key(path)
        if key is None:
            return _read(path)
        with self._lock:
            found = self._images.get(key)
            if found is not None:
                self._images.move_to_end(key)
            else:
                mine = self._images[key] = Future[_Decoded]()
        if found is not None:
            return found.result()
        try:
            decoded = _read(path)
        except BaseException as error:
            # Who waits for it hears the same; who comes later reads the file again.
            with self._lock:
                del self._images[key]
            mine.set_exception(error)
            raise
        mine.set_result(decoded)
        self._make_room(decoded.pixels.nbytes)
        return decoded

    def known(self, path: Path) -> _Decoded | None:
        """The image if it is held."""
        key = _key(path)
        with self._lock:
            found = self._images.get(key) if key is not None else None
        return found.result() if found is not None and found.done() else None

    def _ahead(self, path: Path) -> None:
        if self._held < self._limit:
            with suppress(ImageError):  # told to the reader that asks for it
                self.read(path)

    def _make_room(self, added: int) -> None:
        gone = []
        with self._lock:
            self._held += added
            # Of many small images only those are looked at that go, and never the one asked for last.
            for key, image in islice(self._images.items(), max(0, len(self._images) - 1)):
                if self._held <= self._limit:
                    break
                if image.done():
                    self._held -= image.result().pixels.nbytes
                    gone.append(key)
            for key in gone:
                del self._images[key]


def _key(path: Path) -> FileKey | None:
    try:
        return FileKey.of(path)
    except OSError:  # reading it says what is the matter
        return None


# What `load_image` reads through, while there is a block of `SharedImages.over`.
_shared: SharedImages | None = None


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
