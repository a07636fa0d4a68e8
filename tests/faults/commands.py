"""Commands as forks of a process that has imported everything: what a person types, without the seconds of its start."""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Ended", "Running", "import_everything", "start"]

# Capabilities by which root reads and writes what is forbidden: CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH.
_FORBIDDEN_TO_ROOT = (1, 2)
_CAPABILITIES_VERSION = 0x20080522


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, negative for a signal, None where it had to be killed; and what it printed."""

    code: int | None
    out: str
    err: str
    seconds: float

    @property
    def lines(self) -> list[str]:
        """The lines of its own on standard error."""
        return [line for line in self.err.splitlines() if line.startswith("sana-bench: ")]

    @property
    def line(self) -> str:
        """The first of them."""
        return self.lines[0] if self.lines else ""

    @property
    def is_clean(self) -> bool:
        """Whether it told in one line, or none, what happened, and crashed in no way."""
        told = f"{self.out}\n{self.err}"
        return "Traceback" not in told and "crashed with" not in told and len(self.lines) <= 1


class Running:
    """A command at work in a process group of its own."""

    def __init__(self, pid: int, scratch: Path) -> None:
        self.pid = pid
        self._scratch = scratch
        self._started = time.monotonic()
        self._status: int | None = None

    @property
    def seconds(self) -> float:
        """How long it has been at work."""
        return time.monotonic() - self._started

    def is_over(self) -> bool:
        """Whether it has ended."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = status if pid else None
        return self._status is not None

    def send(self, number: signal.Signals) -> bool:
        """Send it a signal, unless it is over; say whether it was sent."""
        over = self.is_over()
        if not over:
            os.kill(self.pid, number)
        return not over

    def wait(self, limit: float) -> Ended:
        """Wait for its end, at most `limit` seconds; then it is killed."""
        hung = False
        while not self.is_over():
            if self.seconds > limit and not hung:
                hung = True
                os.killpg(self.pid, signal.SIGKILL)
            time.sleep(0.01)
        assert self._status is not None
        out, err = ((self._scratch / name).read_text(errors="replace") for name in ("stdout", "stderr"))
        return Ended(None if hung else os.waitstatus_to_exitcode(self._status), out, err, self.seconds)


def import_everything() -> None:
    """Import what the commands need, once."""
    import open_clip  # noqa: F401
    import torch

    import sana_reports.html_page  # noqa: F401

    # Threads of this process would not be there in its forks.
    torch.set_num_threads(1)


def start(arguments: list[str], scratch: Path, prepare: Callable[[], object] = lambda: None) -> Running:
    """Start `sana-bench` with these arguments; `prepare` is called in its process before."""
    scratch.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return Running(pid, scratch)
    code = 70
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        for name, descriptor in (("stdout", 1), ("stderr", 2)):
            file = os.open(scratch / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(file, descriptor)
        sys.stdout, sys.stderr = (os.fdopen(descriptor, "w", closefd=False) for descriptor in (1, 2))
        _obey_permissions()
        prepare()
        sys.argv = ["sana-bench", *arguments]
        from sana_bench.cli.main import main

        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _obey_permissions() -> None:
    """Let permissions hold for root too, as they do for everybody else."""
    if os.geteuid():
        return

    class Header(ctypes.Structure):
        _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]

    class Sets(ctypes.Structure):
        _fields_ = [(name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable")]

    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = Header(_CAPABILITIES_VERSION, 0), (Sets * 2)()
    if libc.capget(ctypes.byref(header), ctypes.byref(sets)):
        raise OSError(ctypes.get_errno(), "capget")
    for capability in _FORBIDDEN_TO_ROOT:
        sets[0].effective &= ~(1 << capability)
        sets[0].permitted &= ~(1 << capability)
    if libc.capset(ctypes.byref(header), ctypes.byref(sets)):
        raise OSError(ctypes.get_errno(), "capset")
