"""What NVIDIA's management library tells about a GPU, as a small interface that tests can stand in for."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

__all__ = ["Nvml", "NvmlDevice", "open_nvml"]

_T = TypeVar("_T")

# Bits of nvmlClocksEventReasons that mean slower than asked for. Idle and clocks set by an application are not here.
_SLOWDOWNS = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "thermal (software)",
    0x40: "thermal (hardware)",
    0x80: "power brake",
}


class Nvml(Protocol):
    """Readings of one GPU; None for what it does not offer."""

    def energy_mj(self) -> int | None:
        """Energy since the driver was loaded, in millijoules."""
        ...

    def power_w(self) -> float | None: ...

    def clock_mhz(self) -> float | None:
        """Clock of the multiprocessors."""
        ...

    def temperature_c(self) -> float | None: ...

    def slowdowns(self) -> tuple[str, ...]:
        """Why the GPU is slower than its clocks allow, now; empty when it is not."""
        ...

    def memory_bytes(self) -> int | None:
        """Memory in use on the GPU by all processes."""
        ...

    def driver(self) -> str: ...


class NvmlDevice:
    """`Nvml` by nvidia-ml-py."""

    def __init__(self, library: Any, handle: Any) -> None:
        self._library, self._handle = library, handle

    def _ask(self, question: Callable[[], _T]) -> _T | None:
        try:
            return question()
        except self._library.NVMLError:  # not every GPU offers every reading
            return None

    def energy_mj(self) -> int | None:
        return self._ask(lambda: int(self._library.nvmlDeviceGetTotalEnergyConsumption(self._handle)))

    def power_w(self) -> float | None:
        return self._ask(lambda: self._library.nvmlDeviceGetPowerUsage(self._handle) / 1000)

    def clock_mhz(self) -> float | None:
        kind = self._library.NVML_CLOCK_SM
        return self._ask(lambda: float(self._library.nvmlDeviceGetClockInfo(self._handle, kind)))

    def temperature_c(self) -> float | None:
        kind = self._library.NVML_TEMPERATURE_GPU
        return self._ask(lambda: float(self._library.nvmlDeviceGetTemperature(self._handle, kind)))

    def slowdowns(self) -> tuple[str, ...]:
        bits = self._ask(lambda: int(self._library.nvmlDeviceGetCurrentClocksThrottleReasons(self._handle)))
        return tuple(name for bit, name in _SLOWDOWNS.items() if (bits or 0) & bit)

    def memory_bytes(self) -> int | None:
        return self._ask(lambda: int(self._library.nvmlDeviceGetMemoryInfo(self._handle).used))

    def driver(self) -> str:
        return str(self._ask(self._library.nvmlSystemGetDriverVersion) or "unknown")


def open_nvml(uuid: str) -> tuple[Nvml | None, str]:
    """Return the GPU with this UUID as torch gives it, or None and the reason why it cannot be asked."""
    try:
        import pynvml
    except ImportError:
        return None, "nvidia-ml-py is not installed"
    try:
        pynvml.nvmlInit()
        name = uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
        return NvmlDevice(pynvml, pynvml.nvmlDeviceGetHandleByUUID(name)), ""
    except pynvml.NVMLError as error:
        return None, f"NVML: {error}"
