"""What the steps between two rows of the curve were like."""

import resource
import time
from collections.abc import Mapping

import torch

from sana_models.training.distributed import is_main, sum_over_processes

__all__ = ["Extra", "Meter"]

#: Further numbers of a step: a value, or a sum and of how many values, whose mean over the steps is wanted.
Extra = Mapping[str, float | tuple[float, int]]


class Meter:
    """Adds up a task's further numbers, images and time, until a row is taken."""

    def __init__(self) -> None:
        #: Sum and count by name, of this process.
        self.totals: dict[str, list[float]] = {}
        self._images, self._mark = 0, time.monotonic()

    def add(self, extra: Extra, images: int) -> None:
        """Count a step of `images` images, over all processes."""
        self._images += images
        for name, value in extra.items():
            total, count = value if isinstance(value, tuple) else (value, 1)
            entry = self.totals.setdefault(name, [0.0, 0.0])
            entry[0] += float(total)
            entry[1] += count

    def skip_time(self) -> None:
        """Leave what happened since the last step out of the images a second."""
        self._images, self._mark = 0, time.monotonic()

    def all_totals(self, device: torch.device) -> dict[str, list[float]]:
        """Return the totals over all processes: a part of the state, so that a resumed run has the rows of one not stopped."""
        names = list(self.totals)
        sums = torch.tensor([self.totals[name] for name in names], dtype=torch.float64).reshape(-1, 2)
        return dict(zip(names, sum_over_processes(sums, device).tolist(), strict=True))

    def resume(self, totals: Mapping[str, list[float]]) -> None:
        """Go on from totals over all processes, which the first one takes."""
        self.totals = {name: list(entry) if is_main() else [0.0, 0.0] for name, entry in totals.items()}

    def row(self, device: torch.device) -> dict[str, float | None]:
        """Return the means since the last row over all processes, None of nothing; images a second; the most memory in GB."""
        row: dict[str, float | None] = {
            name: round(total / count, 6) if count else None
            for name, (total, count) in self.all_totals(device).items()
        }
        seconds = max(time.monotonic() - self._mark, 1e-9)
        row |= {"images_per_s": round(self._images / seconds, 3), "memory_gb": round(_memory_gb(device), 3)}
        self.totals = {name: [0.0, 0.0] for name in self.totals}
        self.skip_time()
        return row


def _memory_gb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
