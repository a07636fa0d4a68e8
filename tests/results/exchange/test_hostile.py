"""An import takes nothing on trust: what does not fit is one line with file, row and column, and nothing is written."""

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sana_bench.cli.main import execute
from sana_bench.core.fingerprint import sha256_bytes
from sana_bench.results.exchange.export import MANIFEST
from tests.runner import numbers_of_runs as numbers
from tests.stores import change

DEEP = "[" * 100_000 + "]" * 100_000
Row = dict[str, Any]


def put(**values: Any) -> Callable[[list[Row]], None]:
    return lambda rows: rows[0].update(values)


def in_suite(key: str, place: str, value: Any) -> Callable[[list[Row]], None]:
    return lambda rows: rows[0]["suite_resolved"][key][0].update({place: value})


def again(rows: list[Row]) -> None:
    rows.append(dict(rows[0]))


# The table that is changed, how, and what the line says beside the file.
ROWS: dict[str, tuple[str, Callable[[list[Row]], Any], str]] = {
    "a benchmark of the suite leads out": (
        "runs", in_suite("benchmarks", "name", "../../../PWN"),
        "row 1, suite_resolved: benchmarks.0.name: '../../../PWN' cannot be the name of a file",
    ),
    "an absolute benchmark": ("runs", in_suite("benchmarks", "name", "/tmp/PWN"), "cannot be the name of a file"),
    "a variant of the suite leads out": (
        "runs", in_suite("variants", "name", "../x"),
        "variants.0.name: '../x' cannot be the name of a file",
    ),
    "a fingerprint that leads out": ("runs", in_suite("variants", "fingerprint", "../../../../x"), "variants.0.fingerprint"),
    "a fingerprint of the table leads out": (
        "variants", put(fingerprint="../../../../x"),
        "row 1, fingerprint: '../../../../x' cannot be the name of a file",
    ),
    "another fingerprint": ("variants", put(fingerprint="0" * 64), "is not that of the run's suite"),
    "no benchmarks": ("runs", lambda rows: rows[0]["suite_resolved"].update(benchmarks=None), "benchmarks"),
    "no suite": ("runs", put(suite_resolved=None), "row 1, suite_resolved"),
    "an empty suite": ("runs", put(suite_resolved={}), "row 1, suite_resolved: 'name' is missing"),
    "a suite that is a list": ("runs", put(suite_resolved=[]), "row 1, suite_resolved"),
    "half of a character": ("prompts", put(text="\ud800"), "row 1, text"),
    "metadata that is a list": ("prompts", put(metadata=[1]), "row 1, metadata"),
    "a negative index": ("images", put(sample_index=-1), "row 1, sample_index: -1"),
    "a truth as index": ("images", put(sample_index=True), "row 1, sample_index: True"),
    "an endless index": ("images", put(sample_index=2**80), "row 1, sample_index"),
    "a status of its own": ("images", put(status="great"), "row 1, status: 'great'"),
    "an image without a hash": ("images", put(sha256=None), "row 1, sha256: is empty"),
    "an image of another variant": ("images", put(variant="other"), "row 1, variant: 'other' is no variant of"),
    "a row twice": ("images", again, "is of the same run_id, variant, benchmark, prompt_id, sample_index as row 1"),
    "a row of no run": ("images", put(run_id="other"), "row 1, run_id: 'other' is no run of the source"),
    "a score that is no number": ("scores", put(value=math.nan), "row 1, value: nan is not a number"),
    "a score that is a text": ("scores", put(value="0.5"), "row 1, value: '0.5' is not of the type real"),
    "a score of no metric": ("scores", put(metric_key="other"), "row 1, metric_key: 'other' is not in the table metrics"),
    "details that are a list": ("scores", put(details=[]), "row 1, details"),
    "details that JSON does not have": ("scores", put(details={"reward": math.inf}), "row 1, details"),
    "details without end": ("scores", put(details="DEEP"), ""),
    "a summary without a value": ("summaries", put(value=None), "row 1, value: None is not of the type real"),
    "a summary of another benchmark": ("summaries", put(benchmark="x"), "row 1, benchmark: 'x' is no benchmark of"),
    "a session of fewer than no images": ("sessions", put(images_generated=-1), "row 1, images_generated: -1"),
    "provenance that is a list": ("provenance", put(document=[1]), "row 1, document"),
    "models that are a list": ("provenance", lambda rows: rows[0]["document"].update(models=[]), "row 1, document: models"),
    "an event without its numbers": (
        "provenance", lambda rows: rows[0]["document"].update(events=[{"kind": "cut_texts"}]),
        "row 1, document: events.0: ",
    ),
    "a row that is a number": ("images", lambda rows: rows.__setitem__(0, 3), "row 1: 3 is not an object"),
    "a row without a column": ("images", lambda rows: rows[0].pop("status"), "row 1, status: is missing"),
}  # fmt: skip


def export(results: Path, to: Path, format_: str = "json") -> Path:
    assert execute(["export", "--all", "--format", format_, "--to", str(to), "-o", str(results)]) == 0
    return to


def rewrite(exported: Path, file: str, content: bytes) -> None:
    """Replace a file of an export, and its hash: whoever sends one can do both."""
    (exported / file).write_bytes(content)
    manifest = json.loads((exported / MANIFEST).read_text())
    manifest["tables"][file.partition(".")[0]]["sha256"] = sha256_bytes(content)
    (exported / MANIFEST).write_text(json.dumps(manifest))


def refused(source: Path, output: Path, capsys) -> str:
    capsys.readouterr()
    assert execute(["import", str(source), "-o", str(output)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "crashed" not in line
    assert not output.exists()
    return line


@pytest.mark.parametrize("what", ROWS)
def test_rows_that_do_not_fit_are_named(results, tmp_path, capsys, what) -> None:
    table, change, message = ROWS[what]
    exported = export(results, tmp_path / "exported")
    rows = json.loads((exported / f"{table}.json").read_text())
    change(rows)
    rewrite(exported, f"{table}.json", json.dumps(rows).replace('"DEEP"', DEEP).encode())
    line = refused(exported, tmp_path / "deep" / "new", capsys)
    assert f"{exported / table}.json: " in line
    assert message in line
    assert {path.name for path in tmp_path.iterdir()} == {"results", "exported"}


@pytest.mark.parametrize("cell", ["x", "", "1e400", "-1", "9" * 5000])
def test_cells_of_csv_are_named(results, tmp_path, capsys, cell) -> None:
    exported = export(results, tmp_path / "exported", "csv")
    header, first, *rest = (exported / "images.csv").read_text().split("\n")
    cells = dict(zip(header.split(","), first.split(","), strict=True)) | {"sample_index": cell}
    rewrite(exported, "images.csv", "\n".join([header, ",".join(cells.values()), *rest]).encode())
    assert f"{exported / 'images.csv'}: row 1, sample_index: " in refused(exported, tmp_path / "new", capsys)


@pytest.mark.parametrize("manifest", [b"", b"[]", b"{}", b'{"kind": null}', DEEP.encode(), b"\xff"])
def test_manifests_that_are_none(results, tmp_path, capsys, manifest) -> None:
    exported = export(results, tmp_path / "exported")
    (exported / MANIFEST).write_bytes(manifest)
    assert "no results folder and no sana-bench export" in refused(exported, tmp_path / "new", capsys)


@pytest.mark.parametrize("file", ["../results/store.sqlite", "/etc/passwd", "..", ""])
def test_files_of_a_manifest_lie_beside_it(results, tmp_path, capsys, file) -> None:
    exported = export(results, tmp_path / "exported")
    manifest = json.loads((exported / MANIFEST).read_text())
    manifest["tables"]["runs"]["file"] = file
    (exported / MANIFEST).write_text(json.dumps(manifest))
    refused(exported, tmp_path / "new", capsys)


SUITES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a benchmark leads out": lambda suite: suite["benchmarks"][0].update(name="../../../PWN"),
    "an absolute benchmark": lambda suite: suite["benchmarks"][0].update(name="/tmp/PWN"),
    "a variant leads out": lambda suite: suite["variants"][0].update(name="../../PWN"),
    "no benchmarks": lambda suite: suite.update(benchmarks=None),
}


@pytest.mark.parametrize("what", SUITES)
@pytest.mark.parametrize("command", ["import", "report"])
def test_a_results_folder_is_held_to_the_same(results, tmp_path, capsys, what, command) -> None:
    (run,) = (
        run for run in numbers.run_ids(results) if all(r.complete for r in numbers.summaries(results, run))
    )
    path = results / "runs" / run / "suite.resolved.yaml"
    suite = yaml.safe_load(path.read_text())
    SUITES[what](suite)
    path.write_text(yaml.safe_dump(suite))
    if command == "import":
        line = refused(results / "runs" / run, tmp_path / "new", capsys)
    else:
        assert execute(["report", run, "-o", str(results)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
    assert f"{path}: damaged suite file: " in line
    assert {path.name for path in tmp_path.iterdir()} == {"results"}


def test_a_store_with_rows_that_do_not_fit_is_refused(results, tmp_path, capsys) -> None:
    other = Path(shutil.copytree(results, tmp_path / "other"))
    change(other, "UPDATE scores SET details = '[]'")
    assert f"{other / 'store.sqlite'}: table " in refused(other, tmp_path / "new", capsys)


def test_pipes_and_links_in_the_place_of_images_are_absent_images(results, tmp_path, capsys) -> None:
    first, second, third = sorted((results / "runs").glob("*/images/**/*.png"))[:3]
    for path in (first, second, third):
        path.unlink()
    os.mkfifo(first)
    second.mkdir()
    third.symlink_to(tmp_path / "nowhere")
    assert execute(["import", str(results), "-o", str(tmp_path / "new")]) == 0
    assert "the files of 3 images are absent" in capsys.readouterr().out
