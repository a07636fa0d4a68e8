"""Which device this is, and how it fares while it works: clock, temperature, power, slowdowns."""

import os
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from sana_bench.core.provenance import cpu_model
from sana_bench.profiling.nvml import Nvml
from sana_bench.results.reader import device_label

__all__ = ["CpuProbe", "GpuProbe", "Hardware", "Monitor", "Reading", "describe_hardware"]

_INTERVAL_S = 0.1


@dataclass(frozen=True)
class Hardware:
    """What a time belongs to. Times of different `identity` are never compared."""

    device: str
    name: str
    threads: int
    cpu: str
    driver: str = ""

    @property
    def identity(self) -> dict[str, Any]:
        """What makes times comparable: the device, and on a CPU the number of threads."""
        on_cpu = {} if self.device.startswith("cuda") else {"threads": self.threads}
        return {"device": self.name, **on_cpu}

    @property
    def label(self) -> str:
        """For people."""
        return device_label(self.identity)


def describe_hardware(device: str, nvml: Nvml | None) -> Hardware:
    """Return what `device` is."""
    import torch

    cpu, threads = cpu_model(), torch.get_num_threads()
    if not device.startswith("cuda"):
        return Hardware(device, cpu, threads, cpu)
    driver = nvml.driver() if nvml is not None else "unknown"
    return Hardware(device, torch.cuda.get_device_name(device), threads, cpu, driver)


@dataclass(frozen=True)
class Reading:
    """One look at the device; None for what it does not tell. `at` is on the clock of `time.perf_counter`."""

    at: float
    clock_mhz: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    slowdowns: tuple[str, ...] = ()


class GpuProbe:
    """Reads a GPU."""

    tells_slowdowns = True

    def __init__(self, nvml: Nvml) -> None:
        self._nvml = nvml

    def __call__(self) -> Reading:
        nvml = self._nvml
        return Reading(
            time.perf_counter(), nvml.clock_mhz(), nvml.temperature_c(), nvml.power_w(), nvml.slowdowns()
        )


class CpuProbe:
    """Reads the processor: mean clock, and whether its thermal throttle counters have moved since the last look."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._cpus = root / "sys/devices/system/cpu"
        self._info = root / "proc/cpuinfo"
        self._throttles = self._throttle_count()
        self.tells_slowdowns = self._throttles is not None

    def __call__(self) -> Reading:
        before, self._throttles = self._throttles, self._throttle_count()
        moved = before is not None and self._throttles is not None and self._throttles > before
        return Reading(time.perf_counter(), self._clock(), slowdowns=("thermal",) if moved else ())

    def _clock(self) -> float | None:
        khz = [
            int(path.read_text()) for path in sorted(self._cpus.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
        ]
        if khz:
            return statistics.fmean(khz) / 1000
        try:
            lines = self._info.read_text().splitlines()
        except OSError:
            return None
        mhz = [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
        return statistics.fmean(mhz) if mhz else None

    def _throttle_count(self) -> int | None:
        files = list(self._cpus.glob("cpu[0-9]*/thermal_throttle/*_throttle_count"))
        return sum(int(path.read_text()) for path in files) if files else None


class Monitor:
    """Looks at the device from a thread of its own while work runs; use as a context manager.

    Raises, on leaving, what the probe raised: a monitor that died would pass for a device without slowdowns.
    """

    def __init__(self, probe: Callable[[], Reading] | None, interval_s: float = _INTERVAL_S) -> None:
        self._probe, self._interval = probe, interval_s
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._watch, name="device monitor", daemon=True)
        self.readings: list[Reading] = []
        self._load = (0.0, 0.0)

    def __enter__(self) -> Self:
        self._load = (os.getloadavg()[0], 0.0)
        if self._probe is not None:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        if self._probe is not None:
            self._thread.join()
        self._load = (self._load[0], os.getloadavg()[0])
        if self._error is not None and kind is None:
            raise self._error

    def power(self) -> Sequence[tuple[float, float]]:
        """(seconds, watts) of every reading that has both."""
        return [(reading.at, reading.power_w) for reading in self.readings if reading.power_w is not None]

    def slowdowns_between(self, start: float, end: float) -> tuple[str, ...]:
        """Slowdowns seen from the last reading before `start` to the first after `end`."""
        margin = 2 * self._interval
        seen = [r for r in self.readings if start - margin <= r.at <= end + margin]
        return tuple(sorted({name for reading in seen for name in reading.slowdowns}))

    def summary(self) -> dict[str, Any]:
        """Clock, temperature and power as (lowest, median, highest), the share of readings with each slowdown, and the load."""
        reasons = Counter(name for reading in self.readings for name in reading.slowdowns)
        return {
            "readings": len(self.readings),
            "clock_mhz": _spread([r.clock_mhz for r in self.readings]),
            "temperature_c": _spread([r.temperature_c for r in self.readings]),
            "power_w": _spread([r.power_w for r in self.readings]),
            # A processor without throttle counters does not tell; that is not the same as none.
            "tells_slowdowns": bool(getattr(self._probe, "tells_slowdowns", False)),
            "slowdowns": {name: count / len(self.readings) for name, count in sorted(reasons.items())},
            "load_average": list(self._load),
            "cores": os.cpu_count(),
        }

    def _watch(self) -> None:
        assert self._probe is not None
        while True:  # at least once: work may be done before this thread's first turn
            try:
                self.readings.append(self._probe())
            except (OSError, ValueError) as error:
                self._error = error
                return
            if self._stop.wait(self._interval):
                return


def _spread(values: Sequence[float | None]) -> list[float] | None:
    known = [value for value in values if value is not None]
    return [min(known), statistics.median(known), max(known)] if known else None
