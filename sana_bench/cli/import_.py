"""`sana-bench import`: another machine's runs into this result store."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("import", epilog="Example: sana-bench import /mnt/other/results")(_import)


def _import(
    source: Annotated[
        Path,
        typer.Argument(metavar="PATH", help="Results folder, one of its run directories, or an export."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of runs and of the result store.")
    ] = Path("results"),
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> int:
    """Bring in runs of another store; what is here already stays as it is."""
    del debug
    from sana_bench.results.exchange.import_ import import_runs

    count = import_runs(source, output, lambda imported: print(imported.line))
    print(f"import: {count} run{'' if count == 1 else 's'} from {source}")
    return 0
