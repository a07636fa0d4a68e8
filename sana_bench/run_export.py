"""From a result store to a folder of flat files."""

from collections.abc import Sequence
from pathlib import Path

from sana_bench.errors import UsageError
from sana_bench.provenance import now
from sana_bench.results.export import Format, write_export
from sana_bench.run_files import find_run, open_store
from sana_bench.run_tables import collect_runs

__all__ = ["export_runs"]


def export_runs(runs: Sequence[str] | None, output: Path, to: Path, format_: Format) -> dict[str, int]:
    """Write these runs (None: all) of the store in `output` to `to`; return the number of rows by table.

    Raises `UsageError` for an unknown run and for a folder that holds anything but an earlier export.
    """
    with open_store(output) as store:
        if runs is None:
            run_ids = store.run_ids()
        else:
            found = (find_run(run, output).directory.resolve().name for run in runs)
            run_ids = list(dict.fromkeys(found))
        if not run_ids:
            raise UsageError(f"--output {output}: the store has no runs")
        tables = collect_runs(store, run_ids)
    return write_export(tables, to, format_, created=now())
