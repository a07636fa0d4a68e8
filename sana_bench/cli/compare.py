"""`sana-bench compare`: what differs between two variants, and whether it is more than chance."""

from pathlib import Path
from typing import Annotated

import typer

from sana_bench.cli.options import OutputOption, choice, complete_runs
from sana_bench.core.errors import IncomparableError
from sana_bench.core.progress import say

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: sana-bench compare sana-micro sana-micro-8-steps --run latest")(compare)


def compare(
    a: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help="RUN, RUN:VARIANT, baseline:NAME, a baseline's file, or with --run VARIANT.",
            autocompletion=complete_runs,
        ),
    ],
    b: Annotated[
        str,
        typer.Argument(metavar="B", help="As A; differences are B minus A.", autocompletion=complete_runs),
    ],
    run: Annotated[
        str | None,
        typer.Option(
            metavar="RUN", help="The run that holds variants A and B.", autocompletion=complete_runs
        ),
    ] = None,
    format_: Annotated[str, choice("--format", "text", "markdown", "json", help="How to print it.")] = "text",
    output: OutputOption = Path("results"),
) -> int:
    """Compare two variants: what differs by more than chance."""
    import json

    from sana_bench.analysis import runs

    found = runs.compare(a, b, run=run, output=output)
    if format_ == "json":
        say(json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
    elif format_ == "markdown":
        from sana_bench.analysis.compare_text import as_markdown

        say(as_markdown(found))
    else:
        say(found)
    return 0 if found.comparable else IncomparableError.exit_code
