"""Exports say the same in every format, and appear whole or not at all."""

import csv
import errno
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pandas
import pyarrow.parquet
import pytest

from sana_bench.cli.main import execute
from sana_bench.core import atomic
from sana_bench.core.errors import UsageError
from sana_bench.results.exchange.export import FORMATS, read_export, read_frames, write_export
from sana_bench.results.exchange.tables import EXPORT_VERSION, TABLES
from tests import ROOT
from tests.stores import change

AWKWARD = 'comma, "quote",\nline\r\nbreak,\rcarriage return, tab\t, ü, \u2028, empty next'


def export(results: Path, to: Path, format_: str, *arguments: str) -> int:
    return execute(
        ["export", *(arguments or ["--all"]), "--format", format_, "--to", str(to), "-o", str(results)]
    )


def one_line(capsys) -> str:
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def awkward_tables() -> dict[str, list[dict[str, object]]]:
    """Two rows in every table: one with values that formats like to lose, one as empty as it may be."""
    full = {
        "text": AWKWARD,
        "integer": 2**53 + 1,
        "real": 0.1 + 0.2,
        "boolean": True,
        "json": {"a": [1, None, AWKWARD]},
    }
    bare = {"text": "", "integer": 0, "real": float("inf"), "boolean": False, "json": {}}
    tables = {}
    for table in TABLES.values():
        row = {column.name: full[column.type] for column in table.columns}
        empty = {c.name: None if c.nullable else bare[c.type] for c in table.columns}
        tables[table.name] = [row, empty]
    return tables


@pytest.mark.parametrize("format_", FORMATS)
def test_every_format_gives_back_what_went_in(tmp_path, format_) -> None:
    tables = awkward_tables()
    write_export(tables, tmp_path / "out", format_, created="now")
    assert read_export(tmp_path / "out") == (tables, "now")


@pytest.mark.parametrize(
    "text", ["=cmd|'/c calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1"]
)
def test_formulas_are_text_on_request(results, tmp_path, capsys, text) -> None:
    """No field of it is run by a spreadsheet, numbers stay numbers, and what was changed does not come back by mistake."""
    change(results, f"UPDATE summaries SET note = {_quoted(text)}, low = -0.25")
    to = tmp_path / "out"
    assert export(results, to, "csv", "--all", "--no-formulas") == 0
    assert "begins with '" in capsys.readouterr().out
    with open(to / "summaries.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["note"] for row in rows} == {f"'{text}"}
    assert {row["low"] for row in rows} == {"-0.25"}
    assert execute(["import", str(to), "-o", str(tmp_path / "new")]) == 2
    assert "made for spreadsheets (--no-formulas)" in one_line(capsys)
    assert not (tmp_path / "new").exists()
    assert export(results, tmp_path / "as it is", "csv") == 0
    assert {row["note"] for row in read_export(tmp_path / "as it is")[0]["summaries"]} == {text}


def _quoted(text: str) -> str:
    return "char(" + ", ".join(str(ord(character)) for character in text) + ")"


def test_formulas_are_a_matter_of_csv(results, tmp_path, capsys) -> None:
    assert export(results, tmp_path / "out", "json", "--all", "--no-formulas") == 2
    assert "--no-formulas: json files hold none; give --format csv" in one_line(capsys)


def test_a_row_of_csv_holds_whatever_a_prompt_holds(tmp_path) -> None:
    """Read by pandas, which ends a row at a bare carriage return, as spreadsheets do."""
    tables = awkward_tables()
    text = "a cat\ron a mat"
    for row in tables["prompts"]:
        row["text"] = text
    write_export(tables, tmp_path / "out", "csv", created="now")
    found = pandas.read_csv(tmp_path / "out/prompts.csv", keep_default_na=False)
    assert list(found["text"]) == [text, text]
    assert f'"{text}"' in (tmp_path / "out/prompts.csv").read_bytes().decode()


def test_long_cells_are_read_and_the_limit_of_other_tables_stays(tmp_path) -> None:
    tables, limit = awkward_tables(), csv.field_size_limit()
    for row in tables["prompts"]:
        row["text"] = "cat" * limit
    write_export(tables, tmp_path / "out", "csv", created="now")
    found, _ = read_export(tmp_path / "out")
    assert {row["text"] for row in found["prompts"]} == {"cat" * limit}
    assert csv.field_size_limit() == limit


def test_a_damaged_run_is_left_out_of_all_runs_and_named(results, tmp_path, capsys) -> None:
    damaged, other = sorted((results / "runs").iterdir())
    (damaged / "prompts/shapes.jsonl").write_text("{")
    assert export(results, tmp_path / "all", "json") == 3
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert f"left out {damaged.name}: " in captured.err
    assert "shapes.jsonl: damaged" in captured.err
    assert "images: " in captured.out
    tables, _ = read_export(tmp_path / "all")
    assert {row["run_id"] for rows in tables.values() for row in rows} == {other.name}
    assert export(results, tmp_path / "one", "json", str(damaged)) == 2
    capsys.readouterr()
    assert execute(["import", str(results), "-o", str(tmp_path / "new")]) == 3
    assert f"left out {damaged.name}: " in one_line(capsys)
    assert [run.name for run in (tmp_path / "new/runs").iterdir()] == [other.name]
    (other / "suite.resolved.yaml").write_text("benchmarks: [")
    assert export(results, tmp_path / "none", "json") == 2
    assert not (tmp_path / "none").exists()


def test_the_formats_agree_on_a_run(results, tmp_path) -> None:
    read = []
    for format_ in FORMATS:
        assert export(results, tmp_path / format_, format_) == 0
        read.append(read_frames(tmp_path / format_))
    for name in TABLES:
        assert len(read[0][name]) or name in ("events", "sequences"), name
        for other in read[1:]:
            pandas.testing.assert_frame_equal(read[0][name], other[name], check_exact=True)


def test_csv_is_read_by_pandas_as_documented(results, tmp_path) -> None:
    export(results, tmp_path / "csv", "csv")
    expected = read_frames(tmp_path / "csv")
    types = {"text": "string", "json": "string", "integer": "Int64", "real": "Float64", "boolean": "boolean"}
    for table in TABLES.values():
        frame = pandas.read_csv(
            tmp_path / "csv" / f"{table.name}.csv",
            dtype={column.name: types[column.type] for column in table.columns},
            keep_default_na=False,
            na_values={column.name: [""] for column in table.columns if column.nullable},
        )
        pandas.testing.assert_frame_equal(frame, expected[table.name], check_exact=True)


def test_the_tables_hold_what_the_store_holds(results, tmp_path) -> None:
    export(results, tmp_path / "out", "parquet")
    frames = read_frames(tmp_path / "out")
    with closing(sqlite3.connect(results / "store.sqlite")) as connection:
        for table in ("runs", "summaries", "images", "scores", "sessions"):
            count = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            assert len(frames[table]) == count, table
        values = sorted(row[0] for row in connection.execute("SELECT value FROM scores"))
        seconds = sorted(row[0] for row in connection.execute("SELECT seconds FROM images"))
        documents = dict(connection.execute("SELECT run_id, provenance FROM runs"))
    assert sorted(frames["scores"]["value"]) == values
    assert sorted(frames["timings"]["seconds"]) == seconds
    tables, _ = read_export(tmp_path / "out")
    assert {row["run_id"]: row["document"] for row in tables["provenance"]} == {
        run: json.loads(text) for run, text in documents.items()
    }


def test_parquet_carries_the_schema(results, tmp_path) -> None:
    export(results, tmp_path / "out", "parquet")
    schema = pyarrow.parquet.read_schema(tmp_path / "out" / "timings.parquet")
    assert schema.metadata[b"sana_bench.export_version"] == str(EXPORT_VERSION).encode()
    assert schema.field("seconds").metadata[b"unit"] == b"s"
    assert str(schema.field("seconds").type) == "double"
    assert not schema.field("seconds").nullable


def test_one_run_can_be_exported(results, tmp_path, capsys) -> None:
    run = sorted(path.name for path in (results / "runs").iterdir())[0]
    assert export(results, tmp_path / "out", "json", run) == 0
    assert [row["run_id"] for row in json.loads((tmp_path / "out" / "runs.json").read_text())] == [run]
    capsys.readouterr()
    assert export(results, tmp_path / "other", "json", f"{run[:-1]}_") == 2
    assert f"did you mean '{run}'?" in one_line(capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--all", "--format", "xml", "--to", "x"], "--format xml: unknown"),
        (["--all", "--format", "csv"], "export needs --to FOLDER"),
        (["--format", "csv", "--to", "x"], "export needs the names of runs, or --all"),
        (["--all", "--to", "x", "-o", "nowhere"], "there is no result store"),
    ],
)
def test_wrong_use_is_one_line(tmp_path, monkeypatch, capsys, arguments, message) -> None:
    monkeypatch.chdir(tmp_path)
    assert execute(["export", *arguments]) == 2
    assert message in one_line(capsys)
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_export_is_replaced_and_nothing_else(results, tmp_path, capsys) -> None:
    to = tmp_path / "out"
    assert export(results, to, "parquet") == 0
    assert export(results, to, "csv") == 0
    assert {path.suffix for path in to.iterdir()} == {".csv", ".json"}
    (to / "mine.txt").write_text("mine")
    capsys.readouterr()
    assert export(results, to, "csv") == 2
    assert "holds mine.txt" in one_line(capsys)
    assert (to / "mine.txt").read_text() == "mine"


def test_a_full_disk_leaves_the_earlier_export(results, tmp_path, monkeypatch, capsys) -> None:
    to = tmp_path / "out"
    assert export(results, to, "json") == 0
    before = {path.name: path.read_bytes() for path in to.iterdir()}
    original, count = os.fsync, [0]

    def fsync(descriptor: int) -> None:
        count[0] += 1
        if count[0] > 9:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(descriptor)

    monkeypatch.setattr(atomic.os, "fsync", fsync)
    capsys.readouterr()
    assert export(results, to, "json") == 3
    assert "No space left on device" in one_line(capsys)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in to.iterdir()} == before
    assert {path.name for path in tmp_path.iterdir()} == {"out", "results"}
    assert export(results, to, "json") == 0


def test_a_damaged_export_is_refused(tmp_path) -> None:
    write_export(awkward_tables(), tmp_path / "out", "csv", created="now")
    path = tmp_path / "out" / "scores.csv"
    path.write_bytes(path.read_bytes().replace(b"0.30000000000000004", b"0.9"))
    with pytest.raises(UsageError, match=r"scores\.csv is not the file that was exported"):
        read_export(tmp_path / "out")
    path.unlink()
    with pytest.raises(UsageError, match=r"scores\.csv is missing"):
        read_export(tmp_path / "out")


def test_a_newer_export_is_refused(tmp_path) -> None:
    write_export(awkward_tables(), tmp_path / "out", "json", created="now")
    manifest = tmp_path / "out" / "manifest.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "export_version": EXPORT_VERSION + 1}))
    with pytest.raises(UsageError, match="is newer than this sana-bench"):
        read_export(tmp_path / "out")


def schema_markdown() -> str:
    """The schema as the Markdown of docs/results.md."""
    parts = []
    for table in TABLES.values():
        key = ", ".join(f"`{name}`" for name in table.key) or "none"
        lines = [
            f"### {table.name}",
            "",
            f"{table.meaning[:1].upper()}{table.meaning[1:]}. Key: {key}.",
            "",
            "| column | type | unit | meaning |",
            "|---|---|---|---|",
        ]
        for column in table.columns:
            kind = f"{column.type}, may be empty" if column.nullable else column.type
            lines.append(f"| {column.name} | {kind} | {column.unit} | {column.meaning} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def test_the_documented_schema_is_the_one_written() -> None:
    assert schema_markdown() in (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
