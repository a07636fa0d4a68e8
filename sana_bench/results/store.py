"""The result store: one SQLite file per output folder with every image, score, summary and timing.

Readers may open it at any time; a writer holds the output's lock for as long as it works. Each method that
writes is one transaction and durable when it returns.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, fields
from typing import Any

from sana_bench.core.errors import BenchError
from sana_bench.core.fingerprint import FileKey, canonical_json
from sana_bench.results.database import STORE_NAME, Database, disk_errors, writer_lock
from sana_bench.results.schema import Chunk, FeatureRow, ImageRow, Look, ScoreRecord, SummaryRecord
from sana_models.files import parse_json

__all__ = ["STORE_NAME", "Store", "disk_errors", "writer_lock"]


_IMAGES = (
    "SELECT prompt_id, sample_index, prompt_sha256, status, path, sha256, length, seconds, batch_size, device, "
    "error, search, worker, run_id, created FROM images"
)


class Store(Database):
    """The tables of one output folder."""

    def put_run(
        self, run_id: str, suite: str, tier: str, fingerprint: str, directory: str, created: str
    ) -> None:
        """Register a run unless it is known."""
        with self.transaction() as connection:
            connection.execute(
                "INSERT INTO runs (run_id, suite, tier, fingerprint, directory, created, provenance) "
                "VALUES (?, ?, ?, ?, ?, ?, '{}') ON CONFLICT DO NOTHING",
                (run_id, suite, tier, fingerprint, directory, created),
            )

    def set_provenance(self, run_id: str, provenance: dict[str, Any]) -> None:
        """Replace the stored provenance of a run."""
        with self.transaction() as connection:
            connection.execute(
                "UPDATE runs SET provenance = ? WHERE run_id = ?", (json.dumps(provenance), run_id)
            )

    def run(self, run_id: str) -> dict[str, Any] | None:
        """Return the row of a run, provenance decoded; None when unknown.

        `origin` is None for a run that was made here and says where an imported one came from.
        """
        found = self.rows(
            "SELECT suite, tier, fingerprint, directory, created, origin, provenance FROM runs "
            "WHERE run_id = ?",
            run_id,
        )
        return {**found[0], "provenance": parse_json(found[0]["provenance"])} if found else None

    def run_ids(self) -> list[str]:
        """Return the names of all runs, oldest first."""
        return [row["run_id"] for row in self.rows("SELECT run_id FROM runs ORDER BY created, run_id")]

    def start_session(self, run_id: str, started: str, command: str) -> int:
        """Record that a command starts to work on a run; return its number."""
        with self.transaction() as connection:
            cursor = connection.execute(
                "INSERT INTO sessions (run_id, started, command, state) VALUES (?, ?, ?, 'running')",
                (run_id, started, command),
            )
        if cursor.lastrowid is None:
            raise BenchError("the store gave no number to a new session")
        return cursor.lastrowid

    def finish_session(self, session_id: int, finished: str, state: str) -> None:
        """Record how a session ended: done, incomplete, interrupted or failed."""
        with self.transaction() as connection:
            connection.execute(
                "UPDATE sessions SET finished = ?, state = ? WHERE session_id = ?",
                (finished, state, session_id),
            )

    def sessions(self, run_id: str) -> list[dict[str, Any]]:
        """Return the sessions of a run, oldest first."""
        return self.rows("SELECT * FROM sessions WHERE run_id = ? ORDER BY session_id", run_id)

    def add_event(self, session_id: int, created: str, kind: str, details: dict[str, Any]) -> None:
        """Record something a reader of the results should know, such as a halved batch."""
        with self.transaction() as connection:
            connection.execute(
                "INSERT INTO events VALUES (?, ?, ?, ?)", (session_id, created, kind, canonical_json(details))
            )

    def events(self, run_id: str) -> list[dict[str, Any]]:
        """Return the events of a run, oldest first."""
        found = self.session_events(run_id)
        return [{"created": row["created"], "kind": row["kind"], **row["details"]} for row in found]

    def session_events(self, run_id: str) -> list[dict[str, Any]]:
        """Return the events of a run with the number of their session, oldest first."""
        found = self.rows(
            "SELECT e.session_id, e.created, e.kind, e.details FROM events e JOIN sessions s "
            "USING (session_id) WHERE s.run_id = ? ORDER BY e.rowid",
            run_id,
        )
        return [{**row, "details": parse_json(row["details"])} for row in found]

    def images(self, image_key: str) -> dict[tuple[str, int], ImageRow]:
        """Return every recorded image of `image_key` by (prompt id, sample index)."""
        rows = self._connection.execute(f"{_IMAGES} WHERE image_key = ?", (image_key,))
        return {(row[0], row[1]): _image_row(row) for row in rows}

    def image(self, image_key: str, prompt_id: str, index: int) -> ImageRow | None:
        """Return one recorded image of `image_key`; None where there is none."""
        row = self._connection.execute(
            f"{_IMAGES} WHERE image_key = ? AND prompt_id = ? AND sample_index = ?",
            (image_key, prompt_id, index),
        ).fetchone()
        return None if row is None else _image_row(row)

    def put_images(
        self, image_key: str, run_id: str, rows: Sequence[ImageRow], created: str, session_id: int
    ) -> None:
        """Record finished or failed images and count them in the session, in one transaction."""
        failed = sum(row.status == "failed" for row in rows)
        with self.transaction() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO images (image_key, prompt_id, sample_index, prompt_sha256, status, path, "
                "sha256, length, seconds, batch_size, device, error, search, run_id, created, worker) "
                f"VALUES ({', '.join('?' * 16)})",
                [(image_key, *_image_values(row), run_id, created, row.worker) for row in rows],
            )
            connection.execute(
                "UPDATE sessions SET images_generated = images_generated + ?, "
                "images_failed = images_failed + ? WHERE session_id = ?",
                (len(rows) - failed, failed, session_id),
            )

    def count_reused(self, session_id: int, count: int) -> None:
        """Record how many images were there already when a session started."""
        with self.transaction() as connection:
            connection.execute(
                "UPDATE sessions SET images_reused = ? WHERE session_id = ?", (count, session_id)
            )

    def put_metric(self, metric_key: str, name: str, protocol: str, identity: dict[str, Any]) -> None:
        """Register what a metric key stands for."""
        with self.transaction() as connection:
            connection.execute(
                "INSERT INTO metrics VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (metric_key, name, protocol, canonical_json(identity)),
            )

    def metric_identity(self, metric_key: str) -> dict[str, Any]:
        """Return the identity that a metric key stands for; empty when unknown."""
        row = self._connection.execute(
            "SELECT identity FROM metrics WHERE metric_key = ?", (metric_key,)
        ).fetchone()
        return {} if row is None else dict(parse_json(row[0]))

    def protocols(self) -> dict[str, tuple[str, str]]:
        """Return name and protocol of every metric by its key."""
        rows = self._connection.execute("SELECT metric_key, name, protocol FROM metrics")
        return {key: (name, protocol) for key, name, protocol in rows}

    def scores(self, metric_key: str, image_sha256s: Iterable[str]) -> dict[tuple[str, str], ScoreRecord]:
        """Return the stored scores of these images by (image sha256, prompt sha256)."""
        found = {}
        for row in self.select_in(
            "SELECT image_sha256, prompt_sha256, value, details, worker FROM scores "
            "WHERE metric_key = ? AND image_sha256 IN",
            metric_key,
            image_sha256s,
        ):
            found[(row[0], row[1])] = ScoreRecord(row[0], row[1], row[2], parse_json(row[3]), row[4])
        return found

    def put_scores(self, metric_key: str, rows: Sequence[ScoreRecord], session_id: int) -> None:
        """Record scores and count them in the session, in one transaction."""
        with self.transaction() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (
                        *(metric_key, row.image_sha256, row.prompt_sha256, row.value),
                        *(canonical_json(row.details), row.worker),
                    )
                    for row in rows
                ],
            )
            connection.execute(
                "UPDATE sessions SET scores_computed = scores_computed + ? WHERE session_id = ?",
                (len(rows), session_id),
            )

    def put_worker(self, worker: str, description: Mapping[str, Any]) -> None:
        """Register what the key of a worker stands for: node, device and versions."""
        with self.transaction() as connection:
            connection.execute(
                "INSERT INTO workers VALUES (?, ?) ON CONFLICT DO NOTHING",
                (worker, canonical_json(dict(description))),
            )

    def workers(self) -> dict[str, dict[str, Any]]:
        """Return what is known of every worker, by its key."""
        rows = self._connection.execute("SELECT worker, description FROM workers")
        return {key: parse_json(text) for key, text in rows}

    def scores_by_worker(self, image_sha256s: Iterable[str]) -> Counter[str]:
        """Return how many scores of these images each worker made."""
        found = self.select_in(
            "SELECT worker FROM scores WHERE worker != ? AND image_sha256 IN", "", image_sha256s
        )
        return Counter(row[0] for row in found)

    def features(self, feature_key: str, image_sha256s: Iterable[str]) -> dict[str, FeatureRow]:
        """Return where the stored feature vectors of these images are, by image sha256."""
        rows = self.select_in(
            "SELECT image_sha256, path, row FROM features WHERE feature_key = ? AND image_sha256 IN",
            feature_key,
            image_sha256s,
        )
        return {sha256: FeatureRow(path, row) for sha256, path, row in rows}

    def put_features(
        self, feature_key: str, path: str, chunk_sha256: str, image_sha256s: Sequence[str]
    ) -> None:
        """Record a chunk file whose row i is the feature vector of `image_sha256s[i]`."""
        with self.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO chunks VALUES (?, ?)", (path, chunk_sha256))
            connection.executemany(
                "INSERT OR REPLACE INTO features VALUES (?, ?, ?, ?)",
                [(feature_key, sha256, path, row) for row, sha256 in enumerate(image_sha256s)],
            )

    def chunk_sha256(self, path: str) -> str | None:
        """Return the recorded SHA-256 of a chunk file."""
        row = self._connection.execute("SELECT sha256 FROM chunks WHERE path = ?", (path,)).fetchone()
        return None if row is None else str(row[0])

    def chunks_of(self, image_sha256s: Iterable[str]) -> list[Chunk]:
        """Return the chunk files that hold feature vectors of these images, with their rows."""
        wanted = set(image_sha256s)
        found: dict[tuple[str, str, str], list[tuple[str, int]]] = {}
        for path, sha256, key, image, row in self._connection.execute(
            "SELECT path, sha256, feature_key, image_sha256, row FROM features JOIN chunks USING (path) "
            "ORDER BY path, row"
        ):
            if image in wanted:
                found.setdefault((path, sha256, key), []).append((image, row))
        return [Chunk(*names, tuple(rows)) for names, rows in found.items()]

    def forget_chunk(self, path: str) -> None:
        """Drop every feature of a chunk file that is missing or damaged."""
        with self.transaction() as connection:
            connection.execute("DELETE FROM features WHERE path = ?", (path,))
            connection.execute("DELETE FROM chunks WHERE path = ?", (path,))

    def put_summaries(self, run_id: str, variants: Iterable[str], rows: Sequence[SummaryRecord]) -> None:
        """Replace all summaries of these variants in a run."""
        with self.transaction() as connection:
            connection.executemany(
                "DELETE FROM summaries WHERE run_id = ? AND variant = ?",
                [(run_id, variant) for variant in variants],
            )
            connection.executemany(
                f"INSERT INTO summaries VALUES ({', '.join('?' * 19)})",
                [(run_id, position, *astuple(row)) for position, row in enumerate(rows)],
            )

    def summaries(self, run_id: str) -> list[SummaryRecord]:
        """Return the summaries of a run in the order they were given."""
        names = [field.name for field in fields(SummaryRecord)]
        rows = self._connection.execute(
            f"SELECT {', '.join(names)} FROM summaries WHERE run_id = ? ORDER BY position", (run_id,)
        )
        found = [dict(zip(names, row, strict=True)) for row in rows]
        flags = ("higher_is_better", "complete")
        return [SummaryRecord(**{**row, **{flag: bool(row[flag]) for flag in flags}}) for row in found]

    def put_look(self, run_id: str, look: Look) -> None:
        """Record a look, and forget later ones of its sequence: they are of images that have changed since."""
        row = {**vars(look), "tasks": canonical_json(look.tasks)}
        with self.transaction() as connection:
            connection.execute(
                "DELETE FROM sequences WHERE run_id = ? AND sequence_key = ? AND look >= ?",
                (run_id, look.sequence_key, look.look),
            )
            connection.execute(
                f"INSERT INTO sequences VALUES ({', '.join('?' * 19)})", (run_id, *row.values())
            )

    def looks(self, run_id: str) -> list[Look]:
        """Return the looks of a run's sequences, each sequence from its first look to its last."""
        names = ", ".join(field.name for field in fields(Look))
        rows = self.rows(
            f"SELECT {names} FROM sequences WHERE run_id = ? ORDER BY benchmark, metric, sequence_key, look",
            run_id,
        )
        return [Look(**{**row, "tasks": parse_json(row["tasks"])}) for row in rows]

    def variant_names(self) -> list[str]:
        """Every variant with a summary, in the order in which runs first had them."""
        rows = self.rows(
            "SELECT variant FROM summaries JOIN runs USING (run_id) GROUP BY run_id, variant "
            "ORDER BY created, runs.rowid, MIN(position), variant"
        )
        return list(dict.fromkeys(row["variant"] for row in rows))

    def file_hashes(self) -> dict[FileKey, str]:
        """Return every remembered file hash."""
        rows = self._connection.execute(
            "SELECT path, size, mtime_ns, ctime_ns, inode, sha256 FROM file_hashes"
        )
        return {FileKey(*row[:-1]): row[-1] for row in rows}

    def put_file_hashes(self, hashes: Mapping[FileKey, str]) -> None:
        """Remember file hashes, each in place of earlier ones of its path."""
        with self.transaction() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO file_hashes VALUES (?, ?, ?, ?, ?, ?)",
                [(*key, value) for key, value in hashes.items()],
            )


def _image_values(row: ImageRow) -> tuple[Any, ...]:
    return *astuple(row)[:11], None if row.search is None else canonical_json(row.search)


def _image_row(values: Sequence[Any]) -> ImageRow:
    search = parse_json(values[11]) if values[11] else None
    return ImageRow(*(*values[:11], search, *values[12:]))
