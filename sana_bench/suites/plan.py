"""What a run still has to do: samples without a verified image, and how long that may take."""

import hashlib
import statistics
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sana_bench.core.progress import format_seconds
from sana_bench.results.schema import ImageRow
from sana_bench.results.store import Store
from sana_bench.suites.cells import Cell, ResolvedSuite, SampleKey

__all__ = ["CellPlan", "Estimate", "Have", "estimate_seconds", "image_is_intact", "plan_cell", "plan_lines"]

_READERS = 8

# Seconds of one network call on one image, for plans made before anything was timed. Measured for the micro
# tier on two CPU cores; for the full tier on one data-centre GPU at 1024 pixels.
_DEFAULT_STEP_SECONDS = {"micro": 0.007, "full": 0.05}


@dataclass(frozen=True)
class Have:
    """A recorded image and where its bytes were found."""

    key: SampleKey
    row: ImageRow
    path: Path


@dataclass(frozen=True)
class CellPlan:
    """The state of one cell: images that verify, and samples to generate.

    `wanted` are the samples inside the limit, in the order of work, and `missing` those of them to generate;
    `damaged` counts recorded images whose file is gone or changed, `failed` samples that failed before.
    """

    cell: Cell
    done: tuple[Have, ...]
    wanted: tuple[SampleKey, ...]
    missing: tuple[SampleKey, ...]
    damaged: int
    failed: int

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
    rows = store.images(cell.image_key) if store is not None else {}
    recorded, failed = [], 0
    for key in cell.benchmark.samples:
        row = rows.get(key.id)
        if row is not None and row.prompt_sha256 == key.prompt.sha256:
            failed += row.status != "ok"
            if row.status == "ok":
                recorded.append((key, row))

    def locate(pair: tuple[SampleKey, ImageRow]) -> Have | None:
        key, row = pair
        candidates = [run_directory / cell.image_path(key), output / str(row.path)]
        if not verify:
            return Have(key, row, candidates[0])
        found = next((path for path in candidates if image_is_intact(path, row)), None)
        return Have(key, row, found) if found is not None else None

    with ThreadPoolExecutor(_READERS) as pool:
        done = tuple(have for have in pool.map(locate, recorded) if have is not None)
    have_ids = {have.key.id for have in done}
    wanted = cell.benchmark.samples[:limit]
    missing = tuple(key for key in wanted if key.id not in have_ids)
    return CellPlan(cell, done, wanted, missing, len(recorded) - len(done), failed)


def image_is_intact(path: Path, row: ImageRow) -> bool:
    """Say whether `path` is a file with the recorded length and SHA-256."""
    try:
        content = path.read_bytes()
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
    timed = [have.row.seconds for have in plan.done if have.row.seconds]
    if not timed and store is not None:
        timed = [row.seconds for row in store.images(plan.cell.image_key).values() if row.seconds]
    if timed:
        return Estimate(statistics.median(timed) * len(plan.missing), f"median of {len(timed)} timed images")
    sampler = plan.cell.variant.variant.sampler
    # One more for text encoder and decoder.
    per_image = _DEFAULT_STEP_SECONDS[tier] * (1 + (sampler.steps if sampler else 0))
    return Estimate(per_image * len(plan.missing), "default, nothing timed yet")


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
        redo += f", {plan.failed} failed before" if plan.failed else ""
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
