"""`sana-bench fetch`: weights and data of the full tier, from their public homes or a copy of them."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("fetch", epilog="Example: sana-bench fetch suites/geneval.yaml --data-dir /data/sana-bench")(
        _fetch
    )


def _fetch(
    what: Annotated[
        str, typer.Argument(metavar="SUITE|VARIANT", help="Suite or variant file, or the name of a variant.")
    ],
    data_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where evaluators and data go; default SANA_BENCH_DATA."),
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="URL|DIR", help="A copy of the data folder, instead of the public homes."
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> int:
    """Fetch and verify what the full tier needs; the same command again goes on where it stopped."""
    del debug
    from sana_bench.assets.fetch import fetch
    from sana_bench.assets.locate import choose_data_root

    if data_dir is not None:
        choose_data_root(data_dir)
    fetch(what, print, from_)
    return 0
