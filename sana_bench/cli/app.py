"""The application: its root options and the commands, whose files are imported with it."""

from importlib import import_module
from typing import Annotated

import typer

from sana_bench import __version__
from sana_bench.core.errors import UsageError
from sana_bench.core.progress import say

__all__ = ["app"]

#: The files of the commands, in the order in which `--help` shows them.
_COMMANDS = (
    *("run", "score", "plan", "validate", "list", "report", "doctor", "train", "generate"),
    *("compare", "agreement", "baseline", "gate", "leaderboard", "history", "export", "import_"),
    *("fetch", "rescore", "reshape", "profile", "selfcheck", "store"),
)

_EXIT_CODES = (
    "Exit codes: 0 done, 1 crash, 2 usage or bad input, 3 incomplete, 4 regression, 5 not comparable."
)

app = typer.Typer(
    name="sana-bench",
    help="Generate, score and compare text-to-image variants: one suite file in, one report out.",
    epilog=_EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"sana-bench {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show the traceback of an error; may also stand after the command."),
    ] = False,  # for the help alone: `execute` takes it out before
) -> int | None:
    if context.invoked_subcommand is None:
        say(context.get_help())
        return UsageError.exit_code
    return None


for _name in _COMMANDS:
    import_module(f"sana_bench.cli.{_name}").register(app)
