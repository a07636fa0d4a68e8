"""The application: its root options, the commands, and how an error ends it."""

import errno
import gc
import os
import resource
import sys
from importlib import import_module
from typing import Annotated, Any

import typer

from sana_bench import __version__
from sana_bench.core.allocator import keep_freed_memory
from sana_bench.core.errors import BenchError, UsageError
from sana_bench.core.progress import say
from sana_bench.core.stopping import leave, stoppable

__all__ = ["execute", "main"]

#: The files of the commands, in the order in which `--help` shows them.
_COMMANDS = (
    *("run", "score", "plan", "validate", "list", "report", "doctor", "train", "generate"),
    *("compare", "agreement", "baseline", "gate", "leaderboard", "history", "export", "import_"),
    *("fetch", "rescore", "reshape", "profile", "selfcheck", "store"),
)

_EXIT_CODES = (
    "Exit codes: 0 done, 1 crash, 2 usage or bad input, 3 incomplete, 4 regression, 5 not comparable."
)

# The base of typer's usage errors; typer exports none of its ancestors, and where they live changed between
# versions.
_ClickException: type[Exception] = typer.BadParameter.__mro__[2]

# What typer makes of an interrupt.
_INTERRUPTED = 130

app = typer.Typer(
    name="sana-bench",
    help="Generate, score and compare text-to-image variants: one suite file in, one report out.",
    epilog=_EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


# How the loader of shared libraries, threads and torch say that there is no memory.
_NO_MEMORY = ("failed to map segment", "can't start new thread", "DefaultCPUAllocator: ")


def main() -> None:
    """Run the command line and exit with the code of what happened."""
    # What is imported stays: looking through it for garbage again and again is a tenth of a quick command's time.
    gc.set_threshold(50_000, 20, 20)
    keep_freed_memory()
    try:
        os.getcwd()
    except FileNotFoundError:  # libraries end the program in their own words
        say("sana-bench: the working directory is gone; change to one that is there", error=True)
        sys.exit(UsageError.exit_code)
    with stoppable(second_ends=True) as stopped:
        code = execute(sys.argv[1:])
    if stopped.is_set():
        leave(code)
    sys.exit(code)


def execute(arguments: list[str]) -> int:
    """Run one command and return its exit code; errors become one line on standard error.

    `--debug` may stand anywhere before a `--`; with it the traceback of an error is shown too, and a crash is raised.
    """
    arguments, debug = _without_debug(arguments)
    try:
        result = app(args=arguments, prog_name="sana-bench", standalone_mode=False)
    except BenchError as error:
        return _fail(error, error.exit_code, debug)
    except _ClickException as error:
        return _fail(UsageError(_usage_message(error)), UsageError.exit_code, debug)
    except KeyboardInterrupt:
        result = _INTERRUPTED
    except OSError as error:
        return _fail_of_the_system(error, debug)
    # An exit that code of somebody else asks for is none of ours: what was asked for is not done.
    except (Exception, SystemExit) as error:
        if debug or _is_of_the_shell(error):
            raise
        if _is_of_little_memory(error):
            return _fail_of_the_system(OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), debug)
        kind = type(error).__name__
        first = str(error).strip().partition("\n")[0]
        say(f"sana-bench: crashed with {kind}: {first} (--debug shows where)", error=True)
        return 1
    if result == _INTERRUPTED:
        say("sana-bench: interrupted", error=True)
        return 3
    return result if isinstance(result, int) else 0


def _fail_of_the_system(error: OSError, debug: bool) -> int:
    from sana_bench.core.storage import explained

    told = explained(error)
    if debug:
        told.__cause__ = error
    return _fail(told, told.exit_code, debug)


def _is_of_little_memory(error: BaseException) -> bool:
    if isinstance(error, SystemError):  # a C extension got no memory and said nothing
        return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
    return isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY)


def _is_of_the_shell(error: BaseException) -> bool:
    """Whether it is how typer ends the program once it has answered a shell that completes a command."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = "" if trace is None else str(trace.tb_frame.f_globals.get("__name__", ""))
    return isinstance(error, SystemExit) and module.partition(".")[0] in ("click", "typer")


def _without_debug(arguments: list[str]) -> tuple[list[str], bool]:
    end = arguments.index("--") if "--" in arguments else len(arguments)
    kept = [argument for argument in arguments[:end] if argument != "--debug"]
    return kept + arguments[end:], len(kept) < end


def _fail(error: Exception, code: int, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exception(error)
    message = " ".join(str(error).split())
    say(f"sana-bench: {message}", error=True)
    return code


def _usage_message(error: Any) -> str:
    message = str(error.format_message()).rstrip(".")
    command = getattr(getattr(error, "ctx", None), "command_path", "sana-bench")
    return f"{message[:1].lower()}{message[1:]} (see {command} --help)"


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

if __name__ == "__main__":
    main()
