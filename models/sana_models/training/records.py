"""Training records: an image or latent with its captions, where its bytes are, and the list of those that are bad."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from sana_models.files import first_line, open_plain, plain, read_text
from sana_models.training.captions import Captions

__all__ = ["BadRecords", "Record", "is_inside", "make_record"]

#: What reading a record's captions or place raises when they are not as they should be.
_UNFIT = (OSError, ValueError, TypeError, AttributeError, KeyError)


@dataclass(frozen=True, slots=True)
class Record:
    """One image or latent: where its bytes are, and its captions with CLIP scores and weights by caption type.

    `key` is its identity, in messages and in all that is remembered of it: data set, path inside it, and name. The bytes are a
    whole file, the `span` (offset, length) of one, or the `cell` (column, row group, row in it) of a Parquet file. `size` is
    (height, width) in pixels where it is told.
    """

    key: str
    path: Path
    suffix: str
    captions: Mapping[str, str]
    scores: Mapping[str, float] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    span: tuple[int, int] | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    cell: tuple[str, int, int] | None = None

    def read(self) -> bytes:
        """Return the bytes of the image or latent; raises OSError, and ValueError for a table's empty cell."""
        with self.stream() as stream:
            content = stream.read()
        if self.span is not None and len(content) != self.span[1]:
            raise OSError("the shard ends inside this record")
        return content

    @contextmanager
    def stream(self) -> Iterator[BinaryIO]:
        """Yield the bytes as a file, of which no more is read than is asked for; raises as `read`."""
        if self.cell is not None:
            yield io.BytesIO(_read_cell(self.path, *self.cell))
            return
        with open_plain(self.path) as stream:
            if self.span is None:
                yield stream
                return
            with closing(io.BufferedReader(_Window(stream, *self.span))) as window:
                yield window


class _Window(io.RawIOBase):
    """A stretch of a file as a file."""

    def __init__(self, stream: BinaryIO, offset: int, length: int) -> None:
        self._stream, self._offset, self._length, self._position = stream, offset, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), max(0, self._length - self._position))
        self._stream.seek(self._offset + self._position)
        content = self._stream.read(wanted)
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)


def _read_cell(path: Path, column: str, group: int, row: int) -> bytes:
    value = _read_column(path, path.stat().st_mtime_ns, column, group)[row].as_py()
    if not isinstance(value, bytes):
        raise ValueError("its row has no image bytes")
    return value


@lru_cache(maxsize=2)
def _read_column(path: Path, changed: int, column: str, group: int) -> Any:
    """A row group of a column, the last two of which are kept: neighbours are read together."""
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(plain(path)) as file:
            return file.read_row_group(group, columns=[column]).flatten().column(0)
    except (ArrowException, IndexError) as error:
        raise OSError(f"damaged Parquet file: {error}") from error


def make_record(
    label: str,
    path: Path,
    suffix: str,
    captions: Captions,
    *,
    size: tuple[int, int] | None = None,
    span: tuple[int, int] | None = None,
    cell: tuple[str, int, int] | None = None,
) -> Record:
    """Return a record with the captions that say something; raises ValueError when there is none, or it is no text."""
    if not all(isinstance(text, str) for text in captions.texts.values()):
        raise ValueError("has no caption")
    texts = {kind: text.strip() for kind, text in captions.texts.items() if text.strip()}
    if not texts:
        raise ValueError("has no caption")
    "".join(texts.values()).encode()  # half of a character is no text, which tokenizers crash on
    weights = {kind: weight for kind, weight in captions.weights.items() if kind in texts}
    if weights and not any(weights.values()):
        raise ValueError("the weights of its captions are all 0")
    return Record(label, path, suffix.lower(), texts, captions.scores, size, span, weights, cell)


def is_inside(name: str) -> bool:
    """Whether a name stays in its folder, judged as it is written: in the hub's cache files are links to places outside."""
    return not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts


class BadRecords:
    """Counts records that cannot be used, each once; stops the run when they are too large a share.

    With `path`, a CSV file, they are remembered by later runs.
    """

    def __init__(self, *, max_share: float, path: Path | None = None) -> None:
        if not 0 <= max_share <= 1:
            raise ValueError(f"max_bad_share is {max_share}; expected a share from 0 to 1")
        self.max_share = max_share
        self.total = 0
        self.path = path
        self.reasons: dict[str, str] = {}
        if path is not None and path.is_file():
            rows = csv.reader(io.StringIO(read_text(path), newline=""))
            self.reasons = dict(row for row in rows if len(row) == 2)

    def add(self, key: str, reason: object) -> None:
        """Count a record; raises ValueError, one line, when more than the allowed share of all is bad."""
        if key not in self.reasons:
            self.reasons[key] = first_line(reason) if isinstance(reason, BaseException) else str(reason)
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("a", newline="", encoding="utf-8") as stream:
                    csv.writer(stream).writerow([key, self.reasons[key]])
        # While the index is being read the total is not known yet.
        if self.total:
            self.check()

    def first(self) -> str:
        """How many there are, and what is wrong with the first of them; nothing where there are none."""
        if not self.reasons:
            return ""
        key, reason = next(iter(self.reasons.items()))
        return f"; {len(self.reasons)} are bad, the first: {key}: {reason}"

    def attempt(self, key: str, make: Callable[[], Record]) -> Iterator[Record]:
        """Yield what `make` returns; what it raises for unfit content counts as a bad record of that key."""
        try:
            record = make()
        except _UNFIT as error:
            self.add(key, error)
            return
        yield record

    def check(self) -> None:
        """Raise ValueError when more than the allowed share of all records is bad."""
        if len(self.reasons) > self.max_share * self.total:
            key, reason = next(iter(self.reasons.items()))
            raise ValueError(
                f"{len(self.reasons)} of {self.total} training records are bad, more than the allowed share "
                f"{self.max_share:g}; the first: {key}: {reason}"
            )
