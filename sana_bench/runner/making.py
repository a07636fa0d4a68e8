"""The images that a run lacks, made and recorded: from plans of cells to files and rows of the store."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

from sana_bench.core import atomic
from sana_bench.core.cut_texts import CUT_TEXTS, CutTexts
from sana_bench.core.fingerprint import FileKey, ManyHashes, keep_hash
from sana_bench.core.progress import Progress, say
from sana_bench.core.provenance import now
from sana_bench.core.samples import Sample
from sana_bench.profiling.image_flops import keep_flops, lacks_flops
from sana_bench.results.store import Store
from sana_bench.runner.engines.base import Engine
from sana_bench.runner.workshop import ImageBatch, WrittenBatch, image_batches
from sana_bench.suites.cells import Cell
from sana_bench.suites.plan import CellPlan, plan_cell

__all__ = ["ImageMaker"]


class ImageMaker:
    """Plans cells of one run and makes what they lack; `session_id` is the session that it counts for."""

    def __init__(
        self, store: Store, directory: Path, session_id: int, engine: Engine, *, batch_size: int
    ) -> None:
        self._store = store
        self._directory = directory
        self._session_id = session_id
        self._engine = engine
        self._batch_size = batch_size
        # Each image is read once for all plans of this session, unless its file changes.
        self._hashes = ManyHashes()

    def plan(
        self, cell: Cell, *, limit: int | None = None, samples: Sequence[Sample] | None = None
    ) -> CellPlan:
        """What a cell has and lacks, as `plan_cell` finds it."""
        return plan_cell(
            cell,
            self._store,
            self._store.output,
            self._directory,
            limit,
            samples=samples,
            hashes=self._hashes,
        )

    def adopt(self, plan: CellPlan) -> None:
        """Bring intact images that an earlier run left elsewhere into this run's directory.

        Raises `UsageError` where an image that is missing could not be written.
        """
        for sample in plan.missing:
            place = self._directory / sample.image_path
            if place.is_dir() and not place.is_symlink():
                raise atomic.in_the_way(place, place.lstat().st_mode)
        for one in plan.elsewhere:
            path, target = one.sample.image_path, self._directory / plan.cell.image_path(*one.sample.place)
            before = FileKey.of(path)
            atomic.link_or_copy(path, target)
            keep_hash(before, target, self._hashes)

    def make(self, plans: Sequence[CellPlan], *, progress: Progress | None = None, models: int = 1) -> None:
        """Make what plans lack, keeping so many `models` loaded. Told to `progress`, or as stages of their own."""
        if progress is not None:
            self._record(plans, models, progress)
            return
        for together in [plans] if plans and self._engine.at_once else [[plan] for plan in plans]:
            label = together[0].cell.label if len(together) == 1 else f"{len(together)} cells"
            with Progress(label, sum(len(plan.missing) for plan in together), "images") as own:
                self._record(together, models, own)

    def note_cuts(self, of: str, benchmark: str, count: Callable[[], Iterable[CutTexts]]) -> None:
        """Record once a run how many texts a model or metric is given without their end."""
        if self._knows_cuts(of, benchmark):
            return
        for found in count():
            details = {"of": of, "benchmark": benchmark, **asdict(found)}
            self._store.add_event(self._session_id, now(), CUT_TEXTS, details)

    def _knows_cuts(self, of: str, benchmark: str) -> bool:
        events = self._store.events(self._directory.name)
        return (of, benchmark) in {(e["of"], e["benchmark"]) for e in events if e["kind"] == CUT_TEXTS}

    def _batches(self, plan: CellPlan, models: int) -> Iterator[ImageBatch]:
        """The batches of a plan; the first asks for what is not recorded of its cell yet."""
        cell, asks = plan.cell, set[str]()
        if not self._knows_cuts(cell.variant.name, cell.benchmark.name):
            asks.add("cuts")
        if lacks_flops(self._store, self._directory.name, cell):
            asks.add("flops")
        return image_batches(plan, self._batch_size, asks=frozenset(asks), models=models)

    def _record(self, plans: Sequence[CellPlan], models: int, progress: Progress) -> None:
        cells = {plan.cell.label: plan.cell for plan in plans}
        batches = (batch for plan in plans for batch in self._batches(plan, models))
        steps = self._engine.images(batches)
        with closing(steps):
            for batch, written in steps:
                cell, run_id = cells[batch.cell], self._directory.name
                self._note(cell, written)
                rows = [replace(row, worker=written.worker) for row in written.rows]
                self._store.put_images(cell.image_key, run_id, rows, now(), self._session_id)
                progress.advance(len(written.rows), self._engine.note)

    def _note(self, cell: Cell, written: WrittenBatch) -> None:
        """Record what was learnt on the way."""
        if written.cuts:
            self.note_cuts(cell.variant.name, cell.benchmark.name, lambda: written.cuts)
        if written.flops is not None:
            keep_flops(self._store, self._directory.name, cell, written.flops)
        for batch_size, reason in written.halved:
            details = {"variant": cell.variant.name, "batch_size": batch_size, "reason": reason}
            self._store.add_event(self._session_id, now(), "batch_halved", details)
            say(f"{cell.label}: out of memory; continuing with batches of {batch_size}")
