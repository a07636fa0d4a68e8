"""The one schema of rows that come from somewhere else: types, names, counts, and what belongs together."""

from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model

from sana_bench.core.errors import UsageError
from sana_bench.results.documents import (
    PathName,
    PlainJson,
    PlainObject,
    Provenance,
    Text,
    checked,
    first_problem,
)
from sana_bench.results.exchange.tables import TABLES, Column, Table, Tables
from sana_bench.results.stored_suite import StoredSuite

__all__ = ["check_tables"]


def _is_number(value: float) -> float:
    if value != value:
        raise ValueError("is not a number")
    return value


_Whole = Annotated[int, Field(ge=-(2**63), lt=2**63)]
_KINDS: dict[str, Any] = {
    "text": Text,
    "integer": _Whole,
    "real": Annotated[float, AfterValidator(_is_number)],
    "boolean": bool,
    "json": PlainJson,
    "name": PathName,
    "count": Annotated[int, Field(ge=0, lt=2**63)],
    # Part of a file's name, of five digits or more.
    "index": Annotated[int, Field(ge=0, lt=2**31)],
    "tier": Literal["micro", "full"],
    "status": Literal["ok", "failed"],
    "verdict": Literal["better", "worse", "equivalent", "narrow enough", "undecided", "all prompts used"],
    "object": PlainObject,
    "costs": dict[str, float],
    "tasks": dict[Text, dict[Text, float]],
    "rewrites": dict[PathName, dict[Text, Text]],
    "document": dict[str, Any],
}


def check_tables(tables: Tables, file_of: Callable[[str], str]) -> None:
    """Raise `UsageError` at the first row of any table that an import must not take, with what `file_of` says of its table.

    Then every value is of its column's type and kind, no key comes twice, and all that a run's rows name is in the run: its
    suite, its variants, benchmarks and metrics. Nothing is written.
    """
    for name, table in TABLES.items():
        _check_rows(table, tables[name], file_of(name))
    runs = {row["run_id"]: StoredSuite.of(row["suite_resolved"], _where(file_of("runs"), number, "suite_resolved"))
            for number, row in enumerate(tables["runs"], start=1)}  # fmt: skip
    for number, (run_id, suite) in enumerate(runs.items(), start=1):
        suite.check_run(run_id, _where(file_of("runs"), number, "suite_resolved"))
    for name in TABLES:
        for number, row in enumerate(tables[name], start=1):
            if row["run_id"] not in runs:
                raise UsageError(
                    f"{_where(file_of(name), number, 'run_id')}: {row['run_id']!r} is no run of the source"
                )
    for number, row in enumerate(tables["provenance"], start=1):
        checked(Provenance, row["document"], _where(file_of("provenance"), number, "document"))
    _check_names(tables, runs, file_of)
    _check_images(tables, runs, file_of)


def _check_rows(table: Table, rows: list[dict[str, Any]], file: str) -> None:
    model = _model(table.name)
    seen: dict[tuple[Any, ...], int] = {}
    for number, row in enumerate(rows, start=1):
        try:
            model.model_validate(row)
        except ValidationError as error:
            raise UsageError(f"{file}: row {number}, {first_problem(error)}") from None
        key = tuple(row[name] for name in table.key)
        if table.key and seen.setdefault(key, number) != number:
            raise UsageError(
                f"{file}: row {number}: is of the same {', '.join(table.key)} as row {seen[key]}"
            )


def _check_names(tables: Tables, runs: dict[str, StoredSuite], file_of: Callable[[str], str]) -> None:
    """Every variant, benchmark and metric that a row names is one of its run."""
    metrics = {(row["run_id"], row["metric_key"]) for row in tables["metrics"]}
    known = {
        run: {
            "variant": {one.name for one in suite.variants},
            "benchmark": {one.name for one in suite.benchmarks},
        }
        for run, suite in runs.items()
    }
    for name, table in TABLES.items():
        columns = {column.name for column in table.columns}
        for number, row in enumerate(tables[name], start=1):
            for column, names in known[row["run_id"]].items():
                if column in columns and row[column] not in names:
                    raise UsageError(
                        f"{_where(file_of(name), number, column)}: {row[column]!r} is no {column} of {row['run_id']}"
                    )
            if name in ("scores", "sequences") and (row["run_id"], row["metric_key"]) not in metrics:
                raise UsageError(
                    f"{_where(file_of(name), number, 'metric_key')}: {row['metric_key']!r} is not in the table metrics"
                )
    for number, row in enumerate(tables["sequences"], start=1):
        if row["against"] is not None and row["against"] not in known[row["run_id"]]["variant"]:
            raise UsageError(
                f"{_where(file_of('sequences'), number, 'against')}: {row['against']!r} is no variant of {row['run_id']}"
            )
    for number, row in enumerate(tables["variants"], start=1):
        suite = runs[row["run_id"]]
        asked = {one.name: one.fingerprint for one in suite.variants}
        if asked[row["variant"]] != row["fingerprint"]:
            raise UsageError(
                f"{_where(file_of('variants'), number, 'fingerprint')}: is not that of the run's suite"
            )


def _check_images(tables: Tables, runs: dict[str, StoredSuite], file_of: Callable[[str], str]) -> None:
    keys = {
        (run, variant.name, benchmark.name): benchmark.image_key(variant)
        for run, suite in runs.items()
        for variant in suite.variants
        for benchmark in suite.benchmarks
    }
    for number, row in enumerate(tables["images"], start=1):
        if keys[row["run_id"], row["variant"], row["benchmark"]] != row["image_key"]:
            raise UsageError(
                f"{_where(file_of('images'), number, 'image_key')}: run {row['run_id']}: "
                f"the images of {row['variant']} do not match their key"
            )
        if row["status"] == "ok" and row["sha256"] is None:
            raise UsageError(
                f"{_where(file_of('images'), number, 'sha256')}: is empty for an image that is there"
            )


@cache
def _model(table: str) -> type[BaseModel]:
    fields: dict[str, Any] = {column.name: _field(column) for column in TABLES[table].columns}
    return create_model(table, __config__=ConfigDict(strict=True, protected_namespaces=()), **fields)


def _field(column: Column) -> tuple[Any, Any]:
    kind = _KINDS[column.kind or column.type]
    return (kind | None, None) if column.nullable else (kind, ...)


def _where(file: str, number: int, column: str) -> str:
    return f"{file}: row {number}, {column}"
