"""How long what is missing may take, and how sure that is: from times of the variant, of others, or a guess from neither."""

import json
import math
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from sana_bench import generators
from sana_bench.analysis.model_size import count_parameters
from sana_bench.core.errors import UsageError
from sana_bench.core.progress import format_seconds, say
from sana_bench.core.provenance import describe_machine
from sana_bench.core.tiers import Tier
from sana_bench.generators.base import HasStages, OutOfMemoryError, PreparesPrompts
from sana_bench.results.reader import batch_seconds, device_label
from sana_bench.results.run_folder import RunFiles
from sana_bench.results.store import Store
from sana_bench.results.stored_suite import StoredSuite
from sana_bench.runner.generation import make_batch
from sana_bench.suites.cells import Cell
from sana_bench.suites.plan import CellPlan
from sana_bench.suites.schema import Variant

if TYPE_CHECKING:
    from sana_reports.published_speed import SpeedRow

__all__ = ["Effort", "Estimate", "Estimator"]

# How far off a time may be, as a factor either way: of the variant itself on this machine, which other work slows down;
# scaled from another variant; scaled from another machine, or guessed.
_MEASURED, _SCALED, _GUESSED = 1.2, 2.0, 4.0
# Above so many seconds an image, a batch takes about as long for each of its images as one alone.
_SLOW_S = 5.0
# What published times were made with, and the GPU that a machine without published times is told of.
_PUBLISHED_STEPS, _PUBLISHED_GPU = 20, "A100"


@dataclass(frozen=True)
class Effort:
    """What the time of an image grows with: `made` candidates for it, each of so many network `passes`; parameters, pixels.

    None where it is not known.
    """

    made: float
    passes: float
    parameters: float | None
    pixels: int | None

    @classmethod
    def of(cls, variant: Variant, parameters: int | None) -> "Effort":
        """That of a variant whose denoising network has so many parameters."""
        sampler, search, model = variant.sampler, variant.best_of_n, variant.model
        made = search.candidates / search.keep if search is not None else 1.0
        # Two more for text encoder and decoder.
        passes = 2 + (sampler.branches * sampler.steps if sampler is not None else 0)
        return cls(made, passes, parameters, (model.height or 0) * (model.width or 0) or None)

    def over(self, other: "Effort") -> float:
        """How many times as long as with `other` an image takes; what one of them does not know counts as equal."""
        ratio = self.made * self.passes / (other.made * other.passes)
        for mine, its in ((self.parameters, other.parameters), (self.pixels, other.pixels)):
            if mine and its:
                ratio *= mine / its
        return ratio


@dataclass(frozen=True)
class Estimate:
    """Seconds that generation may take, between `low` and `high`, and what the number rests on."""

    seconds: float
    low: float
    high: float
    basis: str

    def __add__(self, other: "Estimate") -> "Estimate":
        return Estimate(
            self.seconds + other.seconds, self.low + other.low, self.high + other.high, self.basis
        )

    @property
    def line(self) -> str:
        """`about 40 s (20 s to 1 min 20 s; what it rests on)`."""
        if not self.seconds:
            return self.basis
        span = f"{format_seconds(self.low)} to {format_seconds(self.high)}"
        return f"about {format_seconds(self.seconds)} ({span}; {self.basis})"


@dataclass(frozen=True)
class _Timed:
    """Seconds an image of one variant, a number for each batch; `elsewhere` names the machine if it is another."""

    name: str
    fingerprint: str
    effort: Effort
    seconds: Sequence[float]
    elsewhere: str = ""
    how: str = "measured here"

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


# Of one variant of the micro tier on two processor cores, in batches; taken where nothing was timed.
_MICRO = _Timed("sana-micro", "", Effort(1, 42, 2_719_048, 64 * 64), [0.15])


class Estimator:
    """What is known about times on `device`: those in the store, and those that are taken now."""

    def __init__(self, store: Store | None, tier: Tier, device: str) -> None:
        self._tier, self._device = tier, device
        self._machine = describe_machine(device)
        self._timed = _stored_times(store, tier, _machine_label(self._machine)) if store is not None else []
        self._just_timed: set[str] = set()

    def measure(self, plan: CellPlan, batch_size: int) -> None:
        """Time images of a cell now, once for each variant. What cannot be made is left to be estimated."""
        cell = plan.cell
        if not plan.missing or not cell.variant.variant.generates:
            return
        if cell.variant.fingerprint in self._just_timed:
            return
        self._just_timed.add(cell.variant.fingerprint)
        single = _single_search(cell)
        seconds, count = _time_now(single, self._device, batch_size)
        if seconds is not None:
            how = f"timed just now, {count} at once" if count > 1 else "one image timed just now"
            effort = _effort(cell)
            # A search is timed by one candidate.
            each = seconds * effort.over(_effort(single))
            self._timed.append(_Timed(cell.variant.name, cell.variant.fingerprint, effort, [each], how=how))

    def estimate(self, plan: CellPlan) -> Estimate:
        """Estimate the time to generate what a cell misses."""
        variant = plan.cell.variant
        if not variant.variant.generates:
            return Estimate(0, 0, 0, "its images exist")
        return self.estimate_images(
            variant.variant, _effort(plan.cell), len(plan.missing), variant.fingerprint
        )

    def estimate_images(
        self, variant: Variant, effort: Effort, count: int, fingerprint: str = ""
    ) -> Estimate:
        """Estimate the time of `count` images of a variant."""
        own = [one for one in self._timed if one.fingerprint == fingerprint and not one.elsewhere]
        if own:
            latest = own[-1]
            low, high = latest.median / _MEASURED, latest.median * _MEASURED
            if len(latest.seconds) > 1:
                cuts = statistics.quantiles(latest.seconds, n=10, method="inclusive")
                low, high = min(low, cuts[0]), max(high, cuts[-1])
            batches = f", median of {len(latest.seconds)} batches" if len(latest.seconds) > 1 else ""
            return Estimate(latest.median * count, low * count, high * count, f"{latest.how}{batches}")
        here = [one for one in self._timed if not one.elsewhere]
        if found := here or self._timed:
            source = min(found, key=lambda one: (_distance(effort, one.effort), one.name))
            factor, basis = (_SCALED if here else _GUESSED), f"scaled from {source.name}, {source.how}"
        else:
            source, basis = self._guess(variant, effort)
            factor = _GUESSED
        each = source.median * effort.over(source.effort) * count
        return Estimate(each, each / factor, each * factor, basis)

    def _guess(self, variant: Variant, effort: Effort) -> tuple[_Timed, str]:
        if self._tier == "micro":
            return _MICRO, f"a guess, scaled from {_MICRO.name} on two processor cores; nothing was timed yet"
        from sana_reports.published_speed import PUBLISHED_SPEED

        name = str(self._machine["device_name"])
        published = [row for row in PUBLISHED_SPEED if row.hardware.partition(" (")[0] in name]
        other = "" if published else f"; none is published for {name}"
        rows = published or [row for row in PUBLISHED_SPEED if row.hardware == _PUBLISHED_GPU]
        # SANA's tokens are 32 pixels wide; models of 8 or 16 pixels a token are nearer to one another.
        alike = [
            row for row in rows if row.model.lower().startswith("sana") == (variant.image_source == "sana")
        ]
        source = min(map(_published, alike or rows), key=lambda one: _distance(effort, one.effort))
        return source, f"a guess from the published speed of {source.name} on one {source.elsewhere}{other}"


def _effort(cell: Cell) -> Effort:
    spec = cell.spec
    parameters = count_parameters(spec.weights_path, spec.variant.model.weights_variant)
    return Effort.of(spec.variant, parameters)


def _distance(one: Effort, other: Effort) -> float:
    """How far two efforts for one candidate are apart: what a search multiplies is exactly known."""
    ratio = replace(one, made=1.0).over(replace(other, made=1.0))
    return abs(math.log(ratio))


def _published(row: "SpeedRow") -> _Timed:
    seconds = 1 / row.throughput if row.throughput else float(row.latency_s or 0)
    parameters = row.parameters_b * 1e9 if row.parameters_b else None
    effort = Effort(1, 2 + 2 * _PUBLISHED_STEPS, parameters, row.resolution**2)
    return _Timed(row.model, "", effort, [seconds], elsewhere=row.hardware)


def _machine_label(machine: dict[str, Any]) -> str:
    threads = {"threads": machine.get("torch_threads")} if machine["device"] == "cpu" else {}
    return device_label({"device": machine["device_name"], **threads})


def _stored_times(store: Store, tier: str, here: str) -> list[_Timed]:
    """What each run of a tier in the store knows about its variants' times, oldest first."""
    found = []
    for run_id in store.run_ids():
        row = store.run(run_id)
        if row is None or row["tier"] != tier:
            continue
        try:
            suite = StoredSuite.read(RunFiles(store.output / row["directory"]).suite)
        except UsageError:
            continue
        made_on = row["provenance"] if "device_name" in row["provenance"] else None
        # A run that was stopped has not said yet where it is: here, unless it came from elsewhere.
        place = _machine_label(made_on) if made_on else row["origin"] or here
        for described in suite.variants:
            rows = [
                image
                for benchmark in suite.benchmarks
                for image in store.images(benchmark.image_key(described)).values()
                if image.made_by == run_id
            ]
            variant = _stored_variant(described.settings)
            if variant is None or not variant.generates or not (seconds := batch_seconds(rows)):
                continue
            size = row["provenance"].get("models", {}).get(described.name, {}).get("parameters")
            elsewhere = "" if place == here else place
            how = f"measured on {place}" if elsewhere else "measured here"
            effort = Effort.of(variant, size)
            found.append(_Timed(described.name, described.fingerprint, effort, seconds, elsewhere, how))
    return found


def _stored_variant(settings: Any) -> Variant | None:
    known = {key: value for key, value in settings.items() if key in Variant.model_fields}
    try:
        return Variant.model_validate_json(json.dumps({**known, "name": "stored"}))
    except ValidationError:  # of another version
        return None


def _single_search(cell: Cell) -> Cell:
    """The cell with a single candidate for each image of a search; any other cell as it is."""
    search = cell.variant.variant.best_of_n
    if search is None:
        return cell
    one = search.model_copy(update={"candidates": 1, "keep": 1})
    variant = cell.variant.variant.model_copy(update={"best_of_n": one})
    return replace(cell, variant=replace(cell.variant, spec=replace(cell.variant.spec, variant=variant)))


def _time_now(cell: Cell, device: str, batch_size: int) -> tuple[float | None, int]:
    """Seconds an image of the cell takes now, and how many were made at once; None where none could be made.

    Text is encoded before, as in a run. Nothing is kept.
    """
    samples = cell.samples[:batch_size]
    say(f"{cell.label}: timing up to {len(samples)} images")
    with tempfile.TemporaryDirectory() as folder:
        spec = replace(cell.spec, text_cache=Path(folder))
        generator = generators.build(spec, device)
        if isinstance(generator, PreparesPrompts):
            for prompt in dict.fromkeys(cell.given_text(sample.prompt) for sample in samples):
                generator.prepare(prompt)
        try:
            first = make_batch(cell, samples[:1], generator)
        except OutOfMemoryError:
            return None, 0
        if first.images[0].pixels is None:
            return None, 0
        if isinstance(generator, HasStages):
            generator.forget()  # a search remembers its last call
        if first.seconds <= _SLOW_S and len(samples) > 1:
            with suppress(OutOfMemoryError):
                return make_batch(cell, samples, generator).seconds, len(samples)
        return first.seconds, 1
