"""Measuring the variants of a run in turns, doing only what the result store does not have yet."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from sana_bench.core.errors import SampleError
from sana_bench.core.progress import Progress, say
from sana_bench.core.provenance import now
from sana_bench.generators import diffusers, sana
from sana_bench.generators.base import OutOfMemoryError
from sana_bench.generators.torch_device import memory_errors_told
from sana_bench.profiling import ProfileOptions
from sana_bench.profiling.hardware import CpuProbe, GpuProbe, Hardware, Monitor, describe_hardware
from sana_bench.profiling.identity import PROTOCOLS, measured_identity, measured_key, measured_protocol
from sana_bench.profiling.memory import CpuMemory, CudaMemory, MemoryMeter
from sana_bench.profiling.nvml import Nvml, open_nvml
from sana_bench.profiling.power import EnergyMeter
from sana_bench.profiling.record import Profile, profile_path, stored_profiles, write_profile
from sana_bench.profiling.roofline import find_peaks, measure_peaks
from sana_bench.profiling.subject import Subject
from sana_bench.profiling.sweep import Sweep, SweepSettings, sweep
from sana_bench.profiling.timers import timer_for
from sana_bench.profiling.trace import trace_path, write_trace
from sana_bench.profiling.work import ImageWork, count_image_work, stage_precision
from sana_bench.results.reader import SampleResult, paired_scores
from sana_bench.results.schema import ScoreRecord
from sana_bench.results.store import Store
from sana_bench.suites.plan import CellPlan

__all__ = ["ProfileOptions", "Profiler"]

_WARMUPS = 2
_LARGEST_BATCH = {"micro": 16, "full": 64}


class Profiler:
    """Measures cells of the latency benchmark on one device; every round of images is durable before the next."""

    def __init__(
        self,
        store: Store,
        run_directory: Path,
        session_id: int,
        *,
        tier: str,
        device: str,
        options: ProfileOptions | None = None,
    ) -> None:
        self._store = store
        self._directory = run_directory
        self._session_id = session_id
        self._device = device
        self._options = options or ProfileOptions()
        largest = self._options.largest_batch or _LARGEST_BATCH[tier]
        self._sweep = SweepSettings(largest, limit_bytes=self._options.memory_limit)

    def _sweep_of(self, plan: CellPlan) -> SweepSettings:
        """The batches of a cell: up to the size that the suite asks for, if the run makes so many images, or a sweep."""
        asked = plan.cell.benchmark.throughput_batch
        if asked is None:
            return self._sweep
        largest = min(asked, self._options.limit or asked)
        return replace(self._sweep, largest=largest, exact=largest == asked)

    @cached_property
    def _nvml(self) -> tuple[Nvml | None, str]:
        if not self._device.startswith("cuda"):
            return None, "not measured on a CPU"
        import torch

        return open_nvml(str(torch.cuda.get_device_properties(self._device).uuid))

    @cached_property
    def hardware(self) -> Hardware:
        """The device that measures."""
        return describe_hardware(self._device, self._nvml[0])

    def key(self, metric: str, plan: CellPlan) -> str:
        """The key of a metric of a cell on this device."""
        return measured_key(metric, measured_identity(metric, plan.cell, self.hardware))

    def measure(self, plans: Sequence[CellPlan]) -> None:
        """Time the images and batches that are missing, variants in turns, and write the trace that was asked for."""
        plans = [plan for plan in plans if plan.done]
        trace = self._options.trace
        traces = [trace_path(trace, p.cell.variant.name, len(plans)) for p in plans] if trace else []
        for plan in plans:
            for metric in set(plan.cell.benchmark.metrics) & set(PROTOCOLS):
                identity = measured_identity(metric, plan.cell, self.hardware)
                protocol = measured_protocol(metric, identity)
                self._store.put_metric(self.key(metric, plan), metric, protocol, identity)
        missing = {plan.cell.variant.name: self._missing(plan) for plan in plans}
        todo = [p for p in plans if not self._adopt(p) or missing[p.cell.variant.name]]
        if not todo and not traces:
            return
        say(f"latency on {self.hardware.label}: {', '.join(p.cell.variant.name for p in todo or plans)}")
        # Variants that have all their times are loaded only to be traced.
        loaded = plans if traces else todo
        try:
            self._load_and_measure(loaded, todo, missing, traces)
        except OutOfMemoryError as error:
            say(
                f"latency: out of memory with {len(loaded)} variants loaded ({error}); --variants measures fewer"
            )

    def _load_and_measure(
        self,
        plans: Sequence[CellPlan],
        todo: Sequence[CellPlan],
        missing: dict[str, list[SampleResult]],
        traces: Sequence[Path],
    ) -> None:
        # What the run has loaded already would otherwise load in no time.
        sana.forget_loaded()
        diffusers.forget_loaded()
        with memory_errors_told(self._device):
            subjects = [Subject(plan, self._device, timer_for(self._device)) for plan in plans]
        for subject, path in zip(subjects, traces, strict=False):
            subject.warm_up(1)
            write_trace(path, partial(subject.batch, 1), cuda=self._device.startswith("cuda"))
            say(f"trace: {path} (open it in https://ui.perfetto.dev)")
        wanted = {plan.cell.variant.name for plan in todo}
        self._measure([subject for subject in subjects if subject.name in wanted], missing)

    def profile(self, plan: CellPlan) -> Profile | None:
        """What was measured of a cell on this device, as far as it is asked for; None unless all of that was measured.

        It may come from another run of the output folder, as images and times do.
        """
        found = stored_profiles(self._directory, plan.cell.variant.name, self.key("throughput", plan))
        return next((kept for one in found if (kept := self._as_asked(one, plan)) is not None), None)

    def _as_asked(self, found: Profile, plan: CellPlan) -> Profile | None:
        if "throughput" not in plan.cell.benchmark.metrics:
            return replace(found, batches=[], stopped="")
        sweep = self._sweep_of(plan)
        largest = sweep.largest
        batches = [batch for batch in found.batches if batch.size <= largest]
        if len(batches) < len(found.batches):
            return replace(found, batches=batches, stopped=sweep.reached)
        if found.stopped.startswith("memory limit"):
            return found if found.memory_limit == sweep.limit_bytes else None
        reaches = bool(batches) and batches[-1].size * 2 > largest
        return found if reaches or found.stopped.startswith("out of memory") else None

    def _adopt(self, plan: CellPlan) -> bool:
        """Whether a cell has its profile; one of another run is brought into this run's directory."""
        variant, profile = plan.cell.variant, self.profile(plan)
        if profile is None:
            return False
        path = profile_path(self._directory, variant.name, profile.key)
        if not path.is_file():
            own = replace(profile, variant=variant.name, fingerprint=variant.fingerprint)
            write_profile(path, own)
        return True

    def scores(self, plan: CellPlan) -> dict[tuple[str, int], ScoreRecord]:
        """The stored times of a cell's images on this device, by prompt and index."""
        return paired_scores(self._store, self.key("latency", plan), plan.done)

    def _missing(self, plan: CellPlan) -> list[SampleResult]:
        if "latency" not in plan.cell.benchmark.metrics:
            return []
        timed = self.scores(plan)
        return [one for one in plan.done if one.sample.place not in timed]

    def _measure(self, subjects: list[Subject], missing: dict[str, list[SampleResult]]) -> None:
        if not subjects:
            return
        nvml, reason = self._nvml
        probe = GpuProbe(nvml) if nvml is not None else CpuProbe() if self._device == "cpu" else None
        works = [self._count(subject) for subject in subjects]
        for subject in subjects:
            subject.warm_up(_WARMUPS)
        with Monitor(probe) as monitor:
            energy = EnergyMeter(nvml, reason, monitor.power)
            self._time_images(subjects, missing, energy, monitor)
            fresh = [subject for subject in subjects if self.profile(subject.plan) is None]
            swept = [s for s in fresh if "throughput" in s.plan.cell.benchmark.metrics]
            sweeps = dict(zip([s.name for s in swept], self._time_batches(swept), strict=True))
        summary = monitor.summary()
        peaks = None
        if fresh and not self._device.startswith("cuda"):
            peaks = asdict(measure_peaks(self.hardware.name))
        by_name = dict(zip([subject.name for subject in subjects], works, strict=True))
        for subject in fresh:
            found = sweeps.get(subject.name, Sweep())
            self._write(subject, found, by_name[subject.name], peaks, summary, len(subjects))

    def _count(self, subject: Subject) -> ImageWork | None:
        return count_image_work(subject.generator, subject.plan.cell.variant.variant, subject.request(0))

    def _time_images(
        self,
        subjects: list[Subject],
        missing: dict[str, list[SampleResult]],
        energy: EnergyMeter,
        monitor: Monitor,
    ) -> None:
        rounds = max(len(missing[subject.name]) for subject in subjects)
        total = sum(len(missing[subject.name]) for subject in subjects)
        if not total:
            return
        with Progress("latency", total, "images") as progress:
            for number in range(rounds):
                # Each round starts with another variant, so that none always follows the same one.
                first = number % len(subjects)
                made: list[tuple[Subject, ScoreRecord]] = []
                for subject in (*subjects[first:], *subjects[:first]):
                    if number >= len(missing[subject.name]):
                        continue
                    one = missing[subject.name][number]
                    try:
                        timed = subject.image(one.sample, energy, monitor)
                    except SampleError as error:
                        say(f"latency / {subject.name}: {one.prompt.id}: {error}")
                        continue
                    details = {**timed.details, "round": number, "session": self._session_id}
                    made.append((subject, ScoreRecord(*one.score_key, timed.ms, details)))
                for subject, record in made:
                    self._store.put_scores(self.key("latency", subject.plan), [record], self._session_id)
                progress.advance(len(made))

    def _time_batches(self, subjects: list[Subject]) -> list[Sweep]:
        if not subjects:
            return []
        on_gpu = self._device.startswith("cuda")
        memory: MemoryMeter = CudaMemory(self._device, self._nvml[0]) if on_gpu else CpuMemory()
        settings = self._sweep_of(subjects[0].plan)
        with Progress("throughput", len(settings.sizes), "batch sizes") as progress:
            return sweep(subjects, memory, settings, progress.advance, predict=not on_gpu)

    def _write(
        self,
        subject: Subject,
        found: Sweep,
        work: ImageWork | None,
        peaks: dict[str, Any] | None,
        monitor: dict[str, Any],
        together: int,
    ) -> None:
        variant = subject.plan.cell.variant
        key = self.key("throughput", subject.plan)
        stages = work.stages if work is not None else {}
        known = find_peaks(self.hardware.name)
        profile = Profile(
            variant=variant.name, fingerprint=variant.fingerprint, key=key,
            latency_key=self.key("latency", subject.plan), device=self.hardware.name,
            label=self.hardware.label, driver=self.hardware.driver, created=now(), load_s=subject.load_s,
            cold_ms=subject.cold_ms, compile_s=subject.compile_s, warmups=_WARMUPS, batches=found.batches,
            stopped=found.stopped, repeats=self._sweep.repeats, together=together,
            torch_flops=work.torch_flops if work is not None else None,
            work={name: {**asdict(one), "precision": stage_precision(name, variant.variant)}
                  for name, one in stages.items()},
            peaks=asdict(known) if known is not None else peaks, monitor=monitor,
            notes={"nvml": self._nvml[1]} if self._nvml[1] else {}, memory_limit=self._sweep.limit_bytes,
        )  # fmt: skip
        write_profile(profile_path(self._directory, variant.name, key), profile)
