"""What a run still has to do: samples without a verified image, and how long that may take."""

import hashlib
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sana_bench.core.progress import format_seconds
from sana_bench.core.samples import Sample
from sana_bench.core.stopping import workers
from sana_bench.results.reader import SampleResult, asked_images
from sana_bench.results.schema import ImageRow
from sana_bench.results.store import Store
from sana_bench.suites.cells import Cell, ResolvedSuite
from sana_models.files import read_bytes

__all__ = [
    "CellPlan",
    "Estimate",
    "asked_rows",
    "estimate_seconds",
    "image_is_intact",
    "plan_cell",
    "plan_lines",
]

_READERS = 8

# Seconds of one network call on one image, for plans made before anything was timed. Measured for the micro
# tier on two CPU cores; for the full tier on one data-centre GPU at 1024 pixels.
_DEFAULT_STEP_SECONDS = {"micro": 0.007, "full": 0.05}


@dataclass(frozen=True)
class CellPlan:
    """The state of one cell: images that verify, and samples to generate.

    `done` has the path where each image was found, `wanted` are the samples inside the limit in the order of work, and
    `missing` those of them to generate, both with the path relative to the run directory. `errors` say why samples failed before;
    `damaged` counts recorded images whose file is gone or changed.
    """

    cell: Cell
    done: tuple[SampleResult, ...]
    wanted: tuple[Sample, ...]
    missing: tuple[Sample, ...]
    damaged: int
    errors: Mapping[tuple[str, int], str]

    @property
    def n_expected(self) -> int:
        """Samples of the whole cell, whatever the limit."""
        return self.cell.benchmark.n_samples


def plan_cell(
    cell: Cell,
    store: Store | None,
    output: Path,
    run_directory: Path,
    limit: int | None,
    *,
    verify: bool = True,
) -> CellPlan:
    """Compare what a cell needs with what the store and the disk have.

    A recorded image counts only if a file with the recorded length and SHA-256 is in this run's directory or
    where an earlier run left it; without `verify` the record is believed (for estimates). `limit` bounds what
    is to be generated, to the first samples in the order of work, and never hides what is there already.
    """
    rows = asked_rows(cell, store)
    recorded = [
        SampleResult(sample, row)
        for sample in cell.samples
        if (row := rows.get(sample.place)) is not None and row.status == "ok"
    ]

    def locate(one: SampleResult) -> SampleResult | None:
        candidates = [run_directory / one.sample.image_path, output / str(one.image.path)]
        if verify:
            candidates = [path for path in candidates if image_is_intact(path, one.image)]
        return replace(one, sample=replace(one.sample, image_path=candidates[0])) if candidates else None

    with workers(_READERS) as pool:
        done = tuple(one for one in pool.map(locate, recorded) if one is not None)
    there = {one.sample.place for one in done}
    wanted = cell.samples[:limit]
    missing = tuple(sample for sample in wanted if sample.place not in there)
    errors = {place: row.error or "no image" for place, row in rows.items() if row.status != "ok"}
    return CellPlan(cell, done, wanted, missing, len(recorded) - len(done), errors)


def asked_rows(cell: Cell, store: Store | None) -> dict[tuple[str, int], ImageRow]:
    """What a store has of a cell's samples, finished or failed, by prompt and index."""
    if store is None:
        return {}
    prompts = {prompt.id: prompt for prompt in cell.benchmark.prompts}
    return asked_images(store, cell.image_key, prompts, cell.benchmark.images_per_prompt)


def image_is_intact(path: Path, row: ImageRow) -> bool:
    """Say whether `path` is a file with the recorded length and SHA-256."""
    try:
        content = read_bytes(path)
    except OSError:
        return False
    return len(content) == row.length and hashlib.sha256(content).hexdigest() == row.sha256


@dataclass(frozen=True)
class Estimate:
    """Seconds that generation may take, and what the number rests on."""

    seconds: float
    basis: str


def estimate_seconds(plan: CellPlan, store: Store | None, tier: str) -> Estimate:
    """Estimate the time to generate what a cell misses, from timings in the store when there are any."""
    timed = [one.image.seconds for one in plan.done if one.image.seconds]
    if not timed and store is not None:
        timed = [row.seconds for row in store.images(plan.cell.image_key).values() if row.seconds]
    if timed:
        return Estimate(statistics.median(timed) * len(plan.missing), f"median of {len(timed)} timed images")
    sampler, search = plan.cell.variant.variant.sampler, plan.cell.variant.variant.best_of_n
    # One more for text encoder and decoder.
    per_image = _DEFAULT_STEP_SECONDS[tier] * (1 + (sampler.steps if sampler else 0))
    if search is None:
        return Estimate(per_image * len(plan.missing), "default, nothing timed yet")
    made = search.candidates / search.keep
    return Estimate(
        per_image * made * len(plan.missing), f"default for {made:g} candidates an image, nothing timed yet"
    )


def plan_lines(
    resolved: ResolvedSuite, plans: list[CellPlan], store: Store | None, output: Path
) -> list[str]:
    """Return the plan as `--dry-run` prints it."""
    lines = [f"run {resolved.run_id} in {output / 'runs' / resolved.run_id}"]
    total_images, total_seconds = 0, 0.0
    for plan in plans:
        estimate = estimate_seconds(plan, store, resolved.tier.tier)
        wanted = len(plan.done) + len(plan.missing)
        part = f" of {plan.n_expected}" if wanted < plan.n_expected else ""
        redo = f", {plan.damaged} damaged" if plan.damaged else ""
        redo += f", {len(plan.errors)} failed before" if plan.errors else ""
        lines.append(
            f"{plan.cell.label}: {wanted}{part} images, {len(plan.done)} done{redo}, "
            f"{len(plan.missing)} to generate, about {format_seconds(estimate.seconds)} ({estimate.basis})"
        )
        total_images += len(plan.missing)
        total_seconds += estimate.seconds
    metrics = sorted({metric for plan in plans for metric in plan.cell.benchmark.metrics})
    lines.append(f"then score with {', '.join(metrics)}")
    lines.append(f"total: {total_images} images to generate, about {format_seconds(total_seconds)}")
    return lines
