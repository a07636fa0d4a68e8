"""Adding exported rows to a store: what is new, what is there already, and what contradicts it.

`plan_merge` only reads, so that a contradiction is found before a file is copied; `apply_merge` writes a run in
one transaction. Rows that say the same as the store change nothing, whoever made them first.
"""

import json
from collections.abc import Sized
from dataclasses import dataclass, field, fields
from typing import Any

from sana_bench.core.errors import IncomparableError, UsageError
from sana_bench.core.fingerprint import canonical_json, fingerprint
from sana_bench.results.schema import Chunk, Look
from sana_bench.results.store import Store

__all__ = ["RunMerge", "add_features", "apply_merge", "plan_merge"]

_Row = dict[str, Any]


@dataclass
class RunMerge:
    """What one run adds to a store. Images are listed with their timing columns."""

    run: _Row
    is_new: bool
    provenance: _Row | None = None
    workers: _Row = field(default_factory=dict)
    metrics: list[_Row] = field(default_factory=list)
    images: list[_Row] = field(default_factory=list)
    scores: list[_Row] = field(default_factory=list)
    summaries: list[_Row] = field(default_factory=list)
    sequences: list[_Row] = field(default_factory=list)
    sessions: list[tuple[int | None, _Row, list[_Row]]] = field(default_factory=list)
    paths: list[_Row] = field(default_factory=list)

    @property
    def run_id(self) -> str:
        """The run's name."""
        return str(self.run["run_id"])

    @property
    def n_rows(self) -> int:
        """Rows that the store lacks or has less of."""
        parts: tuple[Sized, ...] = (
            self.metrics,
            self.images,
            self.scores,
            self.summaries,
            self.sequences,
            self.sessions,
            self.paths,
        )
        return self.is_new + (self.provenance is not None) + sum(len(part) for part in parts)


def plan_merge(store: Store, tables: dict[str, list[_Row]]) -> RunMerge:
    """Compare the tables of one run with the store.

    An `ok` image replaces a failed one and a summary of more images one of fewer; nothing else is replaced.
    Raises `IncomparableError` naming the first row that contradicts the store.
    """
    run = tables["runs"][0]
    known = store.run(run["run_id"])
    merge = RunMerge(run, is_new=known is None)
    if known is not None:
        for name in ("suite", "tier", "fingerprint"):
            if known[name] != run[name]:
                raise _conflict(run, f"{name} is {known[name]} here and {run[name]} there")
    document: _Row = next((row["document"] for row in tables["provenance"]), {})
    imported = known is None or known["origin"] is not None
    if imported and document and (known is None or known["provenance"] != document):
        merge.provenance = document
    counts = ("n_images", "n_scores")  # of that run, which the provenance adds
    merge.workers = {
        key: {name: value for name, value in worker.items() if name not in counts}
        for key, worker in document.get("workers", {}).items()
    }
    merge.metrics = _new_metrics(store, run, tables["metrics"])
    merge.images = _new_images(store, run, tables)
    merge.scores = _new_scores(store, run, tables["scores"])
    merge.summaries = _new_summaries(store, run, tables["summaries"])
    merge.sequences = _new_looks(store, run, tables["sequences"])
    merge.sessions = _new_sessions(store, run, tables)
    return merge


def apply_merge(
    store: Store, merge: RunMerge, *, directory: str, source: str, created: str, files: int
) -> None:
    """Write a planned merge in one transaction; `files` were copied for it from `source`."""
    run = merge.run
    with store.transaction() as connection:
        if merge.is_new:
            connection.execute(
                "INSERT INTO runs (run_id, suite, tier, fingerprint, directory, created, provenance, origin) "
                "VALUES (?, ?, ?, ?, ?, ?, '{}', ?)",
                (*(run[name] for name in ("run_id", "suite", "tier", "fingerprint")), directory,
                 run["created"], run["origin"] or source),
            )  # fmt: skip
        if merge.provenance is not None:
            connection.execute(
                "UPDATE runs SET provenance = ? WHERE run_id = ?",
                (json.dumps(merge.provenance), merge.run_id),
            )
        connection.executemany(
            "INSERT INTO workers VALUES (?, ?) ON CONFLICT DO NOTHING",
            [(key, canonical_json(description)) for key, description in merge.workers.items()],
        )
        _insert(connection, "metrics", merge.metrics, ("metric_key", "name", "protocol", "identity"))
        _insert(connection, "images", merge.images, _IMAGE_COLUMNS)
        connection.executemany(
            "UPDATE images SET path = :path WHERE image_key = :image_key AND prompt_id = :prompt_id "
            "AND sample_index = :sample_index",
            merge.paths,
        )
        _insert(connection, "scores", merge.scores, _SCORE_COLUMNS)
        _insert(connection, "summaries", merge.summaries, _SUMMARY_COLUMNS)
        _insert(connection, "sequences", merge.sequences, ("run_id", *_LOOK_COLUMNS))
        for number, session, events in merge.sessions:
            _write_session(connection, number, session, events)
        connection.execute(
            "INSERT INTO imports (run_id, source, created, rows_added, files_copied) VALUES (?, ?, ?, ?, ?)",
            (merge.run_id, source, created, merge.n_rows, files),
        )


def add_features(store: Store, chunk: Chunk) -> None:
    """Record the vectors of a chunk file for images that have none of this kind yet."""
    with store.transaction() as connection:
        connection.execute("INSERT OR IGNORE INTO chunks VALUES (?, ?)", (chunk.path, chunk.sha256))
        connection.executemany(
            "INSERT OR IGNORE INTO features VALUES (?, ?, ?, ?)",
            [(chunk.feature_key, image, chunk.path, row) for image, row in chunk.rows],
        )


_IMAGE_COLUMNS = (
    "image_key", "prompt_id", "sample_index", "prompt_sha256", "status", "path", "sha256", "length", "seconds",
    "batch_size", "device", "error", "search", "run_id", "created", "worker",
)  # fmt: skip
_SCORE_COLUMNS = ("metric_key", "image_sha256", "prompt_sha256", "value", "details", "worker")
_SUMMARY_COLUMNS = (
    "run_id", "position", "variant", "benchmark", "metric", "key", "metric_key", "image_key", "protocol",
    "value", "low", "high", "n_samples", "n_expected", "n_prompts", "unit", "higher_is_better", "note",
    "complete",
)  # fmt: skip
_LOOK_COLUMNS = tuple(field.name for field in fields(Look))
_SESSION_COLUMNS = (
    "run_id", "started", "command", "state", "finished", "images_generated", "images_reused", "images_failed",
    "scores_computed",
)  # fmt: skip


def _insert(connection: Any, table: str, rows: list[_Row], columns: tuple[str, ...]) -> None:
    values = ", ".join(f":{name}" for name in columns)
    plain = [
        {
            name: canonical_json(row[name]) if isinstance(row[name], dict | list) else row[name]
            for name in columns
        }
        for row in rows
    ]
    connection.executemany(f"INSERT OR REPLACE INTO {table} ({', '.join(columns)}) VALUES ({values})", plain)


def _write_session(connection: Any, number: int | None, session: _Row, events: list[_Row]) -> None:
    if number is not None:
        connection.execute("DELETE FROM events WHERE session_id = ?", (number,))
        assignments = ", ".join(f"{name} = :{name}" for name in _SESSION_COLUMNS)
        connection.execute(
            f"UPDATE sessions SET {assignments} WHERE session_id = :number", {**session, "number": number}
        )
    else:
        values = ", ".join(f":{name}" for name in _SESSION_COLUMNS)
        cursor = connection.execute(
            f"INSERT INTO sessions ({', '.join(_SESSION_COLUMNS)}) VALUES ({values})", session
        )
        number = cursor.lastrowid
    connection.executemany(
        "INSERT INTO events VALUES (?, ?, ?, ?)",
        [(number, event["created"], event["kind"], canonical_json(event["details"])) for event in events],
    )


def _conflict(run: _Row, what: str) -> IncomparableError:
    return IncomparableError(f"run {run['run_id']} contradicts the store: {what}; nothing of it was imported")


def _new_metrics(store: Store, run: _Row, rows: list[_Row]) -> list[_Row]:
    for row in rows:
        described = {name: row[name] for name in ("name", "protocol", "identity")}
        if fingerprint(described) != row["metric_key"]:
            raise UsageError(f"run {run['run_id']}: the metric {row['name']} does not match its key")
    known = {row["metric_key"] for row in store.rows("SELECT metric_key FROM metrics")}
    return [row for row in rows if row["metric_key"] not in known]


def _new_images(store: Store, run: _Row, tables: dict[str, list[_Row]]) -> list[_Row]:
    names = ("variant", "benchmark", "prompt_id", "sample_index")
    timings = {tuple(row[name] for name in names): row for row in tables["timings"]}
    untimed = {"seconds": None, "batch_size": None, "device": None, "search": None}
    known = {key: store.images(key) for key in {row["image_key"] for row in tables["images"]}}
    new = []
    for row in tables["images"]:
        timed = timings.get(tuple(row[name] for name in names), untimed)
        have = known[row["image_key"]].get((row["prompt_id"], row["sample_index"]))
        label = f"image {row['prompt_id']}/{row['sample_index']:05d} of {row['variant']}"
        if have is not None and have.prompt_sha256 != row["prompt_sha256"]:
            raise _conflict(run, f"{label} was made from a different prompt")
        if have is not None and have.status == row["status"] == "ok" and have.sha256 != row["sha256"]:
            raise _conflict(run, f"{label} is a different image there")
        if have is None or (have.status == "failed" and row["status"] == "ok"):
            new.append({**row, **{name: timed[name] for name in untimed}})
    return new


def _new_scores(store: Store, run: _Row, rows: list[_Row]) -> list[_Row]:
    known = {
        key: store.scores(key, [row["image_sha256"] for row in rows if row["metric_key"] == key])
        for key in {row["metric_key"] for row in rows}
    }
    new: dict[tuple[str, str, str], _Row] = {}
    for row in rows:
        image, prompt = row["image_sha256"], row["prompt_sha256"]
        have = known[row["metric_key"]].get((image, prompt))
        if have is None:
            new[(row["metric_key"], image, prompt)] = row
        elif have.value != row["value"] or have.details != row["details"]:
            label = f"{row['prompt_id']}/{row['sample_index']:05d} of {row['variant']}"
            raise _conflict(
                run, f"{row['metric']} of image {label} is {have.value:g} here and {row['value']:g} there"
            )
    return list(new.values())


def _new_summaries(store: Store, run: _Row, rows: list[_Row]) -> list[_Row]:
    names = ("variant", "benchmark", "metric", "key")
    found = store.rows("SELECT * FROM summaries WHERE run_id = ?", run["run_id"])
    known = {tuple(row[name] for name in names): row for row in found}
    new = []
    for row in rows:
        have = known.get(tuple(row[name] for name in names))
        if have is None or have["n_samples"] < row["n_samples"]:
            new.append(row)
        elif have["n_samples"] == row["n_samples"]:
            differing = [name for name in _SUMMARY_COLUMNS if name != "position" and have[name] != row[name]]
            if differing:
                label = f"{row['metric']} {row['key']} of {row['variant']}"
                name = differing[0]
                raise _conflict(run, f"{label} has the {name} {have[name]} here and {row[name]} there")
    return new


def _new_looks(store: Store, run: _Row, rows: list[_Row]) -> list[_Row]:
    known = {(look.sequence_key, look.look): vars(look) for look in store.looks(run["run_id"])}
    new = []
    for row in rows:
        have = known.get((row["sequence_key"], row["look"]))
        differing = [name for name in _LOOK_COLUMNS if have is not None and have[name] != row[name]]
        if differing:
            what = (
                f"look {row['look']} of {row['metric']} of {row['variant']} has another {differing[0]} there"
            )
            raise _conflict(run, what)
        if have is None:
            new.append(row)
    return new


def _new_sessions(
    store: Store, run: _Row, tables: dict[str, list[_Row]]
) -> list[tuple[int | None, _Row, list[_Row]]]:
    known = {(row["started"], row["command"]): row for row in store.sessions(run["run_id"])}
    new: list[tuple[int | None, _Row, list[_Row]]] = []
    for row in tables["sessions"]:
        have = known.get((row["started"], row["command"]))
        events = [event for event in tables["events"] if event["session_id"] == row["session_id"]]
        if have is None:
            new.append((None, row, events))
        elif have["finished"] is None and any(have[name] != row[name] for name in _SESSION_COLUMNS):
            new.append((have["session_id"], row, events))
    return new
