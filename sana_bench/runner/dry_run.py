"""What a run would do, and what it would need: printed before hours and gigabytes are spent, with nothing written or loaded."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from sana_bench.assets.needs import needs_of_suite
from sana_bench.assets.table import prompt_count, repository_facts
from sana_bench.core.engines import EngineRequest
from sana_bench.core.errors import AssetError
from sana_bench.core.fingerprint import HashCache
from sana_bench.core.progress import format_seconds, say, size_text
from sana_bench.core.storage import existing_part
from sana_bench.results.store import Store
from sana_bench.runner.benchmarks import asked_of, resolve_benchmark
from sana_bench.runner.engines.choice import choose_engine, plan_lines
from sana_bench.runner.estimate import Effort, Estimate, Estimator
from sana_bench.runner.resolve import find_weights, resolve_suite
from sana_bench.suites.cells import Cell, ResolvedSuite, joined_images, limited
from sana_bench.suites.find import variant_files
from sana_bench.suites.plan import CellPlan, plan_cell, work_left, work_of
from sana_bench.suites.schema import BenchmarkSpec, Suite, Variant
from sana_bench.suites.tiers import TierChoice
from sana_bench.suites.variant_file import read_variant_file

__all__ = ["DryRun"]

# Of an image without compression, which PNG only undercuts.
_BYTES_A_PIXEL = 3


@dataclass(frozen=True)
class _Line:
    """One cell of the plan: what is said of it, how many images are to come by which work, how long, their pixels in all."""

    text: str
    work: str
    n_missing: int
    estimate: Estimate
    pixels: int


@dataclass(frozen=True)
class DryRun:
    """A suite, and what is known about it on this machine."""

    suite: Suite
    tier: TierChoice
    store: Store | None
    hashes: HashCache
    output: Path
    batch_size: int
    limit: int | None = None
    variants: Sequence[str] | None = None
    engine: EngineRequest = field(default_factory=EngineRequest)

    def tell(self, *, measure: bool = False) -> str:
        """Print the plan and return the run's name; with `measure`, time up to a batch of each variant before.

        On the full tier, what is needed, its size and licence come first. What lacks weights or prompts is planned too, by what
        is published about it; then `AssetError` says at the end what a run would say.
        """
        if (needs := needs_of_suite(self.suite)) is not None:
            from sana_bench.runner.asset_overview import item_lines, items_of

            for line in [*item_lines(items_of(needs), f"what {self.suite.file.name} reads:"), ""]:
                say(line)
        resolved, problem = self._resolve()
        names = {self.suite.variant(name).name for name in self.variants or ()}
        cells = (
            [cell for cell in resolved.cells() if not names or cell.variant.name in names] if resolved else []
        )
        estimator = Estimator(self.store, self.tier.tier, self.tier.device)
        plans = [self._plan(cell) for cell in cells]
        if measure:
            for plan in plans:
                estimator.measure(plan, self.batch_size)
        for line in self.suite.borrowed:
            say(line)
        run_id = resolved.run_id if resolved is not None and problem is None else ""
        if run_id:
            say(f"run {run_id} in {self.output / 'runs' / run_id}")
        lines = [_planned(plan, estimator) for plan in plans]
        known = {(cell.benchmark.name, cell.variant.name) for cell in cells}
        lines += self._absent(known, names, resolved, estimator)
        for line in [*(one.text for one in lines), *self._totals(lines)]:
            say(line)
        if problem is not None:
            raise problem
        for line in self._of_workers(plans, resolved):
            say(line)
        return run_id

    def _of_workers(self, plans: Sequence[CellPlan], resolved: ResolvedSuite | None) -> list[str]:
        """What each worker would do, where there are several."""
        choice = choose_engine(
            self.engine, self.tier.device, resolved.benchmarks if resolved is not None else ()
        )
        told = [choice.line] if choice.line else []
        if choice.engine == "local":
            return told
        if choice.workers is None:
            return [*told, f"workers: one for each device of the cluster at {self.engine.address}"]
        return [*told, *plan_lines(plans, choice.workers, self.batch_size)]

    def _resolve(self) -> tuple[ResolvedSuite | None, AssetError | None]:
        """The suite as far as its weights and prompts are here, and what a run would say of the rest."""
        try:
            return resolve_suite(self.suite, self.tier, self.hashes), None
        except AssetError as error:
            problem = error
        suite = self.suite
        pairs = [
            (variant, file)
            for variant, file in zip(suite.variants, suite.files, strict=True)
            if _is_here(partial(find_weights, variant, suite, self.hashes))
        ]
        specs = [
            spec
            for spec in suite.file.benchmarks
            if _is_here(partial(resolve_benchmark, spec, suite, self.hashes))
        ]
        if not pairs or not specs:
            return None, problem
        part = replace(
            suite,
            variants=tuple(variant for variant, _ in pairs),
            files=tuple(file for _, file in pairs),
            file=suite.file.model_copy(update={"benchmarks": tuple(specs)}),
        )
        return resolve_suite(part, self.tier, self.hashes), problem

    def _plan(self, cell: Cell) -> CellPlan:
        # Where images of a run lie that is there already is known by their records alone.
        return plan_cell(cell, self.store, self.output, self.output, self.limit, verify=False)

    def _absent(
        self,
        known: set[tuple[str, str]],
        names: set[str],
        resolved: ResolvedSuite | None,
        estimator: Estimator,
    ) -> Iterator[_Line]:
        """The cells that lack weights or prompts, by what is published about them."""
        counted = {one.name: len(one.prompts) for one in resolved.benchmarks} if resolved is not None else {}
        for spec in self.suite.file.benchmarks:
            for variant in self.suite.variants:
                if (spec.label, variant.name) in known or (names and variant.name not in names):
                    continue
                label = f"{spec.label} / {variant.name}"
                prompts = counted.get(spec.label) or self._count_prompts(spec)
                if prompts is None:
                    text = f"{label}: how many prompts there are is not known before they are here"
                    yield _Line(text, work_of(variant), 0, Estimate(0, 0, 0, ""), 0)
                    continue
                each, _ = asked_of(spec, self.suite)
                whole = prompts * each
                count = limited(whole, self.limit, joined_images(spec.metric_specs, each))
                part = f" of {whole}" if count < whole else ""
                effort = Effort.of(variant, _published_parameters(variant, self.suite.folder(variant)))
                estimate = estimator.estimate_images(variant, effort, count)
                work = work_of(variant)
                text = f"{label}: {count}{part} images to {work}, {estimate.line}"
                yield _Line(text, work, count, estimate, _pixels(variant, count))

    def _count_prompts(self, spec: BenchmarkSpec) -> int | None:
        if spec.subset is not None:
            return spec.subset
        try:
            return len(resolve_benchmark(spec, self.suite, self.hashes).prompts)
        except AssetError:
            return prompt_count(spec.source)

    def _totals(self, lines: Sequence[_Line]) -> list[str]:
        total = sum((line.estimate for line in lines), Estimate(0, 0, 0, ""))
        span = f"{format_seconds(total.low)} to {format_seconds(total.high)}"
        took = f", about {format_seconds(total.seconds)}, {span}" if total.seconds else ""
        found = [f"total: {work_left((line.work, line.n_missing) for line in lines)}{took}"]
        if self.tier.tier == "full" and total.seconds:
            hours = [f"{seconds / 3600:,.1f}" for seconds in (total.seconds, total.low, total.high)]
            found.append(f"GPU hours: about {hours[0]}, {hours[1]} to {hours[2]}")
        size = _BYTES_A_PIXEL * sum(line.pixels for line in lines)
        free = shutil.disk_usage(existing_part(self.output)).free
        found.append(
            f"disk for images: at most {size_text(size)} in {self.output}; {size_text(free)} are free"
        )
        metrics = {name for spec in self.suite.file.benchmarks for name in asked_of(spec, self.suite)[1]}
        found.append(
            f"then loading, and scoring with {', '.join(sorted(metrics))}, which no time is estimated for"
        )
        return found


def _planned(plan: CellPlan, estimator: Estimator) -> _Line:
    estimate = estimator.estimate(plan)
    count, wanted = len(plan.missing), len(plan.done) + len(plan.missing)
    part = f" of {plan.n_expected}" if wanted < plan.n_expected else ""
    redo = f", {plan.damaged} damaged" if plan.damaged else ""
    redo += f", {len(plan.errors)} failed before" if plan.errors else ""
    took = f", {estimate.line}" if count else ""
    work = work_of(plan.cell.variant.variant)
    text = f"{plan.cell.label}: {wanted}{part} images, {len(plan.done)} done{redo}, {count} to {work}{took}"
    return _Line(text, work, count, estimate, _pixels(plan.cell.variant.variant, count))


def _published_parameters(variant: Variant, folder: Path) -> int | None:
    """Of the denoising network, by its repository; of what nobody publishes, those of the variant that it was made from."""
    weights, origin, known = variant.model.weights, variant.derived_from, variant_files(folder)
    while (found := repository_facts(weights).parameters) is None and origin in known:
        data = read_variant_file(known[origin]).data
        weights, origin = data["model"]["weights"], data.get("derived_from")
    return found


def _pixels(variant: Variant, count: int) -> int:
    return count * (variant.model.height or 0) * (variant.model.width or 0)


def _is_here(find: Callable[[], object]) -> bool:
    try:
        find()
    except AssetError:
        return False
    return True
