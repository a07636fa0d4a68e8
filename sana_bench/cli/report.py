"""`sana-bench report`: the report of a run, written again from the result store."""

from pathlib import Path

import typer

from sana_bench.cli.options import OutputOption, RunArgument
from sana_bench.core.progress import say

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: sana-bench report latest")(report)


def report(run: RunArgument, output: OutputOption = Path("results")) -> None:
    """Write the report of a run again from the store."""
    from sana_bench.results.run_folder import find_run

    directory = find_run(run, output)
    from sana_bench.analysis.report import regenerate_report

    terminal, paths = regenerate_report(directory)
    say(terminal)
    say(f"report: {paths.html}")
