"""What goes out comes back: every generator, kind and missing value, in every format."""

import math
import tempfile
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sana_bench.cli.main import execute
from sana_bench.core.fingerprint import short
from sana_bench.core.registry import GENERATORS
from sana_bench.results.exchange.collect import collect_runs
from sana_bench.results.exchange.export import FORMATS, read_export, write_export
from sana_bench.results.exchange.tables import TABLES, Column, Tables
from sana_bench.results.store import Store
from sana_bench.results.stored_suite import StoredSuite
from sana_bench.runner.run import RunOptions, run_suite
from sana_bench.suites.schema import Variant
from tests import suite_files
from tests.runner import fakes
from tests.stores import rename_run

# Files hold UTF-8, which has no half of a surrogate pair.
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
NUMBER = st.floats(allow_nan=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
VALUES = {
    "text": TEXT,
    "integer": st.integers(-(2**63), 2**63 - 1),
    "real": NUMBER,
    "boolean": st.booleans(),
    "json": JSON.filter(lambda value: value is not None),
}
SAMPLER = {"name": "flow_euler", "steps": 2, "guidance_scale": 4.5}
SEARCH = {"generator": "sana", "candidates": 4, "judge": {"name": "clip_score"}}


def cells(column: Column) -> st.SearchStrategy[Any]:
    """Any value of a column; an empty text where one may be missing says the same as a missing one, in CSV."""
    values = VALUES[column.type]
    if not column.nullable:
        return values
    return st.none() | (values.filter(bool) if column.type == "text" else values)


TABLES_OF_ANYTHING = st.fixed_dictionaries(
    {
        table.name: st.lists(
            st.fixed_dictionaries({column.name: cells(column) for column in table.columns}), max_size=2
        )
        for table in TABLES.values()
    }
)


@pytest.mark.parametrize("format_", FORMATS)
@given(tables=TABLES_OF_ANYTHING)
@settings(max_examples=15, deadline=None)
def test_any_row_comes_back(format_: Any, tables: Tables) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_export(tables, Path(folder) / "out", format_, created="now")
        assert read_export(Path(folder) / "out") == (tables, "now")


def run_of_existing_images(folder: Path) -> Path:
    """The output folder of a run of a variant whose images lie in a folder."""
    prompts = fakes.Shapes().prompts("micro")
    pixels = np.random.default_rng(0).integers(0, 256, (len(prompts), fakes.SIZE, fakes.SIZE, 3), np.uint8)
    entries = [{"prompt": prompt.text, "file": f"{prompt.id}.png"} for prompt in prompts]
    suite_files.write_images(folder / "images", zip(entries, pixels, strict=True))
    size = {"height": fakes.SIZE, "width": fakes.SIZE}
    suite_files.write_variant(
        folder, "mine", "generator: images", tier="micro", weights=folder / "images", **size
    )
    benchmark = "{name: shapes, images_per_prompt: 1, metrics: [redness]}"
    suite = suite_files.write_suite(folder, benchmark, tier="micro", name="existing")
    assert run_suite(RunOptions(suite=suite, output=folder / "results", tier="micro")) == 0
    return folder / "results"


def tables_of(output: Path) -> Tables:
    store = Store.open_existing(output)
    assert store is not None
    with store:
        return collect_runs(store, store.run_ids())


def exchanged(output: Path, folder: Path, format_: str) -> Tables:
    """What a new store holds after an export of all runs and its import, without what an import changes."""
    sent, new = folder / format_, folder / f"new-{format_}"
    assert execute(["export", "--all", "--format", format_, "--to", str(sent), "-o", str(output)]) == 0
    assert execute(["import", str(sent), "-o", str(new)]) == 0
    return tables_of(new)


def comparable(tables: Tables) -> Tables:
    """The tables without where files are and where a run came from, which an import changes."""
    left_out = {"runs": {"origin"}, "images": {"path"}, "sessions": {"session_id"}, "events": {"session_id"}}
    return {
        name: [
            {key: value for key, value in row.items() if key not in left_out.get(name, ())} for row in rows
        ]
        for name, rows in tables.items()
    }


@pytest.mark.parametrize("format_", FORMATS)
def test_a_run_of_existing_images_goes_out_and_comes_back(world, tmp_path, format_) -> None:
    output = run_of_existing_images(tmp_path / "mine")
    sent = tables_of(output)
    assert [row["sampler"] for row in sent["variants"]] == [None]
    assert comparable(exchanged(output, tmp_path, format_)) == comparable(sent)


def variants() -> list[dict[str, Any]]:
    """Variant files of every generator and kind, with a sampler and without."""
    found = []
    for generator in (*GENERATORS.names(), "a-plug-in"):
        for kind in get_args(Variant.model_fields["kind"].annotation):
            for sampler in (SAMPLER, None):
                found.append(
                    {
                        "name": f"v{len(found)}",
                        "tier": "micro",
                        "kind": kind,
                        "generator": generator,
                        "model": {"weights": "none", "height": 64, "width": 64},
                        "sampler": sampler,
                        "best_of_n": SEARCH if generator == "best_of_n" else None,
                    }
                )
    return found


@pytest.mark.parametrize("format_", FORMATS)
def test_every_generator_and_kind_goes_out_and_comes_back(results, tmp_path, format_) -> None:
    for path in sorted(results.glob("runs/*/suite.resolved.yaml")):
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        for variant in variants():
            entry = Variant.model_validate(variant).model_dump(mode="json")
            document["variants"].append({**entry, "weights_sha256": "0" * 64, "fingerprint": variant["name"]})
        path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
        run = path.parent.name
        fingerprint = short(StoredSuite.read(path).fingerprint)
        rename_run(results, run, f"{run.rpartition('-')[0]}-{fingerprint}")
    sent = tables_of(results)
    assert len(sent["variants"]) == 2 * (2 + len(variants()))
    assert comparable(exchanged(results, tmp_path, format_)) == comparable(sent)


@pytest.mark.parametrize("format_", FORMATS)
def test_names_that_a_run_accepts_are_accepted_when_it_comes_back(
    world, monkeypatch, tmp_path, format_
) -> None:
    prompts = fakes.Shapes().prompts("micro")
    named = [type(p)(f"{p.id} ein Hügel (grün)", p.text, p.tag, p.metadata) for p in prompts]
    monkeypatch.setattr(fakes.Shapes, "prompts", lambda *_: named)
    assert world.run() == 0
    sent = tables_of(world.output)
    assert comparable(exchanged(world.output, tmp_path, format_)) == comparable(sent)


@pytest.mark.parametrize("format_", FORMATS)
def test_a_number_without_an_interval_comes_back_without_one(results, tmp_path, format_) -> None:
    with Store.open(results) as store, store.transaction() as connection:
        connection.execute("UPDATE summaries SET low = NULL, high = ?", (math.inf,))
    sent = tables_of(results)
    assert {(row["low"], row["high"]) for row in sent["summaries"]} == {(None, math.inf)}
    assert comparable(exchanged(results, tmp_path, format_)) == comparable(sent)
