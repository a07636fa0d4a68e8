"""The command line: how a command is started, and how an error or a signal ends it.

What is imported here is light: the commands are imported when a signal already ends in one line.
"""

import errno
import gc
import os
import resource
import sys
from threading import Event
from typing import Any

from sana_bench.core.allocator import keep_freed_memory
from sana_bench.core.errors import BenchError, IncompleteError, UsageError
from sana_bench.core.progress import say
from sana_bench.core.stopping import caught, leave, stoppable

__all__ = ["execute", "main"]

# What typer makes of an interrupt.
_INTERRUPTED = 130
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
        code = execute(sys.argv[1:], stopped)
    if stopped.is_set():
        leave(code)
    sys.exit(code)


def execute(arguments: list[str], stopped: Event | None = None) -> int:
    """Run one command and return its exit code; errors become one line on standard error.

    `--debug` may stand anywhere before a `--`; with it the traceback of an error is shown too, and a crash is raised. An error
    after `stopped` is the interrupt's, which came in the middle of something that a library then missed.
    """
    arguments, debug = _without_debug(arguments)
    try:
        from sana_bench.cli.app import app

        result = app(args=arguments, prog_name="sana-bench", standalone_mode=False)
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001
        caught()
        is_late = stopped is not None and stopped.is_set() and not isinstance(error, IncompleteError)
        if not is_late and not isinstance(error, KeyboardInterrupt):
            return _told(error, debug)
        if debug:
            _show(error)
        result = _INTERRUPTED
    caught()
    if result == _INTERRUPTED:
        say("sana-bench: interrupted", error=True)
        return IncompleteError.exit_code
    return result if isinstance(result, int) else 0


def _told(error: BaseException, debug: bool) -> int:
    """Tell how a command failed and return its exit code; raises what a crash is to show."""
    if isinstance(error, BenchError):
        return _fail(error, error.exit_code, debug)
    # The base of typer's usage errors; typer exports none of its ancestors, and where they live changed between versions.
    if hasattr(error, "format_message"):
        return _fail(UsageError(_usage_message(error)), UsageError.exit_code, debug)
    if isinstance(error, OSError):
        return _fail_of_the_system(error, debug)
    # An exit that code of somebody else asks for is none of ours: what was asked for is not done.
    if debug or _is_of_the_shell(error):
        raise error
    if _is_of_little_memory(error):
        return _fail_of_the_system(OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), debug)
    kind = type(error).__name__
    first = str(error).strip().partition("\n")[0]
    say(f"sana-bench: crashed with {kind}: {first} (--debug shows where)", error=True)
    return 1


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
    return isinstance(error, SystemExit) and "_SANA_BENCH_COMPLETE" in os.environ


def _without_debug(arguments: list[str]) -> tuple[list[str], bool]:
    end = arguments.index("--") if "--" in arguments else len(arguments)
    kept = [argument for argument in arguments[:end] if argument != "--debug"]
    return kept + arguments[end:], len(kept) < end


def _fail(error: Exception, code: int, debug: bool) -> int:
    if debug:
        _show(error)
    message = " ".join(str(error).split())
    say(f"sana-bench: {message}", error=True)
    return code


def _show(error: BaseException) -> None:
    import traceback

    traceback.print_exception(error)


def _usage_message(error: Any) -> str:
    message = str(error.format_message()).rstrip(".")
    command = getattr(getattr(error, "ctx", None), "command_path", "sana-bench")
    return f"{message[:1].lower()}{message[1:]} (see {command} --help)"


if __name__ == "__main__":
    main()
