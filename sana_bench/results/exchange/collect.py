"""Runs of a result store as the flat tables of an export."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sana_bench.core.errors import UsageError
from sana_bench.core.fingerprint import image_key
from sana_bench.core.provenance import now
from sana_bench.core.samples import Prompt
from sana_bench.results.exchange.export import Format, write_export
from sana_bench.results.exchange.tables import TABLES, Tables
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
        run = store.run(run_id)
        if run is None:
            raise UsageError(f"{run_id}: the store in {store.output} does not know this run")
        self._store = store
        self._run_id = run_id
        self._run = run
        self._tables = tables
        self._files = RunFiles(store.output / run["directory"])
        if not self._files.suite.is_file():
            raise UsageError(f"{self._files.directory}: the run directory has lost {self._files.suite.name}")
        self._resolved = self._files.read_suite()

    def collect(self) -> None:
        prompts = {b["name"]: self._files.read_prompts(b["name"]) for b in self._resolved["benchmarks"]}
        self._add_run()
        for benchmark, by_id in prompts.items():
            for prompt in by_id.values():
                self._add("prompts", benchmark=benchmark, prompt_id=prompt.id, text=prompt.text, tag=prompt.tag,
                          metadata=prompt.metadata)  # fmt: skip
        metrics = self._add_metrics()
        for variant in self._resolved["variants"]:
            self._add_variant(variant)
            for benchmark in self._resolved["benchmarks"]:
                self._add_cell(variant, benchmark, prompts[benchmark["name"]], metrics)
        self._add_summaries()
        self._add_sessions()

    def _add(self, table: str, **values: Any) -> None:
        row = {"run_id": self._run_id, **values}
        self._tables[table].append({column.name: row[column.name] for column in TABLES[table].columns})

    def _add_run(self) -> None:
        self._add("runs", **self._run, suite_resolved=self._resolved)
        self._add("provenance", document=self._run["provenance"])

    def _add_variant(self, variant: dict[str, Any]) -> None:
        names = {"variant": variant["name"], "description": variant.get("description", "")}
        self._add("variants", **{**variant, **names})

    def _add_metrics(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        """Return the metrics of this run by (variant, benchmark)."""
        found = self._store.rows(
            "SELECT DISTINCT s.variant, s.benchmark, m.metric_key, m.name, m.protocol, m.identity "
            "FROM summaries s JOIN metrics m USING (metric_key) WHERE s.run_id = ? ORDER BY m.name, m.metric_key",
            self._run_id,
        )
        by_cell: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in found:
            by_cell.setdefault((row["variant"], row["benchmark"]), []).append(row)
        for row in {row["metric_key"]: row for row in found}.values():
            self._add("metrics", **{**row, "identity": self._store.metric_identity(row["metric_key"])})
        return by_cell

    def _add_cell(
        self,
        variant: dict[str, Any],
        benchmark: dict[str, Any],
        prompts: dict[str, Prompt],
        metrics: dict[tuple[str, str], list[dict[str, Any]]],
    ) -> None:
        cell = {"variant": variant["name"], "benchmark": benchmark["name"]}
        rows = self._store.rows(
            "SELECT prompt_id, sample_index, image_key, prompt_sha256, status, path, sha256, length, seconds, "
            "batch_size, device, error, search, created, run_id AS produced_by FROM images "
            "WHERE image_key = ? AND sample_index < ? ORDER BY prompt_id, sample_index",
            image_key(variant["fingerprint"], benchmark["name"]),
            benchmark["images_per_prompt"],
        )
        rows = [row for row in rows if _is_of(row, prompts.get(row["prompt_id"]))]
        for row in rows:
            row["search"] = json.loads(row["search"]) if row["search"] else None
            self._add("images", **{**row, **cell})
            if row["seconds"] is not None:
                self._add("timings", **{**row, **cell})
        judged = {prompt.id: prompt.judged_sha256 for prompt in prompts.values()}
        for metric in metrics.get((cell["variant"], cell["benchmark"]), []):
            self._add_scores(cell, metric, rows, judged)

    def _add_scores(
        self,
        cell: dict[str, str],
        metric: dict[str, Any],
        images: list[dict[str, Any]],
        judged: dict[str, str],
    ) -> None:
        made = [row for row in images if row["status"] == "ok"]
        scores = self._store.scores(metric["metric_key"], (row["sha256"] for row in made))
        for row in made:
            score = scores.get((row["sha256"], judged[row["prompt_id"]]))
            if score is None:
                continue
            self._add(
                "scores", **cell, prompt_id=row["prompt_id"], sample_index=row["sample_index"],
                metric=metric["name"], metric_key=metric["metric_key"], protocol=metric["protocol"],
                image_sha256=score.image_sha256, prompt_sha256=score.prompt_sha256, value=score.value,
                details=score.details,
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


def _is_of(row: dict[str, Any], prompt: Prompt | None) -> bool:
    """Say whether an image belongs to the prompt set of the run, not to an older text of the same id."""
    return prompt is not None and row["prompt_sha256"] == prompt.sha256


def export_runs(
    runs: Sequence[str] | None, output: Path | None, to: Path, format_: Format
) -> tuple[dict[str, int], dict[str, str]]:
    """Write these runs (None: all) of the store in `output` to `to`; return the number of rows by table.

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
    return write_export(tables, to, format_, created=now()), damaged
