"""`sana-bench leaderboard`: every variant of a result store, ranked as far as the evidence goes."""

from pathlib import Path
from typing import Annotated

import typer

from sana_bench.cli.options import OutputOption, choice
from sana_bench.core.progress import say
from sana_bench.core.tiers import TIERS

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: sana-bench leaderboard --to site --tier micro")(leaderboard)


def leaderboard(
    output: OutputOption = Path("results"),
    to: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to write; default: DIR/leaderboard.")
    ] = None,
    tier: Annotated[str | None, choice("--tier", *TIERS, help="Only this tier.")] = None,
    benchmark: Annotated[str | None, typer.Option(metavar="NAME", help="Only this benchmark.")] = None,
) -> None:
    """Rank all runs: write HTML, Markdown, CSV and LaTeX."""
    from sana_bench.analysis import leaderboard as ranking

    folder = to if to is not None else output / "leaderboard"
    board = ranking.leaderboard(output, to=folder, tier=tier, benchmark=benchmark)
    for table in board.tables:
        names = "variant" if len(table.entries) == 1 else "variants"
        say(f"{table.benchmark}, {table.tier} tier: {len(table.entries)} {names}")
    for line in board.not_ranked_lines:
        say(line)
    say(f"leaderboard: {folder / 'leaderboard.html'}")
