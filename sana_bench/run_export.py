"""From a result store to a folder of flat files."""

from collections.abc import Sequence
from pathlib import Path

from sana_bench.errors import UsageError
from sana_bench.provenance import now
from sana_bench.results.export import Format, write_export
from sana_bench.run_files import DEFAULT_OUTPUT, locate_run, open_store
from sana_bench.run_tables import collect_runs

__all__ = ["export_runs"]


def export_runs(runs: Sequence[str] | None, output: Path | None, to: Path, format_: Format) -> dict[str, int]:
    """Write these runs (None: all) of the store in `output` to `to`; return the number of rows by table.

    `output` None stands for the folder that the run directories lie in. Raises `UsageError` for an unknown run, for runs of
    several output folders, and for a folder that holds anything but an earlier export.
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
        tables = collect_runs(store, run_ids)
    return write_export(tables, to, format_, created=now())
