"""Two clocks behind one interface: CUDA events on a GPU, `perf_counter` elsewhere."""

import sys
import time
from typing import Any, Protocol

__all__ = ["CudaTimer", "Timer", "WallTimer", "compile_seconds", "timer_for"]


class Timer(Protocol):
    """Takes marks cheaply while work is queued; `milliseconds` may be asked for after `finish`."""

    name: str

    def mark(self) -> Any:
        """Return a point in the stream of work."""
        ...

    def finish(self) -> None:
        """Wait until the work before every mark is done."""
        ...

    def milliseconds(self, start: Any, end: Any) -> float:
        """Time from one mark to another."""
        ...


class WallTimer:
    """Monotonic wall time, for a device that has finished a call when the call returns."""

    name = "perf_counter"

    def mark(self) -> float:
        return time.perf_counter()

    def finish(self) -> None:
        return None

    def milliseconds(self, start: float, end: float) -> float:
        return (end - start) * 1000


class CudaTimer:
    """Events on the current stream: a mark does not wait, so that timing stages does not slow them down."""

    name = "cuda events"

    def __init__(self, device: str) -> None:
        self._device = device

    def mark(self) -> Any:
        import torch

        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def finish(self) -> None:
        import torch

        torch.cuda.synchronize(self._device)

    def milliseconds(self, start: Any, end: Any) -> float:
        return float(start.elapsed_time(end))


def timer_for(device: str) -> Timer:
    """Return the clock for a torch device name."""
    return CudaTimer(device) if device.startswith("cuda") else WallTimer()


def compile_seconds() -> float:
    """Seconds that `torch.compile` has spent in this process so far; 0 when nothing was compiled."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    if dynamo is None:
        return 0.0
    return float(dynamo.calculate_time_spent().get("total_wall_time", 0.0))
