"""`sana-bench selfcheck`: which of this machine's numbers can be trusted."""

from pathlib import Path
from typing import Annotated

import typer

from sana_bench.cli.options import DeviceOption, OutputOption
from sana_bench.core.progress import say

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: sana-bench selfcheck geneval fid/clean@1 --device cpu")(selfcheck)


def selfcheck(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="METRIC|PROTOCOL", help="Only these; default: all.")
    ] = None,
    device: DeviceOption = "auto",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead of lines.")
    ] = False,
    output: OutputOption = Path("results"),
) -> int:
    """Check every metric here on stored golden cases.

    Exits with 4 when a number cannot be trusted.
    """
    import json

    from sana_bench.metrics.selfcheck import session
    from sana_bench.results.database import disk_errors

    where = session.choose_device(device)
    if not as_json:
        say(session.heading(where))
    with disk_errors(output):
        done = session.check_everything(
            names or (),
            where,
            output,
            lambda r: None if as_json else say(session.result_line(r)),
        )
    if as_json:
        say(json.dumps(session.as_json(done), indent=1, ensure_ascii=False))
    else:
        say("\n".join(session.lines_of(done)))
    return done.exit_code
