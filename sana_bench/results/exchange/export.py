"""Tables to a folder of Parquet, CSV or JSON files, and back.

A folder is an export only with its `manifest.json`, which holds the SHA-256 of every file: a folder appears
whole under its name or not at all.
"""

import csv
import io
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import TYPE_CHECKING, Any, Literal

from sana_bench import __version__
from sana_bench.core import atomic
from sana_bench.core.errors import UsageError
from sana_bench.core.fingerprint import sha256_bytes
from sana_bench.core.storage import explained
from sana_bench.core.text import read_text
from sana_bench.results.exchange.tables import EXPORT_VERSION, TABLES, Column, Table, Tables
from sana_bench.results.schema import SCHEMA_VERSION
from sana_models.files import parse_json, read_bytes

if TYPE_CHECKING:
    import pandas

__all__ = ["FORMATS", "MANIFEST", "Format", "read_export", "read_frames", "table_file", "write_export"]

Format = Literal["parquet", "csv", "json"]
FORMATS: tuple[Format, ...] = ("parquet", "csv", "json")
MANIFEST = "manifest.json"
_KIND = "sana-bench export"
_PANDAS_TYPES = {
    "text": "string", "integer": "Int64", "real": "Float64", "boolean": "boolean", "json": "string"
}  # fmt: skip


def write_export(
    tables: Tables, directory: Path, format_: Format, *, created: str, formulas: bool = True
) -> dict[str, int]:
    """Write every table to `directory` and return the number of rows by table.

    Without `formulas`, text in CSV that a spreadsheet would run begins with an apostrophe, and `read_export` refuses the export.
    An earlier export in `directory` is replaced. Raises `UsageError` when anything else is there, and `OSError`
    (disk full, no permission) with what was there untouched.
    """
    _check_target(directory)
    atomic.make_folder(directory.parent)
    building = directory.parent / f"{atomic.TEMPORARY_PREFIX}{secrets.token_hex(8)}-export"
    try:
        building.mkdir()
        listed: dict[str, dict[str, Any]] = {}
        for table in TABLES.values():
            rows = tables.get(table.name, [])
            content = _ENCODERS[format_](table, rows) if formulas else _encode_for_spreadsheets(table, rows)
            name = f"{table.name}.{format_}"
            atomic.write_bytes(building / name, content)
            listed[table.name] = {"file": name, "rows": len(rows), "sha256": sha256_bytes(content)}
        manifest = {
            "kind": _KIND,
            "export_version": EXPORT_VERSION,
            "store_version": SCHEMA_VERSION,
            "sana_bench": __version__,
            "created": created,
            "format": format_,
            **({} if formulas else {"formulas": "neutralised"}),
            "runs": [row["run_id"] for row in tables.get("runs", [])],
            "tables": listed,
        }
        atomic.write_text(building / MANIFEST, json.dumps(manifest, indent=2) + "\n")
        _replace(building, directory)
    except OSError as error:
        if str(building) in str(error.filename):  # a folder that nobody knows
            error.filename, error.filename2 = str(directory), None
        raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return {name: entry["rows"] for name, entry in listed.items()}


def read_export(directory: Path) -> tuple[Tables, str]:
    """Return the tables of an export and the time when it was made.

    Raises `UsageError` for a folder that is no export, one of a newer version, or one with a damaged file.
    """
    manifest = _read_manifest(directory)
    decode = _DECODERS[manifest["format"]]
    tables: Tables = {}
    for table in TABLES.values():
        if table.later and table.name not in manifest["tables"]:
            tables[table.name] = []
            continue
        content = _read_file(directory, manifest, table)
        file = table_file(directory, table.name, manifest)
        try:
            rows = decode(table, content)
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise UsageError(f"{file}: cannot be read: {type(error).__name__} {error}") from None
        tables[table.name] = [
            _checked(row, table, f"{file}: row {number}") for number, row in enumerate(rows, start=1)
        ]
    return tables, str(manifest["created"])


def table_file(directory: Path, table: str, manifest: Mapping[str, Any] | None = None) -> str:
    """Where a table of an export is, for messages; raises `UsageError` for a folder that is no export."""
    tables = (manifest or _read_manifest(directory))["tables"]
    return str(directory / tables.get(table, {"file": table})["file"])


def read_frames(directory: Path) -> "dict[str, pandas.DataFrame]":
    """Return the tables of an export of any format as pandas frames with the same types; JSON stays text.

    Raises `UsageError` as `read_export` does.
    """
    import pandas

    tables, _ = read_export(directory)
    frames = {}
    for table in TABLES.values():
        columns = {}
        for column in table.columns:
            values: Any = [row[column.name] for row in tables[table.name]]
            if column.type == "json":
                values = [_as_text(value) for value in values]
            columns[column.name] = pandas.Series(values, dtype=_PANDAS_TYPES[column.type])
        frames[table.name] = pandas.DataFrame(columns)
    return frames


def _check_target(directory: Path) -> None:
    if not os.path.lexists(directory):
        return
    if not directory.is_dir() or directory.is_symlink():
        raise UsageError(f"--to {directory}: is not a folder")
    present = {path.name for path in directory.iterdir()}
    if not present:
        return
    ours = {entry["file"] for entry in _read_manifest(directory)["tables"].values()} | {MANIFEST}
    if present - ours:
        foreign = min(present - ours)
        raise UsageError(f"--to {directory}: holds {foreign}, which is not part of an export")


def _replace(building: Path, directory: Path) -> None:
    if directory.is_dir():
        earlier = building.with_name(f"{building.name}-earlier")
        os.replace(directory, earlier)
        try:
            os.replace(building, directory)
        except OSError:
            os.replace(earlier, directory)
            raise
        shutil.rmtree(earlier)
    else:
        os.replace(building, directory)


def _read_manifest(directory: Path) -> dict[str, Any]:
    path = directory / MANIFEST
    try:
        manifest = parse_json(read_text(path))
        if manifest["kind"] != _KIND:
            raise KeyError("kind")
        version = int(manifest["export_version"])
        files = {name: str(entry["file"]) for name, entry in manifest["tables"].items()}
        str(manifest["created"])
    except (OSError, KeyError, TypeError, AttributeError, ValueError):
        raise UsageError(f"{directory}: no results folder and no sana-bench export") from None
    if version > EXPORT_VERSION:
        raise UsageError(
            f"{directory}: export version {version} is newer than this sana-bench, which reads up to "
            f"{EXPORT_VERSION}"
        )
    if "formulas" in manifest:
        raise UsageError(
            f"{directory}: made for spreadsheets (--no-formulas), with texts changed; export it again without"
        )
    if manifest.get("format") not in FORMATS or any(Path(name).name != name for name in files.values()):
        raise UsageError(f"{path}: not a manifest that sana-bench wrote")
    return dict(manifest)


def _read_file(directory: Path, manifest: dict[str, Any], table: Table) -> bytes:
    entry = manifest["tables"].get(table.name)
    if entry is None:
        raise UsageError(f"{directory}: the table {table.name} is missing")
    try:
        content = read_bytes(directory / entry["file"])
    except FileNotFoundError:
        raise UsageError(f"{directory}: {entry['file']} is missing") from None
    except OSError as error:
        raise explained(error) from None
    if sha256_bytes(content) != entry.get("sha256"):
        raise UsageError(f"{directory}: {entry['file']} is not the file that was exported; copy it again")
    return content


def _encode_parquet(table: Table, rows: Sequence[dict[str, Any]]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    arrow = {
        "text": pyarrow.string(), "integer": pyarrow.int64(), "real": pyarrow.float64(),
        "boolean": pyarrow.bool_(), "json": pyarrow.string(),
    }  # fmt: skip
    described = [
        pyarrow.field(
            column.name,
            arrow[column.type],
            nullable=column.nullable,
            metadata={"type": column.type, "unit": column.unit, "meaning": column.meaning},
        )
        for column in table.columns
    ]
    metadata = {
        "sana_bench.export_version": str(EXPORT_VERSION),
        "sana_bench.version": __version__,
        "sana_bench.table": table.name,
        "sana_bench.key": ",".join(table.key),
    }
    columns = [
        pyarrow.array(
            [_as_text(row[c.name]) if c.type == "json" else row[c.name] for row in rows], type=arrow[c.type]
        )
        for c in table.columns
    ]
    sink = io.BytesIO()
    pyarrow.parquet.write_table(
        pyarrow.Table.from_arrays(columns, schema=pyarrow.schema(described, metadata=metadata)),
        sink,
        compression="zstd",
    )
    return sink.getvalue()


def _decode_parquet(table: Table, content: bytes) -> list[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(io.BytesIO(content)).to_pylist()
    except pyarrow.ArrowException as error:
        raise ValueError(str(error).partition("\n")[0]) from None
    return _parse_json_columns(table, rows)


def _encode_csv(table: Table, rows: Sequence[dict[str, Any]]) -> bytes:
    from sana_reports.csv_table import csv_text

    return csv_text([column.name for column in table.columns], _csv_cells(table, rows)).encode("utf-8")


def _encode_for_spreadsheets(table: Table, rows: Sequence[dict[str, Any]]) -> bytes:
    from sana_reports.csv_table import csv_text, without_formulas

    cells = without_formulas(_csv_cells(table, rows))
    return csv_text([column.name for column in table.columns], cells).encode("utf-8")


def _csv_cells(table: Table, rows: Sequence[dict[str, Any]]) -> Iterator[list[Any]]:
    return ([_csv_value_of(column, row[column.name]) for column in table.columns] for row in rows)


def _csv_value_of(column: Column, value: Any) -> Any:
    if column.type == "json":
        return _as_text(value)
    return float(value) if column.type == "real" and value is not None else value


def _decode_csv(table: Table, content: bytes) -> list[dict[str, Any]]:
    # A provenance document is longer than the module's default of 128 KiB, which other tables keep to.
    limit = csv.field_size_limit(1 << 30)
    try:
        rows = list(csv.DictReader(io.StringIO(content.decode("utf-8"), newline="")))
    finally:
        csv.field_size_limit(limit)
    return [
        {column.name: _csv_value(column, row[column.name]) for column in table.columns if column.name in row}
        for row in rows
    ]


def _csv_value(column: Column, cell: str) -> Any:
    if not cell and column.nullable:
        return None
    try:
        match column.type:
            case "json":
                return parse_json(cell)
            case "boolean":
                return {"true": True, "false": False}[cell]
            case "real":
                return float(cell)
            case "integer":
                return int(cell)
    except (KeyError, TypeError, ValueError):
        return _Unreadable(cell)
    return cell


@dataclass(frozen=True)
class _Unreadable:
    """A cell that is not of its column's type."""

    cell: str | None

    def __repr__(self) -> str:
        return repr(self.cell)


def _encode_json(table: Table, rows: Sequence[dict[str, Any]]) -> bytes:
    names = [column.name for column in table.columns]
    lines = [json.dumps({name: row[name] for name in names}, ensure_ascii=False) for row in rows]
    return ("[\n" + ",\n".join(lines) + "\n]\n").encode("utf-8")


def _decode_json(table: Table, content: bytes) -> list[dict[str, Any]]:
    return list(parse_json(content))


_ENCODERS = {"parquet": _encode_parquet, "csv": _encode_csv, "json": _encode_json}
_DECODERS = {"parquet": _decode_parquet, "csv": _decode_csv, "json": _decode_json}


def _as_text(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _parse_json_columns(table: Table, rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    names = {column.name for column in table.columns if column.type == "json"}
    return [
        {
            name: _from_json(value) if name in names and value is not None else value
            for name, value in row.items()
        }
        for row in rows
    ]


def _from_json(text: Any) -> Any:
    try:
        return parse_json(text)
    except (TypeError, ValueError):
        return _Unreadable(text)


_PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "text": (str,), "integer": (int,), "real": (float, int), "boolean": (bool,),
}  # fmt: skip


def _checked(row: Any, table: Table, where: str) -> dict[str, Any]:
    """Return the known columns of a row; raises `UsageError`, `where` in front, when it does not fit the table."""
    if not isinstance(row, dict):
        raise UsageError(f"{where}: {short(row)} is not an object")
    for column in table.columns:
        if column.name not in row and not column.nullable:
            raise UsageError(f"{where}, {column.name}: is missing")
        # Exports of earlier versions lack columns that have come since, all of which may be empty.
        value = row.get(column.name) if column.nullable else row[column.name]
        if value is None and column.nullable:
            continue
        allowed = _PYTHON_TYPES.get(column.type)
        fits = allowed is None or (
            isinstance(value, allowed) and isinstance(value, bool) == (bool in allowed)
        )
        if not fits or isinstance(value, _Unreadable):
            raise UsageError(f"{where}, {column.name}: {short(value)} is not of the type {column.type}")
    return {column.name: row.get(column.name) for column in table.columns}
