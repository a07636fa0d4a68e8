"""What a check is, and how checks run: each by itself, so that what breaks one hides no other."""

import math
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sana_bench.assets.locate import micro_weights_root
from sana_bench.core.stopping import workers

__all__ = [
    "Bench",
    "Check",
    "Result",
    "SkippedError",
    "Tolerance",
    "has_user_judge",
    "run_checks",
    "stored_name",
    "user_judge",
]

_USER_JUDGE = re.compile(r"([^/]+)/vlm-.*@1")

Status = Literal["ok", "failed", "skipped"]


class SkippedError(Exception):
    """A check that cannot be made here; the message says what is missing."""


def user_judge(metric: str) -> str:
    """All protocols of a metric whose judge the user chose, as checks name them: one set of rules, any model."""
    return f"{metric}/vlm-*@1"


def has_user_judge(protocol: str) -> bool:
    """Whether the judge of a protocol is a model that the user chose."""
    return _USER_JUDGE.fullmatch(protocol) is not None


def stored_name(protocol: str) -> str:
    """The name under which checks know a protocol."""
    return user_judge(protocol.partition("/")[0]) if has_user_judge(protocol) else protocol


@dataclass(frozen=True)
class Bench:
    """Where a check runs: its device, the micro tier's weights, and a folder that is removed afterwards."""

    device: str
    weights: Path
    scratch: Path

    def folder(self, name: str) -> Path:
        """An empty folder for temporary files."""
        path = self.scratch / name
        path.mkdir(parents=True)
        return path


@dataclass(frozen=True)
class Tolerance:
    """The largest error allowed, in `unit`, and why so much of it."""

    limit: float
    unit: str
    because: str


@dataclass(frozen=True)
class Check:
    """One comparison with stored values.

    `protocols` are those whose numbers rest on it. `measure` returns the error in the tolerance's unit. `on_device` is
    the tolerance on an accelerator; without one the check runs on the processor wherever networks run, and its `Bench`
    says so. `quick` checks take a fraction of a second, and a run makes them itself.
    """

    name: str
    protocols: tuple[str, ...]
    measure: Callable[[Bench], float]
    tolerance: Tolerance
    on_device: Tolerance | None = None
    quick: bool = False

    def place(self, device: str) -> str:
        """Where this check runs when networks run on `device`."""
        return "cpu" if self.on_device is None else device

    def allowed(self, device: str) -> Tolerance:
        """The tolerance on `device`."""
        return self.tolerance if device == "cpu" or self.on_device is None else self.on_device


@dataclass(frozen=True)
class Result:
    """The outcome of one check. `error` is None where nothing could be measured; `reason` then says why."""

    name: str
    protocols: tuple[str, ...]
    status: Status
    device: str
    error: float | None
    limit: float
    unit: str
    because: str
    seconds: float
    reason: str = ""


def run_checks(checks: Sequence[Check], device: str) -> Iterator[Result]:
    """Results in the order of `checks`; an exception of any kind fails the check that it comes from."""
    # A future holds whatever its task raised; an interrupt ends the wait for it and so the whole self-check.
    with tempfile.TemporaryDirectory(prefix="sana-bench-") as scratch, workers(1) as pool:
        for check in checks:
            bench = Bench(check.place(device), micro_weights_root(), Path(scratch))
            started = time.perf_counter()
            future = pool.submit(check.measure, bench)
            error = future.exception()
            seconds = time.perf_counter() - started
            yield _result(check, device, seconds, error, None if error is not None else future.result())


def _result(
    check: Check, device: str, seconds: float, error: BaseException | None, measured: float | None
) -> Result:
    allowed = check.allowed(device)
    status: Status = "failed"
    reason = ""
    if isinstance(error, SkippedError):
        status, reason = "skipped", str(error)
    elif error is not None:
        first = " ".join(str(error).split())[:200]
        reason = f"{type(error).__name__}: {first}"
    elif measured is None or not math.isfinite(measured):
        measured, reason = None, f"the error is {measured}"
    elif measured <= allowed.limit:
        status = "ok"
    return Result(
        name=check.name,
        protocols=check.protocols,
        status=status,
        device=check.place(device),
        error=measured,
        limit=allowed.limit,
        unit=allowed.unit,
        because=allowed.because,
        seconds=seconds,
        reason=reason,
    )
