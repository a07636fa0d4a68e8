"""Rooflines of measured profiles, projections to other devices, and how wrong those were where both are known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sana_bench.profiling.flops import Work
from sana_bench.profiling.record import Profile
from sana_bench.profiling.roofline import PEAKS, Peaks, bound_ms, find_peaks, project_ms

__all__ = ["Projection", "StageBound", "profile_peaks", "projections", "stage_bounds"]


@dataclass(frozen=True)
class StageBound:
    """One stage of one image: what it must do, how long it took, and the least it could take here and elsewhere."""

    stage: str
    work: Work
    precision: str
    measured_ms: float
    bounds_ms: Mapping[str, float]
    share: float | None


@dataclass(frozen=True)
class Projection:
    """Milliseconds of one image on another device; `error` is relative to what was measured there, if it was."""

    variant: str
    source: str
    target: str
    milliseconds: float
    measured_ms: float | None

    @property
    def error(self) -> float | None:
        """Projected over measured, minus 1."""
        return None if self.measured_ms is None else self.milliseconds / self.measured_ms - 1


def profile_peaks(profile: Profile) -> Peaks | None:
    """The peaks that the profile was stored with."""
    return Peaks(**profile.peaks) if profile.peaks else None


def stage_bounds(profile: Profile, stages_ms: Mapping[str, float]) -> list[StageBound]:
    """Every stage with counted work against its rooflines."""
    peaks = profile_peaks(profile)
    found = []
    for stage, described in profile.work.items():
        if stage not in stages_ms:
            continue
        work, precision = _work(described), str(described["precision"])
        targets = {name: bound_ms(work, target, precision) for name, target in PEAKS.items()}
        share = None
        if peaks is not None and precision in peaks.flops:
            share = bound_ms(work, peaks, precision) / stages_ms[stage]
        found.append(StageBound(stage, work, precision, stages_ms[stage], targets, share))
    return found


def projections(measured: Sequence[tuple[Profile, Mapping[str, float]]]) -> list[Projection]:
    """Project every profile of a device in the peak table to the others of the table.

    `measured` has each profile with its milliseconds by stage. A processor is projected nowhere: what limits it (few
    cores, caches) has no counterpart on a GPU.
    """
    totals = {
        (profile.fingerprint, known.name): sum(stages.values())
        for profile, stages in measured
        if (known := find_peaks(profile.device)) is not None
    }
    found = []
    for profile, stages in measured:
        source = find_peaks(profile.device)
        if source is None or not profile.work:
            continue
        for name, target in PEAKS.items():
            if name == source.name:
                continue
            work = {stage: _work(described) for stage, described in profile.work.items()}
            precisions = {stage: str(described["precision"]) for stage, described in profile.work.items()}
            total = project_ms(stages, work, source, target, precisions)
            known_ms = totals.get((profile.fingerprint, name))
            found.append(Projection(profile.variant, source.name, name, total, known_ms))
    return found


def _work(described: Mapping[str, object]) -> Work:
    names = ("flops", "weights", "activations", "itemsize")
    return Work(**{name: int(str(described[name])) for name in names})
