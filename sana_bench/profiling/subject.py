"""One variant under the clock."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sana_bench import generators
from sana_bench.core.fingerprint import fingerprint
from sana_bench.core.images import png_bytes
from sana_bench.core.samples import Sample
from sana_bench.generators.base import Generator, HasStages, OutOfMemoryError, Request, request_for
from sana_bench.profiling.hardware import Monitor
from sana_bench.profiling.memory import MemoryMeter, MemoryUse
from sana_bench.profiling.power import EnergyMeter
from sana_bench.profiling.stages import StageClock
from sana_bench.profiling.timers import Timer, compile_seconds
from sana_bench.suites.plan import CellPlan

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Subject", "Timed", "fits"]


@dataclass(frozen=True)
class Timed:
    """One image: milliseconds from the prompt to pixels in memory, and what the details of its score hold."""

    ms: float
    details: dict[str, Any]


class Subject:
    """A loaded variant with its clocks. Loading and the first image are timed on the way: they are the cold start."""

    def __init__(self, plan: CellPlan, device: str, timer: Timer) -> None:
        self.plan = plan
        self.name = plan.cell.variant.name
        self.timer = timer
        compiled, began = compile_seconds(), time.perf_counter()
        # Without a folder for text: what is looked up is not encoded, and would time the disk.
        self.generator: Generator = generators.build(plan.cell.spec, device)
        self.load_s = time.perf_counter() - began
        stages = self.generator.stages() if isinstance(self.generator, HasStages) else ()
        self._clock = StageClock(stages, timer)
        self._batches = 0
        self.cold_ms = self._run([self.request(0)])[1]
        self.compile_s = compile_seconds() - compiled

    def request(self, position: int) -> Request:
        """The request of the sample at a position of the order of work, which starts over at its end."""
        samples = self.plan.cell.samples
        return request_for(self.plan.cell, samples[position % len(samples)])

    def warm_up(self, count: int) -> None:
        """Make images that nobody times."""
        for position in range(count):
            self._run([self.request(position)])

    def image(self, sample: Sample, energy: EnergyMeter, monitor: Monitor) -> Timed:
        """Time one image, and apart from it its PNG."""
        began = time.perf_counter()
        energy.start()
        with self._clock.watching():
            images, milliseconds = self._run([request_for(self.plan.cell, sample)])
        used = energy.stop()
        stages = self._clock.milliseconds()
        ended = time.perf_counter()
        png_bytes(images[0])
        png_ms = (time.perf_counter() - ended) * 1000
        steps = stages.pop("transformer step", [])
        details = {
            "stages": {name: sum(values) for name, values in stages.items()},
            "steps": steps,
            "image_encoding": png_ms,
            "joules": used.joules,
            "energy": used.method,
            "slowdowns": list(monitor.slowdowns_between(began, ended)),
        }
        return Timed(milliseconds, details)

    def batch(self, size: int, memory: MemoryMeter | None = None) -> tuple[float, MemoryUse | None]:
        """Make a batch; return its seconds and, with a meter, its memory. Raises `OutOfMemoryError`.

        Its requests are fresh: nothing that was made before answers them.
        """
        self._batches += 1
        requests = [self._fresh(position) for position in range(size)]
        if memory is not None:
            memory.start()
        _, milliseconds = self._run(requests)
        return milliseconds / 1000, memory.stop() if memory is not None else None

    def _fresh(self, position: int) -> Request:
        """As `request`, from noise that no batch had before; images of one search still share theirs."""
        request = self.request(position)
        turn = position // len(self.plan.cell.samples)
        seed = int(fingerprint([request.noise_seed, self._batches, turn])[:15], 16)
        return replace(request, noise_seed=seed)

    def _run(self, requests: list[Request]) -> "tuple[np.ndarray | Sequence[np.ndarray], float]":
        if isinstance(self.generator, HasStages):
            self.generator.forget()
        self.timer.finish()
        start = self.timer.mark()
        images = self.generator.generate(requests)
        end = self.timer.mark()
        self.timer.finish()
        return images, self.timer.milliseconds(start, end)


def fits(subject: Subject, size: int, memory: MemoryMeter) -> MemoryUse | str:
    """Make one batch outside the timing; its memory, or the reason why it does not fit."""
    try:
        _, used = subject.batch(size, memory)
    except OutOfMemoryError as error:
        return f"out of memory at a batch of {size}: {error}"
    assert used is not None
    return used
