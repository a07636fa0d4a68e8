"""Runs of another store come in whole, once, and never over a contradiction."""

import json
import shutil
from pathlib import Path

import pytest

from sana_bench.cli.main import execute
from sana_bench.core import atomic
from sana_bench.results.store import Store
from sana_bench.runner.run import RunOptions, run_suite
from tests.runner import fakes
from tests.runner import numbers_of_runs as numbers
from tests.stores import change

TABLES = ("runs", "images", "metrics", "scores", "features", "chunks", "summaries", "sessions", "events")


def import_(source: Path, output: Path) -> int:
    return execute(["import", str(source), "-o", str(output)])


def export(results: Path, to: Path, format_: str) -> Path:
    assert execute(["export", "--all", "--format", format_, "--to", str(to), "-o", str(results)]) == 0
    return to


def dump(output: Path, *, without: tuple[str, ...] = ()) -> dict[str, list[dict[str, object]]]:
    """Return every row of a store, sorted, without some columns."""
    store = Store.open_existing(output)
    assert store is not None
    with store:
        found = {
            table: [
                {k: v for k, v in row.items() if k not in without}
                for row in store.rows(f"SELECT * FROM {table}")
            ]
            for table in (*TABLES, "imports")
        }
    return {table: sorted(rows, key=repr) for table, rows in found.items()}


def complete_run(output: Path) -> str:
    return next(
        run for run in numbers.run_ids(output) if all(r.complete for r in numbers.summaries(output, run))
    )


def one_line(capsys) -> str:
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_a_results_folder_comes_in_whole(results, tmp_path, capsys) -> None:
    new = tmp_path / "new"
    assert import_(results, new) == 0
    there, here = dump(results, without=("origin",)), dump(new, without=("origin",))
    assert {name: here[name] for name in TABLES} == {name: there[name] for name in TABLES}
    assert numbers.image_bytes(new) == numbers.image_bytes(results)
    for run in numbers.run_ids(new):
        assert execute(["report", run, "-o", str(new)]) == 0
    with Store.open(new) as store:
        origins = {row["origin"] for row in store.rows("SELECT origin FROM runs")}
    assert origins == {str(results)}


@pytest.mark.parametrize("kind", ["folder", "parquet", "json", "csv"])
def test_again_changes_nothing(results, tmp_path, capsys, kind) -> None:
    source = results if kind == "folder" else export(results, tmp_path / "exported", kind)
    assert import_(source, tmp_path / "new") == 0
    before = dump(tmp_path / "new")
    files = {
        path: path.stat().st_mtime_ns for path in (tmp_path / "new" / "runs").rglob("*") if path.is_file()
    }
    capsys.readouterr()
    assert import_(source, tmp_path / "new") == 0
    assert capsys.readouterr().out.count("already there, nothing changed") == 2
    assert dump(tmp_path / "new") == before
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "new" / "runs").rglob("*") if p.is_file()} == files


@pytest.mark.parametrize("format_", ["parquet", "json"])
def test_an_export_brings_the_numbers_and_marks_images_absent(results, tmp_path, capsys, format_) -> None:
    source = export(results, tmp_path / "exported", format_)
    new = tmp_path / "new"
    capsys.readouterr()
    assert import_(source, new) == 0
    n_images = 2 * 4 * fakes.N_PROMPTS
    assert f"the files of {n_images} images are absent" in capsys.readouterr().out
    for run in numbers.run_ids(results):
        assert numbers.summaries(new, run) == numbers.summaries(results, run)
    without = ("origin", "path")
    there, here = dump(results, without=without), dump(new, without=without)
    for table in set(TABLES) - {"features", "chunks"}:
        assert here[table] == there[table], table
    assert {row["path"] for row in dump(new)["images"]} == {None}
    assert execute(["report", complete_run(new), "-o", str(new)]) == 0


def test_images_of_an_export_arrive_later(results, tmp_path) -> None:
    new = tmp_path / "new"
    import_(export(results, tmp_path / "exported", "json"), new)
    assert import_(results, new) == 0
    there, here = dump(results, without=("origin",)), dump(new, without=("origin",))
    assert here["images"] == there["images"]
    assert numbers.image_bytes(new) == numbers.image_bytes(results)


def test_one_run_directory_can_be_imported(results, tmp_path) -> None:
    run = numbers.run_ids(results)[1]
    assert import_(results / "runs" / run, tmp_path / "new") == 0
    assert numbers.run_ids(tmp_path / "new") == [run]


def test_damaged_and_missing_images_are_absent(results, tmp_path, capsys) -> None:
    damaged, missing = sorted((results / "runs").glob("*/images/**/*.png"))[:2]
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    missing.unlink()
    new = tmp_path / "new"
    assert import_(results, new) == 0
    assert "the files of 2 images are absent" in capsys.readouterr().out
    for path in (damaged, missing):
        assert not (new / path.relative_to(results)).exists()


def test_an_imported_run_goes_on_here(finished_world, results, tmp_path) -> None:
    """Its images, scores and features are not made again."""
    new = tmp_path / "new"
    import_(results, new)
    fakes.FakeGenerator.batches.clear()
    computed = fakes.Spread.computed
    options = RunOptions(suite=finished_world / "suites" / "shapes.yaml", output=new, tier="micro")
    with fakes.installed():
        assert run_suite(options) == 0
    assert fakes.FakeGenerator.batches == []
    assert fakes.Spread.computed == computed
    run = complete_run(results)
    assert numbers.summaries(new, run) == numbers.summaries(results, run)


CONTRADICTIONS = {
    "image": ("UPDATE images SET sha256 = 'other' WHERE prompt_id = '00001'", "a different image there"),
    "score": ("UPDATE scores SET value = value + 1e-9", "redness of image"),
    "summary": ("UPDATE summaries SET value = value + 1e-9 WHERE metric = 'spread'", "spread overall"),
    "run": ("UPDATE runs SET fingerprint = 'other'", "fingerprint is"),
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_a_contradiction_is_refused_and_changes_nothing(results, tmp_path, capsys, what) -> None:
    statement, message = CONTRADICTIONS[what]
    other = Path(shutil.copytree(results, tmp_path / "other"))
    change(other, statement)
    before = dump(results)
    assert import_(other, results) == 5
    line = one_line(capsys)
    assert "contradicts the store" in line
    assert message in line
    assert dump(results) == before


def test_more_of_the_same_run_completes_it(results, tmp_path) -> None:
    """A store that has a limited run takes the rest from one that finished it, and not the other way round."""
    run = complete_run(results)
    part = tmp_path / "part"
    shutil.copytree(results, part)
    change(
        part,
        "DELETE FROM images WHERE prompt_id = '00003'",
        f"UPDATE summaries SET n_samples = n_samples - 1, complete = 0 WHERE run_id = '{run}'",
        "UPDATE images SET status = 'failed', path = NULL, sha256 = NULL WHERE prompt_id = '00004'",
    )
    whole = dump(results)
    assert import_(part, results) == 0
    assert dump(results)["images"] == whole["images"]
    assert dump(results)["summaries"] == whole["summaries"]
    assert import_(results, part) == 0
    assert dump(part)["images"] == whole["images"]
    assert dump(part)["summaries"] == whole["summaries"]


def test_a_kill_between_files_and_rows_is_repaired_by_the_same_command(
    results, tmp_path, monkeypatch
) -> None:
    from sana_bench.results.exchange import import_ as run_import

    new = tmp_path / "new"

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_import, "apply_merge", die)
    assert import_(results, new) == 3
    assert dump(new)["images"] == []
    monkeypatch.undo()
    assert import_(results, new) == 0
    without = ("origin",)
    there, here = dump(results, without=without), dump(new, without=without)
    assert {name: here[name] for name in TABLES} == {name: there[name] for name in TABLES}


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(results, tmp_path, monkeypatch, capsys) -> None:
    original, count = atomic.write_with, [0]

    def write_with(path: Path, write) -> None:
        count[0] += 1
        if count[0] > 20:
            raise OSError(28, "No space left on device")
        original(path, write)

    monkeypatch.setattr(atomic, "write_with", write_with)
    assert import_(results, tmp_path / "new") == 3
    assert "what is finished is kept" in (line := one_line(capsys))
    assert "No space left on device: " in line
    monkeypatch.undo()
    assert import_(results, tmp_path / "new") == 0
    assert numbers.image_bytes(tmp_path / "new") == numbers.image_bytes(results)


@pytest.mark.parametrize("table", ["images", "prompts", "runs"])
def test_names_that_lead_elsewhere_are_refused(results, tmp_path, capsys, table) -> None:
    from sana_bench.results.exchange.export import read_export, write_export

    tables, _ = read_export(export(results, tmp_path / "exported", "json"))
    name = {"images": "prompt_id", "prompts": "benchmark", "runs": "run_id"}[table]
    for rows in tables.values() if table == "runs" else [tables[table]]:
        for row in rows:
            row[name] = "../../outside"
    write_export(tables, tmp_path / "hostile", "json", created="now")
    capsys.readouterr()
    assert import_(tmp_path / "hostile", tmp_path / "new") == 2
    assert "cannot be the name of a file" in one_line(capsys)
    assert not (tmp_path / "new").exists()


def test_wrong_sources_are_one_line(results, tmp_path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "empty", tmp_path / "nowhere"):
        assert import_(source, tmp_path / "new") == 2
        assert "no results folder and no sana-bench export" in one_line(capsys)
    assert import_(results, results) == 2
    assert "is part of the store to import into" in one_line(capsys)
    assert not (tmp_path / "new").exists()


def test_a_metric_that_is_not_its_key_is_refused(results, tmp_path, capsys) -> None:
    change(results, "UPDATE metrics SET identity = '{\"version\":2}' WHERE name = 'redness'")
    assert import_(results, tmp_path / "new") == 2
    assert "does not match its key" in one_line(capsys)
    assert json.dumps(dump(tmp_path / "new")["runs"]) == "[]"
