"""`sana-bench fetch`: weights and data of the full tier, from their public sources or a copy of them."""

from typing import Annotated

import typer

from sana_bench.cli.options import DataDirOption
from sana_bench.core.progress import say

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("fetch", epilog="Example: sana-bench fetch geneval --data-dir /data/sana-bench")(_fetch)


def _fetch(
    what: Annotated[
        str, typer.Argument(metavar="SUITE|VARIANT", help="Name or file of a suite or a variant.")
    ],
    data_dir: DataDirOption = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="URL|DIR",
            help="Copy from this data folder instead of downloading from the public sources.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only list what is needed, its size and licence, and what is here."),
    ] = False,
) -> None:
    """Download and verify what the full tier needs.

    The same command again goes on where it stopped.
    """
    from sana_bench.assets.fetch import MICRO, fetch
    from sana_bench.assets.locate import choose_data_root

    if data_dir is not None:
        choose_data_root(data_dir)
    if not dry_run:
        fetch(what, print, from_)
        return
    from sana_bench.assets.needs import needs_named
    from sana_bench.runner.asset_overview import item_lines, items_of

    needs = needs_named(what)
    lines = [MICRO] if needs is None else item_lines(items_of(needs), f"what {what} reads on the full tier:")
    say("\n".join(lines))
