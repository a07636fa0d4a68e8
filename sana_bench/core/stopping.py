"""How work is stopped: by a signal, a command at once by a second one, and never held up by threads that wait."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

__all__ = ["caught", "leave", "stoppable", "workers"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# How long work that has ended early waits for what its threads have begun, such as a file that is half written.
_PATIENCE_S = 5.0
# How often it is looked whether an interrupt was lost, in processor time: what goes on without it uses some.
_AGAIN_S = 0.1


@contextmanager
def stoppable(*, second_ends: bool = False) -> Iterator[threading.Event]:
    """Let Ctrl-C and a termination request raise `KeyboardInterrupt`; a second one does what it did before the block.

    One that a library loses, as imports, finalizers and bare `except`s do, is raised again until the block ends or somebody has
    `caught` it.

    With `second_ends` it ends the process at once, by its signal: right for a command, which is all that its process does, and
    wrong for a notebook, whose kernel a second Ctrl-C must not end.

    The event is set once there was one. Only the main thread hears signals, and a program that takes termination requests itself
    keeps them: then this does nothing.
    """
    stopped = threading.Event()
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield stopped
        return

    def stop(*_: object) -> None:
        for number in heard:
            signal.signal(number, signal.SIG_DFL if second_ends else previous[number])
        stopped.set()
        if signal.getsignal(signal.SIGVTALRM) is signal.SIG_DFL:
            signal.signal(signal.SIGVTALRM, _raise_again)
            signal.setitimer(signal.ITIMER_VIRTUAL, _AGAIN_S, _AGAIN_S)
        raise KeyboardInterrupt

    # One that was told to be ignored, as Ctrl-C is in a shell's background, stays so.
    previous = {number: signal.getsignal(number) for number in _SIGNALS}
    heard = [number for number in _SIGNALS if previous[number] is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, stop)
    try:
        yield stopped
    finally:
        caught()
        for number in heard:
            signal.signal(number, previous[number])


def caught() -> None:
    """Tell that the interrupt has reached who ends the work in good order: it is not raised again."""
    if threading.current_thread() is threading.main_thread() and (
        signal.getsignal(signal.SIGVTALRM) is _raise_again
    ):
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, signal.SIG_DFL)


def _raise_again(*_: object) -> None:
    """Raise an interrupt that is neither on its way nor being dealt with, where the main thread is now."""
    error = sys.exc_info()[1]
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return
        error = error.__context__
    raise KeyboardInterrupt


@contextmanager
def workers(n_threads: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads whose work is done at the end of the block.

    Where the block ends early, what has not begun is dropped, and what has begun gets a few seconds: a thread that waits for a
    file for ever holds nothing up.
    """
    pool = ThreadPoolExecutor(n_threads)
    try:
        yield pool
    except BaseException:
        # Waiting for threads takes no limit of time; waiting for one that waits for them does.
        closing = threading.Thread(target=pool.shutdown, kwargs={"cancel_futures": True}, daemon=True)
        closing.start()
        closing.join(_PATIENCE_S)
        raise
    pool.shutdown()


def leave(code: int) -> None:
    """End the process now, whatever its threads still wait for; what is printed is printed."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
