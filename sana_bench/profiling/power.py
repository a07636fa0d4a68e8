"""Energy of a stretch of work: from the GPU's counter, or by adding up power readings. Never a guess, never zero."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from sana_bench.profiling.nvml import Nvml

__all__ = ["Energy", "EnergyMeter", "integrate_power"]


@dataclass(frozen=True)
class Energy:
    """Joules with the method, or None with the reason."""

    joules: float | None
    method: str


class EnergyMeter:
    """Measures between `start` and `stop`; `power` gives the (seconds, watts) read so far by the monitor."""

    def __init__(
        self,
        nvml: Nvml | None,
        reason: str,
        power: Callable[[], Sequence[tuple[float, float]]] = tuple,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._nvml, self._reason, self._power, self._clock = nvml, reason, power, clock
        self._counter: int | None = None
        self._began = 0.0

    def start(self) -> None:
        """Begin."""
        self._began = self._clock()
        self._counter = self._nvml.energy_mj() if self._nvml is not None else None

    def stop(self) -> Energy:
        """Return the energy since `start`."""
        if self._nvml is None:
            return Energy(None, self._reason)
        after = self._nvml.energy_mj()
        if self._counter is not None and after is not None:
            return Energy((after - self._counter) / 1000, "energy counter of the GPU")
        joules = integrate_power(self._power(), self._began, self._clock())
        if joules is None:
            return Energy(None, "no energy counter, and too few power readings")
        return Energy(joules, "power readings of the GPU, integrated")


def integrate_power(readings: Sequence[tuple[float, float]], start: float, end: float) -> float | None:
    """Trapezoidal integral of (seconds, watts) over [start, end], the ends held; None without a reading inside."""
    inside = [(at, watts) for at, watts in readings if start <= at <= end]
    if not inside or end <= start:
        return None
    points = [(start, inside[0][1]), *inside, (end, inside[-1][1])]
    return sum((b - a) * (x + y) / 2 for (a, x), (b, y) in pairwise(points))
