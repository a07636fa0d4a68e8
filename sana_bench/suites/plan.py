"""What a run still has to do: samples without a verified image."""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sana_bench.core.errors import BenchError
from sana_bench.core.fingerprint import HashCache, file_sha256
from sana_bench.core.on_demand import OnDemand
from sana_bench.core.samples import Sample
from sana_bench.core.stopping import workers
from sana_bench.results.reader import SampleResult
from sana_bench.results.schema import ImageRow
from sana_bench.results.store import Store
from sana_bench.suites.cells import Cell
from sana_bench.suites.schema import Variant

__all__ = ["CellPlan", "asked_rows", "image_is_intact", "plan_cell", "work_left", "work_of"]

_READERS = 8
# Images that are looked for at once.
_AT_ONCE = 256


@dataclass(frozen=True)
class CellPlan:
    """The state of one cell: images that verify, and samples to generate.

    `done` has the path where each image was found and is read from the store as it is looked at; `elsewhere` are those of them
    that lie outside the run directory. `wanted` are the samples inside the limit in the order of work, and `missing` those of
    them to generate, both with the path relative to the run directory.
    `errors` say why samples failed before; `damaged` counts recorded images whose file is gone or changed.
    """

    cell: Cell
    done: Sequence[SampleResult]
    elsewhere: Sequence[SampleResult]
    wanted: Sequence[Sample]
    missing: Sequence[Sample]
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
    asked = cell.samples if samples is None else samples
    n_wanted = cell.benchmark.at_most(limit)

    finder = _Finder(cell, store, output, run_directory, hashes, verify)

    def located(number: int) -> SampleResult:
        return finder.located(asked[number], number in elsewhere)

    # Numbers alone are kept: a row and a path of each of many thousand images would be kilobytes.
    done, elsewhere, missing, damaged = array("L"), set[int](), array("L"), 0
    errors: dict[tuple[str, int], str] = {}
    with workers(_READERS) as pool:
        for start in range(0, len(asked), _AT_ONCE):
            part = list(asked[start : start + _AT_ONCE])
            rows = [_asked_row(cell, store, sample) for sample in part]
            for number, (sample, row, place) in enumerate(
                zip(part, rows, pool.map(finder.find, part, rows)), start
            ):
                if place is not None:
                    done.append(number)
                elif number < n_wanted:
                    missing.append(number)
                if place:
                    elsewhere.add(number)
                if row is not None and place is None:
                    damaged += row.status == "ok"
                    if row.status != "ok":
                        errors[sample.place] = row.error or "no image"
    wanted = asked[:n_wanted]
    return CellPlan(
        cell,
        OnDemand(located, done),
        OnDemand(located, sorted(elsewhere)),
        wanted,
        OnDemand(wanted.__getitem__, missing),
        damaged,
        errors,
    )


@dataclass(frozen=True)
class _Finder:
    """Looks for the recorded images of a cell, in the run's directory and where an earlier run left them."""

    cell: Cell
    store: Store | None
    output: Path
    run_directory: Path
    hashes: HashCache | None
    verify: bool

    def find(self, sample: Sample, row: ImageRow | None) -> int | None:
        """Which of the two places has a sample's image, 0 or 1; None where neither has."""
        if row is None or row.status != "ok":
            return None
        found = (
            not self.verify or image_is_intact(path, row, self.hashes) for path in self._places(sample, row)
        )
        return next((place for place, is_there in enumerate(found) if is_there), None)

    def located(self, sample: Sample, place: int) -> SampleResult:
        """A sample whose image was found, with its record as the store has it now."""
        row = _asked_row(self.cell, self.store, sample)
        if row is None:
            raise BenchError(f"{self.cell.label} {sample.id}: its record left the store while it was used")
        return SampleResult(replace(sample, image_path=self._places(sample, row)[place]), row)

    def _places(self, sample: Sample, row: ImageRow) -> tuple[Path, Path]:
        return self.run_directory / sample.image_path, self.output / str(row.path)


def asked_rows(cell: Cell, store: Store | None) -> Iterator[ImageRow]:
    """What a store has of a cell's samples, finished or failed."""
    rows = (_asked_row(cell, store, sample) for sample in cell.samples)
    return (row for row in rows if row is not None)


def _asked_row(cell: Cell, store: Store | None, sample: Sample) -> ImageRow | None:
    """What a store has of a sample, if it is of the same prompt."""
    row = store.image(cell.image_key, *sample.place) if store is not None else None
    return row if row is not None and row.prompt_sha256 == sample.prompt.sha256 else None


def image_is_intact(path: Path, row: ImageRow, hashes: HashCache | None = None) -> bool:
    """Say whether `path` is a file with the recorded length and SHA-256."""
    try:
        return path.stat().st_size == row.length and file_sha256(path, hashes) == row.sha256
    except OSError:
        return False
