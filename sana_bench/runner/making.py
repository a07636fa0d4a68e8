"""The images that a run lacks, made and recorded: from a plan of one cell to files and rows of the store."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from sana_bench import generators
from sana_bench.core import atomic
from sana_bench.core.cut_texts import CUT_TEXTS, CutTexts
from sana_bench.core.progress import Progress, say
from sana_bench.core.provenance import now
from sana_bench.core.samples import Sample
from sana_bench.generators.base import CutsPrompts, Generator, PreparesPrompts
from sana_bench.profiling.image_flops import note_flops
from sana_bench.results.store import Store
from sana_bench.runner.generation import Halved, generate_missing
from sana_bench.suites.cells import Cell
from sana_bench.suites.plan import CellPlan, plan_cell

__all__ = ["ImageMaker"]


class ImageMaker:
    """Plans cells of one run and makes what they lack; `session_id` is the session that it counts for."""

    def __init__(
        self,
        store: Store,
        directory: Path,
        session_id: int,
        *,
        device: str,
        batch_size: int,
        text_cache: bool,
    ) -> None:
        self._store = store
        self._directory = directory
        self._session_id = session_id
        self._device = device
        self._batch_size = batch_size
        self._text_cache = text_cache

    def plan(
        self, cell: Cell, *, limit: int | None = None, samples: Sequence[Sample] | None = None
    ) -> CellPlan:
        """What a cell has and lacks, as `plan_cell` finds it."""
        return plan_cell(cell, self._store, self._store.output, self._directory, limit, samples=samples)

    def adopt(self, plan: CellPlan) -> None:
        """Bring intact images that an earlier run left elsewhere into this run's directory.

        Raises `UsageError` where an image that is missing could not be written.
        """
        for sample in plan.missing:
            place = self._directory / sample.image_path
            if place.is_dir() and not place.is_symlink():
                raise atomic.in_the_way(place, place.lstat().st_mode)
        found = {one.sample.place: one.sample.image_path for one in plan.done}
        for sample in plan.cell.samples:
            path, target = found.get(sample.place), self._directory / sample.image_path
            if path is not None and path != target:
                atomic.link_or_copy(path, target)

    def open(self, cell: Cell) -> Generator:
        """The generator of a cell, loaded; what it cuts of the prompts and what an image costs is recorded."""
        cache = self._store.output / "cache"
        spec = replace(cell.spec, search_cache=cache / "search")
        if self._text_cache:
            spec = replace(spec, text_cache=cache / "text")
        generator = generators.build(spec, self._device)
        if isinstance(generator, CutsPrompts):
            texts = sorted({cell.given_text(prompt) for prompt in cell.benchmark.prompts})
            self.note_cuts(cell.variant.name, cell.benchmark.name, partial(generator.cut_texts, texts))
        note_flops(self._store, self._directory.name, cell, generator)
        return generator

    def make(self, plan: CellPlan, generator: Generator, progress: Progress | None = None) -> None:
        """Make what a plan lacks. It is told to `progress`; without one, as stages of their own."""
        label = plan.cell.label
        if isinstance(generator, PreparesPrompts):
            # Ahead of the images, so that the seconds of an image do not depend on which variant came first.
            prompts = list(dict.fromkeys(plan.cell.given_text(sample.prompt) for sample in plan.missing))
            self._prepare(generator, prompts, None if progress is not None else f"{label}: text")
        if progress is not None:
            self._record(plan, generator, progress.advance)
            return
        with Progress(label, len(plan.missing), "images") as own:
            self._record(plan, generator, own.advance)

    def note_cuts(self, of: str, benchmark: str, count: Callable[[], list[CutTexts]]) -> None:
        """Record once a run how many texts a model or metric is given without their end."""
        events = self._store.events(self._directory.name)
        if (of, benchmark) in {(e["of"], e["benchmark"]) for e in events if e["kind"] == CUT_TEXTS}:
            return
        for found in count():
            details = {"of": of, "benchmark": benchmark, **asdict(found)}
            self._store.add_event(self._session_id, now(), CUT_TEXTS, details)

    def _prepare(self, generator: PreparesPrompts, prompts: Sequence[str], label: str | None) -> None:
        if label is None:
            for prompt in prompts:
                generator.prepare(prompt)
            return
        with Progress(label, len(prompts), "prompts") as progress:
            for prompt in prompts:
                generator.prepare(prompt)
                progress.advance(1)

    def _record(self, plan: CellPlan, generator: Generator, advance: Callable[[int], None]) -> None:
        cell = plan.cell
        steps = generate_missing(
            plan,
            generator,
            output=self._store.output,
            run_directory=self._directory,
            batch_size=self._batch_size,
            device=self._device,
        )
        with closing(steps):
            for step in steps:
                if isinstance(step, Halved):
                    details = {
                        "variant": cell.variant.name,
                        "batch_size": step.batch_size,
                        "reason": step.reason,
                    }
                    self._store.add_event(self._session_id, now(), "batch_halved", details)
                    say(f"{cell.label}: out of memory; continuing with batches of {step.batch_size}")
                    continue
                run_id = self._directory.name
                self._store.put_images(cell.image_key, run_id, step.rows, now(), self._session_id)
                advance(len(step.rows))
