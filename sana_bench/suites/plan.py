"""What a run still has to do: samples without a verified image."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sana_bench.core.fingerprint import HashCache, file_sha256
from sana_bench.core.samples import Sample
from sana_bench.core.stopping import workers
from sana_bench.results.reader import SampleResult, asked_images
from sana_bench.results.schema import ImageRow
from sana_bench.results.store import Store
from sana_bench.suites.cells import Cell
from sana_bench.suites.schema import Variant

__all__ = ["CellPlan", "asked_rows", "image_is_intact", "plan_cell", "work_left", "work_of"]

_READERS = 8


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


def work_of(variant: Variant) -> str:
    """What is done for an image that is missing: `generate` it, or `read` the one that exists."""
    return "generate" if variant.generates else "read"


def work_left(missing: Iterable[tuple[str, int]]) -> str:
    """Images to come in words, from counts by `work_of`: `24 images to generate and 8 to read`."""
    counts: Counter[str] = Counter()
    for work, count in missing:
        counts[work] += count
    first, *others = counts.items() or [("generate", 0)]
    return " and ".join(
        [f"{first[1]} images to {first[0]}", *(f"{count} to {work}" for work, count in others)]
    )


def plan_cell(
    cell: Cell,
    store: Store | None,
    output: Path,
    run_directory: Path,
    limit: int | None,
    *,
    verify: bool = True,
    samples: Sequence[Sample] | None = None,
    hashes: HashCache | None = None,
) -> CellPlan:
    """Compare what a cell, or some `samples` of it in an order of their own, need with what the store and the disk have.

    A recorded image counts only if a file with the recorded length and SHA-256 is in this run's directory or
    where an earlier run left it; without `verify` the record is believed (for estimates). `hashes` remembers what was read, so
    that a file is not read again for as long as nothing touches it. `limit` bounds what
    is to be generated, to the first samples in the order of work (`ResolvedBenchmark.at_most`), and never hides what is there
    already.
    """
    rows = asked_rows(cell, store)
    asked = cell.samples if samples is None else samples
    recorded = [
        SampleResult(sample, row)
        for sample in asked
        if (row := rows.get(sample.place)) is not None and row.status == "ok"
    ]

    def locate(one: SampleResult) -> SampleResult | None:
        candidates = [run_directory / one.sample.image_path, output / str(one.image.path)]
        if verify:
            candidates = [path for path in candidates if image_is_intact(path, one.image, hashes)]
        return replace(one, sample=replace(one.sample, image_path=candidates[0])) if candidates else None

    with workers(_READERS) as pool:
        done = tuple(one for one in pool.map(locate, recorded) if one is not None)
    there = {one.sample.place for one in done}
    wanted = tuple(asked[: cell.benchmark.at_most(limit)])
    missing = tuple(sample for sample in wanted if sample.place not in there)
    errors = {place: row.error or "no image" for place, row in rows.items() if row.status != "ok"}
    return CellPlan(cell, done, wanted, missing, len(recorded) - len(done), errors)


def asked_rows(cell: Cell, store: Store | None) -> dict[tuple[str, int], ImageRow]:
    """What a store has of a cell's samples, finished or failed, by prompt and index."""
    if store is None:
        return {}
    prompts = {prompt.id: prompt for prompt in cell.benchmark.prompts}
    return asked_images(store, cell.image_key, prompts, cell.benchmark.images_per_prompt)


def image_is_intact(path: Path, row: ImageRow, hashes: HashCache | None = None) -> bool:
    """Say whether `path` is a file with the recorded length and SHA-256."""
    try:
        return path.stat().st_size == row.length and file_sha256(path, hashes) == row.sha256
    except OSError:
        return False
