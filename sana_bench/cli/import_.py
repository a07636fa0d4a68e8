"""`sana-bench import`: another machine's runs into this result store."""

from pathlib import Path
from typing import Annotated

import typer

from sana_bench.cli.options import OutputOption
from sana_bench.core.progress import say

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("import", epilog="Example: sana-bench import /mnt/other/results")(_import)


def _import(
    source: Annotated[
        Path,
        typer.Argument(metavar="PATH", help="Results folder, one of its run directories, or an export."),
    ],
    output: OutputOption = Path("results"),
) -> None:
    """Bring in the runs of another store; what is here stays."""
    from sana_bench.results.exchange.import_ import import_runs

    count = import_runs(source, output, lambda imported: say(imported.line))
    say(f"import: {count} run{'' if count == 1 else 's'} from {source}")
