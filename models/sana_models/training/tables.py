"""Tables of images with captions: lists of files as `imagefolder` has them, and Parquet files that hold the images themselves."""

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sana_models.files import parse_json, plain, read_text
from sana_models.training.captions import CaptionReader
from sana_models.training.records import BadRecords, Record, is_inside, make_record
from sana_models.training.tar_shards import told_size

__all__ = ["FILE_LISTS", "ImageTable", "image_table", "read_file_list"]

#: Endings of tables that may name image files.
FILE_LISTS = (".jsonl", ".csv", ".parquet")
_FILE_KEYS = ("file_name", "image", "path")
_IMAGE_COLUMNS = ("image", "jpg", "jpeg", "png", "webp", "img", "bytes")


def read_file_list(path: Path, captions: CaptionReader, bad: BadRecords) -> Iterator[Record]:
    """Yield the records of a table with a row an image: `file_name` (or `image`, `path`) below its folder, captions, sizes.

    Raises ValueError for a table that is no such one.
    """
    for number, row in enumerate(_rows(path), start=1):

        def record(row: Any = row, number: int = number) -> Record:
            facts = _object(row)
            name = next((facts[key] for key in _FILE_KEYS if isinstance(facts.get(key), str)), None)
            if name is None:
                raise ValueError(f"row {number} has no file_name")
            if not is_inside(name):
                raise ValueError("its name leaves the folder")
            image = path.parent / name
            if not image.is_file():
                raise ValueError("no such image")
            return make_record(
                f"{path.parent}/{name}",
                image,
                image.suffix,
                captions.of_facts(facts),
                size=told_size(facts),
            )

        yield from bad.attempt(_label(path, row, number), record)


@dataclass(frozen=True, slots=True)
class ImageTable:
    """A Parquet file with a column of encoded images: its name, and which other columns are read for the index."""

    path: Path
    column: str
    columns: list[str]

    def read(self, captions: CaptionReader, bad: BadRecords) -> Iterator[Record]:
        """Yield a record a row; unusable ones go to `bad`."""
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile

        first = 0
        try:
            with ParquetFile(plain(self.path)) as file:
                for group in range(file.num_row_groups):
                    rows = file.read_row_group(group, columns=self.columns).to_pylist()
                    # A table without other columns has as many rows, and no captions.
                    rows = rows or [{}] * file.metadata.row_group(group).num_rows
                    for row, facts in enumerate(rows):
                        yield from self._record(first + row, group, row, facts, captions, bad)
                    first += len(rows)
        except (ArrowException, OSError) as error:
            bad.add(f"{self.path}#{first}", error)

    def _record(
        self,
        number: int,
        group: int,
        row: int,
        facts: Mapping[str, Any],
        captions: CaptionReader,
        bad: BadRecords,
    ) -> Iterator[Record]:
        label = f"{self.path}#{number}"
        yield from bad.attempt(
            label,
            lambda: make_record(
                label,
                self.path,
                "",
                captions.of_facts(facts),
                size=told_size(facts),
                cell=(self.column, group, row),
            ),
        )


def image_table(path: Path, image_key: str | None) -> ImageTable | None:
    """Return a Parquet file as a table of images, None where it has no column of them (`image_key`, or one of usual name).

    Raises ValueError for a damaged file, and for an `image_key` that it lacks.
    """
    import pyarrow as arrow
    from pyarrow.parquet import read_schema

    try:
        schema = read_schema(plain(path))
    except (arrow.ArrowException, OSError) as error:
        raise ValueError(f"{path}: damaged Parquet file ({(str(error).splitlines() or [''])[0]})") from error
    if image_key is not None and image_key not in schema.names:
        raise ValueError(
            f"{path}: has no column {image_key!r} (data.image_key); found: {', '.join(schema.names)}"
        )
    column = None
    for name in _IMAGE_COLUMNS if image_key is None else (image_key,):
        kind = schema.field(name).type if name in schema.names else None
        # `datasets` keeps an image as bytes and the path it came from.
        if kind is not None and arrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            column = f"{name}.bytes"
        elif kind is not None and (arrow.types.is_binary(kind) or arrow.types.is_large_binary(kind)):
            column = name
        if column is not None:
            break
    if column is None:
        return None
    others = [entry.name for entry in schema if not _is_bulky(entry.type)]
    return ImageTable(path, column, others)


def _is_bulky(kind: Any) -> bool:
    import pyarrow as arrow

    if arrow.types.is_struct(kind):
        return any(_is_bulky(kind.field(index).type) for index in range(kind.num_fields))
    return bool(arrow.types.is_binary(kind) or arrow.types.is_large_binary(kind))


def _rows(path: Path) -> Iterator[Any]:
    """Rows as mappings, of JSON lines as text: each is judged alone."""
    ending = path.suffix.lower()
    if ending == ".parquet":
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile

        try:
            with ParquetFile(plain(path)) as file:
                for batch in file.iter_batches():
                    yield from batch.to_pylist()
        except ArrowException as error:
            raise ValueError(f"{path}: damaged Parquet file ({error})") from error
    elif ending == ".csv":
        try:
            yield from csv.DictReader(io.StringIO(read_text(path), newline=""))
        except csv.Error as error:
            raise ValueError(f"{path}: damaged CSV file ({error})") from error
    else:
        yield from (line for line in read_text(path).splitlines() if line.strip())


def _object(row: Any) -> Mapping[str, Any]:
    facts = parse_json(row) if isinstance(row, str) else row
    if not isinstance(facts, Mapping):
        raise ValueError("is not a JSON object")
    return facts


def _label(path: Path, row: Any, number: int) -> str:
    """The image's own name where the row tells one."""
    try:
        facts = _object(row)
    except ValueError:
        return f"{path}:{number}"
    name = next((facts[key] for key in _FILE_KEYS if isinstance(facts.get(key), str)), None)
    return f"{path}:{number}" if name is None else f"{path.parent}/{name}"
