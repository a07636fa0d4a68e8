"""`sana-bench history`: numbers of comparable runs in order of time."""

from pathlib import Path
from typing import Annotated

import typer

from sana_bench.core.errors import UsageError
from sana_bench.core.progress import say

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: sana-bench history nightly-1 nightly-2 --metric geneval")(history)


def history(
    outputs: Annotated[
        list[Path] | None, typer.Argument(metavar="DIR", help="Output folders; default: results.")
    ] = None,
    variant: Annotated[str | None, typer.Option(metavar="NAME", help="Only this variant.")] = None,
    metric: Annotated[str | None, typer.Option(metavar="NAME", help="Only this metric.")] = None,
    level: Annotated[
        float, typer.Option(metavar="P", help="Chance of reporting a step where there is none.")
    ] = 0.01,
) -> None:
    """Show comparable runs over time, and where levels changed."""
    if not 0 < level < 1:
        raise UsageError(f"--level {level:g}: must lie between 0 and 1")
    from sana_bench.analysis.history import collect_histories, history_lines

    found = collect_histories(outputs or [Path("results")], variant=variant, metric=metric, level=level)
    say("\n".join(history_lines(found)) or "no complete results")
