"""What libraries write to standard error while a suite runs goes to a file, so that the terminal shows what matters."""

import io
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from sana_bench.core.atomic import open_own
from sana_bench.core.errors import UsageError
from sana_bench.core.provenance import now
from sana_bench.core.text import escaped

__all__ = ["LibraryLog"]


class LibraryLog(io.TextIOBase):
    """Stands in for `sys.stderr` while its context lasts; errors of our own are printed after it.

    Lines are held until `keep_in` names a file and go to the terminal when no file was named. Loggers that were set up
    before write to it too, and those set up inside write to the terminal again afterwards.
    """

    def __init__(self, command: str) -> None:
        self._command = command
        self._terminal: TextIO | None = None
        self._file: TextIO | None = None
        self._path: Path | None = None
        self._held = ""

    def keep_in(self, path: Path) -> None:
        """Append to the file of this name from now on; it is made with the first line, under the time and the command."""
        self._path = path
        held, self._held = self._held, ""
        if held:
            self.write(held)

    @property
    def written(self) -> Path | None:
        """The file, once there is something of this session in it."""
        return None if self._file is None else self._path

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return (self._terminal or sys.stderr).fileno()

    def write(self, text: str) -> int:
        if self._terminal is None:
            return sys.stderr.write(text)
        length = len(text)
        # Bars of libraries go back to the beginning of their line, over what stands there.
        text = escaped(text.replace("\r\n", "\n").replace("\r", "\n"))
        if self._path is None:
            self._held += text
            return length
        try:
            if self._file is None:
                descriptor = open_own(self._path, os.O_WRONLY | os.O_APPEND)
                self._file = os.fdopen(
                    descriptor, "a", encoding="utf-8", errors="backslashreplace", newline="\n"
                )
                self._file.write(f"{now()} {self._command}\n")
            self._file.write(text)
            self._file.flush()
        # A full disk, which the run tells itself, or a link in the file's place: nothing is lost meanwhile.
        except (OSError, UsageError):
            self._terminal.write(text)
        return length

    def __enter__(self) -> Self:
        self._terminal, sys.stderr = sys.stderr, self
        _repoint(self._terminal, self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        terminal = self._terminal or sys.__stderr__
        self._terminal, sys.stderr = None, terminal
        _repoint(self, terminal)
        if self._held and terminal is not None:
            terminal.write(self._held)
        if self._file is not None:
            self._file.close()


def _repoint(old: object, new: Any) -> None:
    """Let handlers that write to the stream `old` write to `new`."""
    for handler in _handlers():
        if isinstance(handler, logging.StreamHandler) and handler.stream is old:
            handler.setStream(new)


def _handlers() -> Iterator[logging.Handler]:
    yield from logging.root.handlers
    for logger in list(logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            yield from logger.handlers
