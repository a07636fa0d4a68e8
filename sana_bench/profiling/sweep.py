"""Throughput against batch size, up to what memory holds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sana_bench.profiling.memory import MemoryMeter, available_bytes
from sana_bench.profiling.record import Batch
from sana_bench.profiling.subject import Subject, fits

__all__ = ["Sweep", "SweepSettings", "sweep"]


@dataclass(frozen=True)
class SweepSettings:
    """Largest batch to try, repetitions of each, and for a CPU the bytes that a batch may add.

    Without `limit_bytes` a batch may take `share` of what the machine has left. With `exact` the largest batch is measured
    although it is no power of two.
    """

    largest: int
    repeats: int = 3
    limit_bytes: int | None = None
    share: float = 0.8
    exact: bool = False

    @property
    def sizes(self) -> list[int]:
        """The batch sizes, doubling from 1."""
        powers = [1 << place for place in range(self.largest.bit_length())]
        return powers if not self.exact or self.largest in powers else [*powers, self.largest]

    @property
    def reached(self) -> str:
        """Why a sweep stopped that nothing stopped earlier."""
        return f"the largest batch asked for, {self.largest}"


@dataclass
class Sweep:
    """What was found for one subject."""

    batches: list[Batch] = field(default_factory=list)
    stopped: str = ""


def sweep(
    subjects: Sequence[Subject],
    memory: MemoryMeter,
    settings: SweepSettings,
    advance: Callable[[int], None],
    *,
    predict: bool,
    available: Callable[[], int | None] = available_bytes,
) -> list[Sweep]:
    """Try the batch sizes of the settings, all subjects in turns at each, until memory or the last ends it.

    Where running out of memory cannot be caught (`predict`, a CPU), a size is not tried when twice the growth of the
    size before it would pass the limit.
    """
    found = [Sweep() for _ in subjects]
    for size in settings.sizes:
        active = [index for index, one in enumerate(found) if not one.stopped]
        for index in list(active):
            reason = _refuse(found[index], size, settings, available) if predict else ""
            used = reason or fits(subjects[index], size, memory)
            if isinstance(used, str):
                found[index].stopped = used
                active.remove(index)
                continue
            found[index].batches.append(Batch(size, [], used.peak, used.growth, used.source, used.nvml))
        for _ in range(settings.repeats):
            for index in active:
                found[index].batches[-1].seconds.append(subjects[index].batch(size)[0])
        advance(1)
        if not active:
            break
    for one in found:
        one.stopped = one.stopped or settings.reached
    return found


def _refuse(so_far: Sweep, size: int, settings: SweepSettings, available: Callable[[], int | None]) -> str:
    """The reason not to try a size, or an empty string."""
    if not so_far.batches:
        return ""
    needed = 2 * so_far.batches[-1].growth_bytes
    left = available()
    limit = settings.limit_bytes
    if limit is None:
        if left is None:
            return ""
        limit = int(settings.share * left)
    if needed <= limit:
        return ""
    return f"memory limit: a batch of {size} would add about {needed / 2**20:.0f} MiB, {limit / 2**20:.0f} are allowed"
