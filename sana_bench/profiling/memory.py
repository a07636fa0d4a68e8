"""Peak memory of a stretch of work, and how much a device has left."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sana_bench.profiling.nvml import Nvml

__all__ = ["CpuMemory", "CudaMemory", "MemoryMeter", "MemoryUse", "available_bytes"]


@dataclass(frozen=True)
class MemoryUse:
    """Bytes at the highest point, and how much of that the work added to what was there before.

    `nvml` is what the GPU had in use after the work, by all processes; None where there is no such reading.
    """

    peak: int
    growth: int
    source: str
    nvml: int | None = None


class MemoryMeter(Protocol):
    """Measures the work between `start` and `stop`."""

    def start(self) -> None: ...

    def stop(self) -> MemoryUse: ...


class CudaMemory:
    """torch's allocator, with NVML beside it."""

    def __init__(self, device: str, nvml: Nvml | None) -> None:
        self._device, self._nvml, self._before = device, nvml, 0

    def start(self) -> None:
        import torch

        torch.cuda.reset_peak_memory_stats(self._device)
        self._before = torch.cuda.memory_allocated(self._device)

    def stop(self) -> MemoryUse:
        import torch

        peak = torch.cuda.max_memory_allocated(self._device)
        used = self._nvml.memory_bytes() if self._nvml is not None else None
        return MemoryUse(peak, peak - self._before, "torch allocator", used)


class CpuMemory:
    """Resident memory of this process by /proc, its high-water mark set back before the work."""

    def __init__(self, process: Path = Path("/proc/self")) -> None:
        self._process, self._before, self._reset = process, 0, False

    def start(self) -> None:
        _give_back_free_memory()
        try:
            (self._process / "clear_refs").write_text("5")
            self._reset = True
        except OSError:
            self._reset = False
        self._before = _status(self._process, "VmRSS")

    def stop(self) -> MemoryUse:
        peak = _status(self._process, "VmHWM")
        since = "the work" if self._reset else "the process"
        return MemoryUse(peak, max(0, peak - self._before), f"resident memory, highest since {since} began")


def available_bytes(
    meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """Memory that this process could still take: the machine's, or less where a control group allows less."""
    limits: list[int] = []
    try:
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                limits.append(int(line.split()[1]) * 1024)
    except OSError:
        pass
    try:
        most = (cgroup / "memory.max").read_text().strip()
        if most != "max":
            limits.append(int(most) - int((cgroup / "memory.current").read_text()))
    except OSError:
        pass
    return max(0, min(limits)) if limits else None


def _status(process: Path, key: str) -> int:
    for line in (process / "status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{process}/status has no {key}")


def _give_back_free_memory() -> None:
    # glibc keeps what was freed, so that a second call of the same size would seem to need no memory.
    trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
