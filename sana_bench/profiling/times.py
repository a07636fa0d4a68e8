"""The single times of a variant on one device, read back from the result store, and their summaries."""

import statistics
from dataclasses import dataclass
from typing import Any

import numpy as np

from sana_bench.core.fingerprint import image_key
from sana_bench.core.samples import Prompt
from sana_bench.profiling.identity import PROTOCOLS
from sana_bench.profiling.record import Profile
from sana_bench.profiling.session import Profiler
from sana_bench.results.schema import ScoreRecord, SummaryRecord
from sana_bench.results.statistics.latency import quantile_interval
from sana_bench.results.store import Store
from sana_bench.suites.plan import CellPlan

__all__ = ["Times", "measured_summary", "read_times"]

_NOISY = 0.1


@dataclass(frozen=True)
class Times:
    """Timed images in the order they were made."""

    records: tuple[ScoreRecord, ...]

    @property
    def milliseconds(self) -> list[float]:
        """Time of each image."""
        return [record.value for record in self.records]

    @property
    def spread(self) -> float:
        """Distance between the quartiles over the median."""
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


def read_times(
    store: Store, fingerprint: str, benchmark: str, prompts: dict[str, Prompt], latency_key: str
) -> Times | None:
    """The times that the store has under a key; None without any."""
    images = [row for row in store.images(image_key(fingerprint, benchmark)).values() if row.status == "ok"]
    scores = store.scores(latency_key, (str(row.sha256) for row in images))
    judged = {p.id: p.judged_sha256 for p in prompts.values()}
    found = [
        score
        for row in images
        if (score := scores.get((str(row.sha256), judged.get(row.prompt_id, "")))) is not None
    ]
    ordered = sorted(found, key=lambda one: (one.details.get("session", 0), one.details.get("round", 0)))
    return Times(tuple(ordered)) if ordered else None


def measured_summary(
    store: Store, profiler: Profiler, plan: CellPlan, metric: str, seed: int
) -> tuple[list[SummaryRecord], str | None]:
    """The summary of a measured metric of a cell, or an empty list, and what it lacks, if anything."""
    prompts = {prompt.id: prompt for prompt in plan.cell.benchmark.prompts}
    times = read_times(
        store, plan.cell.variant.fingerprint, plan.cell.benchmark.name, prompts, profiler.key("latency", plan)
    )
    if metric == "latency":
        if times is None:
            return [], f"{plan.cell.label}: no image was timed"
        record = _latency(times, profiler, plan, seed)
        if record.n_samples < record.n_expected and len(plan.done) == plan.n_expected:
            return [record], f"{plan.cell.label}: {record.n_samples}/{record.n_expected} images timed"
        return [record], None
    profile = profiler.profile(plan)
    if profile is None or not profile.batches:
        return [], f"{plan.cell.label}: throughput was not measured"
    return [_throughput(profile, profiler, plan, seed)], None


def _latency(times: Times, profiler: Profiler, plan: CellPlan, seed: int) -> SummaryRecord:
    found = quantile_interval(times.milliseconds, 0.5, seed=seed)
    note = f"median on {profiler.hardware.label}, batch 1, warm; {times.noise()}"
    return _record("latency", profiler, plan, found.value, found.low, found.high, len(times.records),
                   plan.n_expected, "ms", False, note)  # fmt: skip


def _throughput(profile: Profile, profiler: Profiler, plan: CellPlan, seed: int) -> SummaryRecord:
    best = max(profile.batches, key=lambda batch: batch.size / statistics.median(batch.seconds))
    found = quantile_interval(best.seconds, 0.5, seed=seed)
    note = f"batches of {best.size} on {profiler.hardware.label}; stopped at {profile.stopped}"
    rates = (best.size / found.value, best.size / found.high, best.size / found.low)
    return _record(
        "throughput", profiler, plan, *rates, len(best.seconds), profile.repeats, "images/s", True, note
    )


def _record(
    metric: str,
    profiler: Profiler,
    plan: CellPlan,
    value: float,
    low: float,
    high: float,
    n_samples: int,
    n_expected: int,
    unit: str,
    higher_is_better: bool,
    note: str,
) -> SummaryRecord:
    cell = plan.cell
    return SummaryRecord(
        variant=cell.variant.name, benchmark=cell.benchmark.name, metric=metric, key="overall",
        metric_key=profiler.key(metric, plan), image_key=cell.image_key, protocol=PROTOCOLS[metric],
        value=value, low=low, high=high, n_samples=n_samples, n_expected=n_expected,
        n_prompts=len(cell.benchmark.prompts), unit=unit, higher_is_better=higher_is_better, note=note,
        complete=n_samples == n_expected,
    )  # fmt: skip
