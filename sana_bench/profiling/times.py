"""The single times of a variant on one device, and their summaries."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Self

from sana_bench.core.samples import OVERALL
from sana_bench.metrics.base import Summary
from sana_bench.profiling.identity import PROTOCOLS, measured_identity, measured_protocol
from sana_bench.profiling.record import Profile
from sana_bench.profiling.session import Profiler
from sana_bench.results.schema import ScoreRecord
from sana_bench.suites.plan import CellPlan

__all__ = ["Times", "measured_summary"]

_NOISY = 0.1


@dataclass(frozen=True)
class Times:
    """Timed images in the order they were made; without any, only `records` and `slowdowns` can be asked for."""

    records: tuple[ScoreRecord, ...]

    @classmethod
    def of(cls, scores: Iterable[ScoreRecord]) -> Self:
        """Put the stored times of a variant into their order."""
        return cls(
            tuple(
                sorted(scores, key=lambda one: (one.details.get("session", 0), one.details.get("round", 0)))
            )
        )

    @property
    def milliseconds(self) -> list[float]:
        """Time of each image."""
        return [record.value for record in self.records]

    @property
    def spread(self) -> float:
        """Distance between the quartiles over the median."""
        import numpy as np

        low, middle, high = np.quantile(self.milliseconds, [0.25, 0.5, 0.75])
        return float((high - low) / middle)

    @property
    def drift(self) -> float:
        """Median of the second half over that of the first, minus 1; 0 for fewer than four."""
        values = self.milliseconds
        half = len(values) // 2
        if half < 2:
            return 0.0
        return statistics.median(values[half:]) / statistics.median(values[:half]) - 1

    @property
    def slowdowns(self) -> dict[str, int]:
        """Images made while the device was slowed down, by reason."""
        found: dict[str, int] = {}
        for record in self.records:
            for reason in record.details.get("slowdowns", ()):
                found[reason] = found.get(reason, 0) + 1
        return found

    @property
    def joules(self) -> tuple[float | None, str]:
        """Median energy of an image, with the method; None with the reason where any is missing."""
        values = [record.details.get("joules") for record in self.records]
        known = [float(value) for value in values if value is not None]
        method = str(self.records[0].details.get("energy", ""))
        return (statistics.median(known) if len(known) == len(values) else None), method

    def stages(self) -> dict[str, float]:
        """Median milliseconds an image of each stage, in order; `other` is what no stage covers."""
        rows = [_stage_row(record) for record in self.records]
        return {name: statistics.median(row.get(name, 0.0) for row in rows) for name in rows[0]}

    def step_ms(self) -> float | None:
        """Median milliseconds of one transformer step over all images; None where steps were not seen."""
        steps = [value for record in self.records for value in record.details.get("steps", ())]
        return statistics.median(steps) if steps else None

    def noise(self) -> str:
        """How far the times can be trusted, in a few words."""
        words = [f"spread {100 * self.spread:.0f} %"]
        if self.spread > _NOISY:
            words.append("noisy")
        if abs(self.drift) > _NOISY:
            words.append(f"drifted by {100 * self.drift:+.0f} %")
        words += [f"{count} images during {reason}" for reason, count in self.slowdowns.items()]
        return ", ".join(words)


def _stage_row(record: ScoreRecord) -> dict[str, float]:
    details: dict[str, Any] = record.details
    stages = {name: float(value) for name, value in details.get("stages", {}).items()}
    steps = details.get("steps", ())
    if steps:
        decoder = {name: stages.pop(name) for name in ("decoder",) if name in stages}
        stages |= {"transformer step": float(sum(steps)), **decoder}
    if stages:
        stages["other"] = max(0.0, record.value - sum(stages.values()))
    return stages | {"image encoding": float(details["image_encoding"])}


def measured_summary(profiler: Profiler, plan: CellPlan, metric: str, seed: int) -> Summary | None:
    """The summary of a measured metric of a cell; None where nothing was measured."""
    if metric == "latency":
        times = Times.of(profiler.scores(plan).values())
        return _latency(times, profiler, plan, seed) if times.records else None
    profile = profiler.profile(plan)
    asked = plan.cell.benchmark.throughput_batch
    batches = [one for one in (profile.batches if profile is not None else []) if asked in (None, one.size)]
    if profile is None or not batches:
        return None
    return _throughput(replace(profile, batches=batches), profiler, plan, seed)


def _latency(times: Times, profiler: Profiler, plan: CellPlan, seed: int) -> Summary:
    from sana_bench.results.statistics.latency import quantile_interval

    found = quantile_interval(times.milliseconds, 0.5, seed=seed)
    return Summary(
        metric="latency",
        protocol=PROTOCOLS["latency"],
        key=OVERALL,
        value=found.value,
        low=found.low,
        high=found.high,
        n_samples=len(times.records),
        n_expected=plan.n_expected,
        n_prompts=len(plan.cell.benchmark.prompts),
        unit="ms",
        higher_is_better=False,
        note=f"median on {profiler.hardware.label}, batch 1, warm; {times.noise()}",
    )


def _throughput(profile: Profile, profiler: Profiler, plan: CellPlan, seed: int) -> Summary:
    from sana_bench.results.statistics.latency import quantile_interval

    best = max(profile.batches, key=lambda batch: batch.size / statistics.median(batch.seconds))
    found = quantile_interval(best.seconds, 0.5, seed=seed)
    return Summary(
        metric="throughput",
        protocol=measured_protocol(
            "throughput", measured_identity("throughput", plan.cell, profiler.hardware)
        ),
        key=OVERALL,
        value=best.size / found.value,
        low=best.size / found.high,
        high=best.size / found.low,
        n_samples=len(best.seconds),
        n_expected=profile.repeats,
        n_prompts=len(plan.cell.benchmark.prompts),
        unit="images/s",
        higher_is_better=True,
        note=f"batches of {best.size} on {profiler.hardware.label}; stopped at {profile.stopped}",
    )
