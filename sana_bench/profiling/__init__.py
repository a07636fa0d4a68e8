"""How fast a variant is, on what hardware, and what it costs: timers, memory, energy, clocks, arithmetic and rooflines."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["ProfileOptions"]


@dataclass(frozen=True)
class ProfileOptions:
    """What the command line says; `memory_limit` is in bytes, for a CPU. `limit` images are all that a run makes of a variant."""

    trace: Path | None = None
    largest_batch: int | None = None
    limit: int | None = None
    memory_limit: int | None = None
