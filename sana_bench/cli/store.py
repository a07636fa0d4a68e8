"""`sana-bench store`: whether the result store is whole, and a new one in place of a damaged one."""

from pathlib import Path
from typing import Annotated

import typer

from sana_bench.cli.options import OutputOption
from sana_bench.core.errors import IncompleteError, UsageError
from sana_bench.core.progress import say

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    stores = typer.Typer(help="Check or repair a result store.", rich_markup_mode=None)
    stores.command("check", epilog="Example: sana-bench store check -o results")(check)
    stores.command("repair", epilog="Example: sana-bench store repair -o results")(repair)
    app.add_typer(stores, name="store")


def check(output: OutputOption = Path("results")) -> None:
    """Say what is wrong with the result store, and what of it can be read."""
    from sana_bench.results.repair import check_store

    found = check_store(output)
    for table, count in found.readable.items():
        say(f"{table}: {count} rows can be read")
    for problem in found.problems:
        say(f"! {problem}")
    if found.problems:
        first, *others = found.problems
        more = f", and {len(others)} more" if others else ""
        raise UsageError(
            f"{output}: {first}{more}; `sana-bench store repair -o {output}` saves what can be read"
        )
    say("the store is whole")


def repair(
    output: OutputOption = Path("results"),
    as_is: Annotated[
        bool, typer.Option("--as-is", help="Take a store that another program changed on purpose as it is.")
    ] = False,
) -> None:
    """Save what can be read, and take the rest from the run folders.

    The damaged file is kept beside the new one.
    """
    from sana_bench.results.repair import repair_store

    done = repair_store(output, as_is=as_is)
    for table, count in done.saved.items():
        say(f"{table}: {count} rows saved")
    if done.runs or done.images:
        say(f"from run folders: {len(done.runs)} runs, {done.images} images")
    say(f"the damaged store is kept as {done.kept}")
    if done.lost:
        runs = f" of {', '.join(done.again)}" if done.again else ""
        cost = ", but for what images from run folders cost to make" if done.images else ""
        raise IncompleteError(
            f"{output}: what could not be read is lost; run the commands{runs} again, which make what lacks{cost}"
        )
