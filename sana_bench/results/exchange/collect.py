"""Runs of a result store as the flat tables of an export."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sana_bench.core.errors import UsageError
from sana_bench.core.provenance import now
from sana_bench.results.exchange.export import Format, write_export
from sana_bench.results.exchange.tables import TABLES, Tables
from sana_bench.results.reader import VariantResults, read_run
from sana_bench.results.run_folder import DEFAULT_OUTPUT, RunFiles, image_path, locate_run, open_store
from sana_bench.results.store import Store

__all__ = ["collect_runs", "export_runs", "image_target", "left_out"]


def collect_runs(store: Store, run_ids: Sequence[str], damaged: dict[str, str] | None = None) -> Tables:
    """Return every row of these runs, as one moment of the store has them.

    Raises `UsageError` for a run that the store does not know or whose directory is damaged; with `damaged` such runs are left
    out, and it gets the reasons by run.
    """
    tables: Tables = {name: [] for name in TABLES}
    with store.snapshot():
        for run_id in run_ids:
            found: Tables = {name: [] for name in TABLES}
            try:
                _Collector(store, run_id, found).collect()
            except UsageError as error:
                if damaged is None:
                    raise
                damaged[run_id] = str(error)
                continue
            for name, rows in found.items():
                tables[name] += rows
    return tables


def left_out(damaged: Mapping[str, str]) -> str:
    """One line about the runs that could not be read."""
    return "; ".join(f"left out {run}: {reason}" for run, reason in damaged.items())


def image_target(run_directory: Path, variant: dict[str, Any], row: dict[str, Any]) -> Path:
    """Where the image of an `images` row lies in its run's directory."""
    place = image_path(
        row["variant"], variant["fingerprint"], row["benchmark"], row["prompt_id"], row["sample_index"]
    )
    return run_directory / place


class _Collector:
    def __init__(self, store: Store, run_id: str, tables: Tables) -> None:
        row = store.run(run_id)
        if row is None:
            raise UsageError(f"{run_id}: the store in {store.output} does not know this run")
        self._store = store
        self._run_id = run_id
        self._tables = tables
        self._run = read_run(store, RunFiles(store.output / row["directory"]))
        # Name and protocol by key. Of what a sequence looked at there may be no summary.
        looked = {sequence.last.metric_key for sequence in self._run.sequences}
        self._metrics = {
            **{key: known for key, known in store.protocols().items() if key in looked},
            **{one.metric_key: (one.metric, one.protocol) for one in self._run.summaries},
        }

    def collect(self) -> None:
        self._add("runs", **self._run.row, suite_resolved=self._run.suite.document)
        self._add("provenance", document=self._run.row["provenance"])
        for benchmark, by_id in self._run.prompts.items():
            for prompt in by_id.values():
                self._add("prompts", benchmark=benchmark, prompt_id=prompt.id, text=prompt.text, tag=prompt.tag,
                          metadata=prompt.metadata)  # fmt: skip
        self._add_metrics()
        for variant in self._run.variants.values():
            described = variant.described
            names = {"variant": described.name, "description": described.description,
                     "precision": described.precision, "prompt_rewrites": variant.rewrites or None}  # fmt: skip
            self._add("variants", **{**described.settings, "fingerprint": described.fingerprint, **names})
            for benchmark in self._run.benchmarks:
                self._add_cell(variant, benchmark)
        self._add_summaries()
        for sequence in self._run.sequences:
            for look in sequence.looks:
                self._add("sequences", **vars(look))
        self._add_sessions()

    def _add(self, table: str, **values: Any) -> None:
        row = {"run_id": self._run_id, **values}
        self._tables[table].append({column.name: row[column.name] for column in TABLES[table].columns})

    def _add_metrics(self) -> None:
        for key, (name, protocol) in sorted(self._metrics.items(), key=lambda item: (item[1][0], item[0])):
            identity = self._store.metric_identity(key)
            self._add("metrics", metric_key=key, name=name, protocol=protocol, identity=identity)

    def _add_cell(self, variant: VariantResults, benchmark: str) -> None:
        cell = {"variant": variant.name, "benchmark": benchmark}
        key = self._run.benchmarks[benchmark].image_key(variant.described)
        for image in variant.recorded[benchmark].values():
            place = {"sample_index": image.index, "image_key": key, "produced_by": image.made_by}
            row = {**asdict(image), **place, **cell}
            self._add("images", **row)
            if image.seconds is not None:
                self._add("timings", **row)
        for metric, key in sorted(variant.metric_keys[benchmark].items()):
            for one in variant.samples_of(benchmark):
                score = one.scores.get(metric)
                if score is not None:
                    self._add(
                        "scores", **cell, prompt_id=one.prompt.id, sample_index=one.index, metric=metric,
                        metric_key=key, protocol=self._metrics[key][1], **asdict(score),
                    )  # fmt: skip

    def _add_summaries(self) -> None:
        for row in self._store.rows(
            "SELECT * FROM summaries WHERE run_id = ? ORDER BY position, variant, benchmark, metric, key",
            self._run_id,
        ):
            flags = {name: bool(row[name]) for name in ("higher_is_better", "complete")}
            self._add("summaries", **{**row, **flags})

    def _add_sessions(self) -> None:
        for row in self._store.sessions(self._run_id):
            self._add("sessions", **row)
        for row in self._store.session_events(self._run_id):
            self._add("events", **row)


def export_runs(
    runs: Sequence[str] | None, output: Path | None, to: Path, format_: Format, *, formulas: bool = True
) -> tuple[dict[str, int], dict[str, str]]:
    """Write these runs (None: all) of the store in `output` to `to` as `write_export`; return the number of rows by table.

    The second value says why runs were left out: of all runs, those that are damaged. `output` None stands for the folder that
    the run directories lie in. Raises `UsageError` for an unknown run, for runs of several output folders, for a damaged one
    that was named, and for a folder that holds anything but an earlier export.
    """
    found = [locate_run(run, output) for run in runs or ()]
    folders = list(dict.fromkeys(folder for _, folder in found)) or [output or DEFAULT_OUTPUT]
    if len({folder.resolve() for folder in folders}) > 1:
        raise UsageError(f"the runs lie in {' and '.join(map(str, folders))}: export them one by one")
    output = folders[0]
    with open_store(output) as store:
        named = dict.fromkeys(files.directory.resolve().name for files, _ in found)
        run_ids = store.run_ids() if runs is None else list(named)
        if not run_ids:
            raise UsageError(f"--output {output}: the store has no runs")
        damaged: dict[str, str] = {}
        tables = collect_runs(store, run_ids, damaged if runs is None else None)
    if len(damaged) == len(run_ids):
        raise UsageError(f"--output {output}: no run can be exported: {left_out(damaged)}")
    return write_export(tables, to, format_, created=now(), formulas=formulas), damaged
