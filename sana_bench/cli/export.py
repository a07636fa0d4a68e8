"""`sana-bench export`: runs as Parquet, CSV or JSON files, or as folders that GenEval's and DPG-Bench's own scripts read."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from sana_bench.cli.options import RunOutputOption, choose
from sana_bench.core.errors import IncompleteError, UsageError
from sana_bench.core.progress import say

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("export", epilog="Example: sana-bench export --all --format parquet --to exported")(_export)


def _export(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN", help="Runs: latest, names or how they begin, suites, hashes, or directories."
        ),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every run of the store.")] = False,
    format_: Annotated[
        str, typer.Option("--format", metavar="parquet|csv|json", help="File format.")
    ] = "parquet",
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FOLDER", help="Folder to write; an earlier export is replaced."),
    ] = None,
    no_formulas: Annotated[
        bool,
        typer.Option(
            "--no-formulas",
            help="With csv: put ' before text that a spreadsheet would run as a formula, such as =cmd().",
        ),
    ] = False,
    geneval: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Write one run's images and verdicts as GenEval's scripts lay them out."
        ),
    ] = None,
    dpg_grids: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write one run's DPG-Bench images as SANA's 2x2 grids."),
    ] = None,
    output: RunOutputOption = None,
) -> int:
    """Write runs as flat tables.

    docs/results.md explains the columns.
    """
    if geneval is not None:
        from sana_bench.metrics.geneval.official import export_official

        return _export_folders("--geneval", export_official, runs or [], output, geneval)
    if dpg_grids is not None:
        from sana_bench.metrics.dpg.export_grids import export_grids

        return _export_folders("--dpg-grids", export_grids, runs or [], output, dpg_grids)
    from sana_bench.results.exchange.export import FORMATS

    chosen = choose("--format", format_, FORMATS)
    if no_formulas and chosen != "csv":
        raise UsageError(f"--no-formulas: {chosen} files hold none; give --format csv")
    if to is None:
        raise UsageError("export needs --to FOLDER")
    if bool(runs) == all_:
        raise UsageError("export needs the names of runs, or --all")
    from sana_bench.results.exchange.collect import export_runs, left_out

    counts, damaged = export_runs(
        None if all_ else list(runs or ()), output, to, chosen, formulas=not no_formulas
    )
    for name, count in counts.items():
        say(f"{name}: {count} rows")
    if no_formulas:
        say(
            "text that a spreadsheet would run as a formula begins with '; import does not take such an export"
        )
    say(f"export: {to}")
    if damaged:
        raise IncompleteError(left_out(damaged))
    return 0


def _export_folders(
    option: str,
    write: Callable[[str, Path | None, Path], list[Path]],
    runs: list[str],
    output: Path | None,
    to: Path,
) -> int:
    if len(runs) != 1:
        raise UsageError(f"export {option} needs the name of one run")
    for folder in write(runs[0], output, to):
        say(f"export: {folder}")
    return 0
