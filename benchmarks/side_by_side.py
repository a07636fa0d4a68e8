"""Timing two or more contestants side by side: interleaved, in one run, medians with their spread."""

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

__all__ = ["Timing", "environment", "interleave", "table"]

PACKAGES = ("torch", "diffusers", "transformers")


@dataclass(frozen=True)
class Timing:
    """Seconds of every repetition, in the order measured."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median seconds."""
        return statistics.median(self.seconds)

    def __str__(self) -> str:
        return f"{self.median:.3f} s [{min(self.seconds):.3f}, {max(self.seconds):.3f}]"


def interleave(contestants: Mapping[str, Callable[[], object]], repetitions: int) -> dict[str, Timing]:
    """Run every contestant once to warm up, then all of them in turn, `repetitions` times."""
    for run in contestants.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(repetitions):
        # Odd rounds in reverse: none always profits from what its neighbour left in the caches.
        names = list(contestants) if turn % 2 == 0 else list(reversed(contestants))
        for name in names:
            began = time.perf_counter()
            contestants[name]()
            seconds[name].append(time.perf_counter() - began)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def environment() -> dict[str, str]:
    """Processor, threads and versions that a reader needs to judge the numbers."""
    import torch

    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "")
    return {
        "processor": models[0] if models else platform.processor(),
        "threads": str(torch.get_num_threads()),
        "native bf16": "yes" if "avx512_bf16" in flags or "amx_bf16" in flags else "no",
        **{name: version(name) for name in PACKAGES},
    }


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
