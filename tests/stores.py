"""Stores that a test changes behind the back of the code."""

import sqlite3
from contextlib import closing
from pathlib import Path

from sana_bench.results.database import STORE_NAME
from sana_bench.results.seal import SEAL_NAME

__all__ = ["change", "rename_run"]


def change(output: Path, *statements: str) -> None:
    """Change rows of the store of an output folder, as its sender could have: without sums that would tell."""
    with closing(sqlite3.connect(output / STORE_NAME, isolation_level=None)) as connection:
        for statement in statements:
            assert connection.execute(statement).rowcount, statement
    (output / SEAL_NAME).unlink(missing_ok=True)


def rename_run(output: Path, old: str, new: str) -> None:
    """Give a run another name, in the store and as a folder."""
    change(
        output,
        f"UPDATE runs SET run_id = '{new}', directory = 'runs/{new}' WHERE run_id = '{old}'",
        *(
            f"UPDATE {table} SET run_id = '{new}' WHERE run_id = '{old}'"
            for table in ("images", "summaries", "sessions")
        ),
    )
    (output / "runs" / old).rename(output / "runs" / new)
