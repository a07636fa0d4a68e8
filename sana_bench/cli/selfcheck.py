"""`sana-bench selfcheck`: which of this machine's numbers can be trusted."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: sana-bench selfcheck geneval fid/clean@1 --device cpu")(selfcheck)


def selfcheck(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[METRIC|PROTOCOL]...", help="Only these; default: all.")
    ] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where the networks run.")] = "auto",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead of lines.")
    ] = False,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DIR", help="Folder of runs, which find the outcome there."),
    ] = Path("results"),
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> int:
    """Run the stored golden cases of every metric here: exit 0, or 4 when a number cannot be trusted."""
    del debug
    import json

    from sana_bench.metrics.selfcheck import session
    from sana_bench.results.database import disk_errors

    where = session.choose_device(device)
    if not as_json:
        print(session.heading(where), flush=True)
    with disk_errors(output):
        done = session.check_everything(
            names or (),
            where,
            output,
            lambda r: None if as_json else print(session.result_line(r), flush=True),
        )
    if as_json:
        print(json.dumps(session.as_json(done), indent=1, ensure_ascii=False))
    else:
        print("\n".join(session.lines_of(done)))
    return done.exit_code
