"""One execution of a suite: generate, score, summarise, store, report; again, only what is missing."""

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from sana_bench import generators
from sana_bench.analysis.report import write_run_report
from sana_bench.assets.fetch import fetch_suite
from sana_bench.core import atomic
from sana_bench.core.cut_texts import CUT_TEXTS, CutTexts
from sana_bench.core.errors import IncompleteError
from sana_bench.core.fingerprint import FileHashes
from sana_bench.core.progress import Progress, listed, say
from sana_bench.core.provenance import command_line, now
from sana_bench.core.registry import MEASURED
from sana_bench.core.tiers import TierRequest
from sana_bench.generators.base import CutsPrompts, PreparesPrompts
from sana_bench.metrics.base import CutsTexts, FeatureMetric, Metric, Summary, metric_key
from sana_bench.metrics.fid.metric import OWN
from sana_bench.profiling.image_flops import note_flops
from sana_bench.profiling.session import ProfileOptions, Profiler
from sana_bench.profiling.times import measured_summary
from sana_bench.results.database import disk_errors, writer_lock
from sana_bench.results.reader import incomplete_reasons
from sana_bench.results.run_folder import RunFiles
from sana_bench.results.schema import SummaryRecord
from sana_bench.results.store import Store
from sana_bench.runner.checks import (
    check_generators,
    check_output,
    choice_key,
    create_output,
    load_metrics,
    missing_images,
    reading,
    refuse_surplus,
    stoppable,
)
from sana_bench.runner.estimate import Estimator, plan_lines
from sana_bench.runner.generation import Halved, generate_missing
from sana_bench.runner.library_log import LibraryLog
from sana_bench.runner.loggers import Loggers, check_loggers
from sana_bench.runner.provenance import record_provenance
from sana_bench.runner.resolve import resolve_suite
from sana_bench.runner.scoring import Scorer
from sana_bench.suites.cells import Cell, ResolvedSuite
from sana_bench.suites.load import load_suite
from sana_bench.suites.plan import CellPlan, plan_cell
from sana_bench.suites.schema import Suite
from sana_bench.suites.tiers import choose_tier

__all__ = ["Outcome", "RunOptions", "execute_suite", "run_suite"]

_DEFAULT_BATCH_SIZE = {"micro": 32, "full": 8}


@dataclass(frozen=True)
class RunOptions:
    """What the command line of `sana-bench run` says."""

    suite: Path
    output: Path = Path("results")
    tier: TierRequest = "auto"
    limit: int | None = None
    variants: tuple[str, ...] | None = None
    overrides: tuple[str, ...] = ()
    batch_size: int | None = None
    dry_run: bool = False
    measure: bool = False
    loggers: tuple[str, ...] = ()
    text_cache: bool = True
    fetch: bool = False
    allow_incomplete: bool = False
    profile: ProfileOptions = field(default_factory=ProfileOptions)


@dataclass(frozen=True)
class Outcome:
    """The run that a suite became, and the exit code: 0 when all that was asked for is there, 3 otherwise."""

    run_id: str
    exit_code: int


def run_suite(options: RunOptions, suite: Suite | None = None) -> int:
    """Run a suite as `execute_suite` does, and return the exit code."""
    return execute_suite(options, suite).exit_code


def execute_suite(options: RunOptions, suite: Suite | None = None) -> Outcome:
    """Run a suite: generate, score and report what is missing.

    `suite` stands in for the file that `options` names. Nothing is written before suite, weights, metrics and folders of
    existing images have been checked. What libraries print meanwhile goes to the run's log file. Raises `BenchError`.
    """
    with LibraryLog() as log:
        return _run_suite(options, suite, log)


def _run_suite(options: RunOptions, suite: Suite | None, log: LibraryLog) -> Outcome:
    check_loggers(options.loggers)
    tier = choose_tier(options.tier)
    suite = suite or load_suite(options.suite, tier.tier, options.overrides)
    check_output(options.output)
    say(tier.line)
    if options.fetch:
        fetch_suite(suite, say)
    with reading(options.output) as store:
        hashes = FileHashes(store.file_hashes() if store is not None else None)
        resolved = resolve_suite(suite, tier, hashes)
        cells = resolved.cells(options.variants)
        directory = options.output / "runs" / resolved.run_id
        plans = [
            plan_cell(cell, store, options.output, directory, options.limit, verify=False) for cell in cells
        ]
        if options.dry_run:
            estimator = Estimator(store, tier.tier, tier.device)
            if options.measure:
                for plan in plans:
                    estimator.measure(plan, options.batch_size or _DEFAULT_BATCH_SIZE[tier.tier])
            for line in suite.borrowed + plan_lines(resolved, plans, estimator, options.output):
                say(line)
            return Outcome(resolved.run_id, 0)
    surplus = refuse_surplus(cells, options.allow_incomplete)
    loaded = load_metrics(resolved, options.output, hashes)
    check_generators(plans, tier.device)
    create_output(options.output)
    with (
        disk_errors(options.output),
        writer_lock(options.output),
        Store.open(options.output) as store,
        stoppable(),
    ):
        store.put_file_hashes(hashes.learnt)
        session = _Session(store, resolved, options, cells, loaded, surplus, log)
        return Outcome(resolved.run_id, session.execute())


class _Session:
    """The writing part of a run; the caller holds the output's lock."""

    def __init__(
        self,
        store: Store,
        resolved: ResolvedSuite,
        options: RunOptions,
        cells: list[Cell],
        loaded: dict[str, Metric | FeatureMetric],
        surplus: dict[str, list[str]],
        log: LibraryLog,
    ) -> None:
        self._store = store
        self._resolved = resolved
        self._options = options
        self._cells = cells
        self._metrics = loaded
        self._surplus = surplus
        self._log = log
        self._output = options.output
        self._run_id = resolved.run_id
        self._files = RunFiles(options.output / "runs" / resolved.run_id)
        self._session_id = 0
        self._checked: dict[str, Any] = {}

    def execute(self) -> int:
        """Do everything; record how it ended, and tell the loggers."""
        described = {
            **self._resolved.describe(),
            "run_id": self._run_id,
            "fingerprint": self._resolved.fingerprint,
            "directory": str(self._files.directory),
        }
        self._files.directory.mkdir(parents=True, exist_ok=True)
        self._log.keep_in(self._files.log)
        loggers = Loggers(self._options.loggers, self._files.directory)
        with loggers.observe(described) as result:
            self._prepare()
            self._check()
            return self._work(loggers, result)

    def _work(self, loggers: Loggers, result: dict[str, Any]) -> int:
        state = result["state"]
        reasons: list[str] = []
        try:
            self._generate_all()
            profiler = self._profile_all()
            reasons = self._score_all(profiler)
            state = "incomplete" if reasons else "done"
        except KeyboardInterrupt:
            state = "interrupted"
            say(self._how_to_resume())
            return IncompleteError.exit_code
        finally:
            # On a full disk even this cannot be written; the error in flight is the one to tell.
            with suppress(sqlite3.OperationalError) if state == "failed" else nullcontext():
                self._store.finish_session(self._session_id, now(), state)
            result.update(state=state, incomplete=reasons)
        self._report(reasons)
        for record in self._store.summaries(self._run_id):
            loggers.summary(asdict(record))
        return IncompleteError.exit_code if reasons else 0

    def _prepare(self) -> None:
        suite = self._resolved.suite.file
        directory = self._files.directory
        atomic.remove_leftovers(directory)
        created = now()
        relative = directory.relative_to(self._output).as_posix()
        fingerprint = self._resolved.fingerprint
        self._store.put_run(
            self._run_id, suite.name, self._resolved.tier.tier, fingerprint, relative, created
        )
        self._session_id = self._store.start_session(self._run_id, created, command_line())
        text = yaml.safe_dump(self._resolved.describe(), sort_keys=False, allow_unicode=True)
        atomic.write_text(self._files.suite, text)
        for benchmark in self._resolved.benchmarks:
            self._files.write_prompts(benchmark.name, benchmark.prompts)
        for cell in self._resolved.cells():
            if cell.variant.rewrites is not None:
                texts = {prompt.id: cell.given_text(prompt) for prompt in cell.benchmark.prompts}
                self._files.write_rewrites(cell.variant.name, cell.benchmark.name, texts)

    def _check(self) -> None:
        """Say before hours of work when this machine's numbers are known to be wrong."""
        from sana_bench.metrics.selfcheck.session import check_run

        # What a distance is held against changes nothing about how it is computed.
        protocols = [metric.protocol.removesuffix(OWN) for metric in self._metrics.values()]
        self._checked = check_run(protocols, self._resolved.tier.device, self._output)
        if any(state.startswith("failed") for state in self._checked["protocols"].values()):
            say(self._checked["summary"])

    def _plan(self, cell: Cell) -> CellPlan:
        return plan_cell(cell, self._store, self._output, self._files.directory, self._options.limit)

    def _generate_all(self) -> None:
        plans = [self._plan(cell) for cell in self._cells]
        for plan in plans:
            self._adopt(plan)
        todo = [plan for plan in plans if plan.missing]
        n_missing = sum(len(plan.missing) for plan in todo)
        n_done = sum(len(plan.done) for plan in plans)
        self._store.count_reused(self._session_id, n_done)
        damaged = sum(plan.damaged for plan in plans)
        note = f", {damaged} damaged or lost and to be made again" if damaged else ""
        say(f"run {self._run_id}: {n_missing} images to generate, {n_done} already there{note}")
        for plan in todo:
            self._generate(plan)

    def _adopt(self, plan: CellPlan) -> None:
        """Bring intact images that an earlier run left elsewhere into this run's directory."""
        found = {one.sample.place: one.sample.image_path for one in plan.done}
        for sample in plan.cell.samples:
            path, target = found.get(sample.place), self._files.directory / sample.image_path
            if path in (None, target):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            try:
                os.link(path, target)
            except OSError:  # another file system, or one without hard links
                atomic.write_bytes(target, path.read_bytes())

    def _generate(self, plan: CellPlan) -> None:
        cell = plan.cell
        device = self._resolved.tier.device
        spec = replace(cell.variant.spec, search_cache=self._output / "cache" / "search")
        if self._options.text_cache:
            spec = replace(spec, text_cache=self._output / "cache" / "text")
        generator = generators.build(spec, device)
        label = cell.label
        if isinstance(generator, CutsPrompts):
            texts = sorted({cell.given_text(prompt) for prompt in cell.benchmark.prompts})
            self._note_cuts(cell.variant.name, cell.benchmark.name, partial(generator.cut_texts, texts))
        note_flops(self._store, self._run_id, cell, generator)
        if isinstance(generator, PreparesPrompts):
            # Ahead of the images, so that the seconds of an image do not depend on which variant came first.
            prompts = list(dict.fromkeys(cell.given_text(sample.prompt) for sample in plan.missing))
            with Progress(f"{label}: text", len(prompts), "prompts") as progress:
                for prompt in prompts:
                    generator.prepare(prompt)
                    progress.advance(1)
        steps = generate_missing(
            plan,
            generator,
            output=self._output,
            run_directory=self._files.directory,
            batch_size=self._options.batch_size or _DEFAULT_BATCH_SIZE[self._resolved.tier.tier],
            device=device,
        )
        with closing(steps), Progress(label, len(plan.missing), "images") as progress:
            for step in steps:
                if isinstance(step, Halved):
                    details = {
                        "variant": cell.variant.name,
                        "batch_size": step.batch_size,
                        "reason": step.reason,
                    }
                    self._store.add_event(self._session_id, now(), "batch_halved", details)
                    say(f"{label}: out of memory; continuing with batches of {step.batch_size}")
                    continue
                self._store.put_images(cell.image_key, self._run_id, step.rows, now(), self._session_id)
                progress.advance(len(step.rows))

    def _note_cuts(self, of: str, benchmark: str, count: Callable[[], list[CutTexts]]) -> None:
        """Record once a run how many texts a model or metric is given without their end."""
        known = {
            (e["of"], e["benchmark"]) for e in self._store.events(self._run_id) if e["kind"] == CUT_TEXTS
        }
        if (of, benchmark) in known:
            return
        for found in count():
            details = {"of": of, "benchmark": benchmark, **asdict(found)}
            self._store.add_event(self._session_id, now(), CUT_TEXTS, details)

    def _profile_all(self) -> Profiler:
        """Measure what is measured while images are made, all variants in turns."""
        tier = self._resolved.tier
        profiler = Profiler(
            self._store,
            self._files.directory,
            self._session_id,
            tier=tier.tier,
            device=tier.device,
            options=self._options.profile,
        )
        plans = [self._plan(cell) for cell in self._cells if set(cell.benchmark.metrics) & set(MEASURED)]
        profiler.measure(plans)
        return profiler

    def _score_all(self, profiler: Profiler) -> list[str]:
        """Score every cell, store the summaries, and return the reasons why the result is incomplete."""
        plans = [self._plan(cell) for cell in self._cells]
        total = sum(len(plan.done) * len(set(plan.cell.benchmark.metrics) - set(MEASURED)) for plan in plans)
        rows: list[SummaryRecord] = []
        reasons: list[str] = []
        with Progress("scoring", total, "scores") as progress:
            directory = self._files.directory
            scorer = Scorer(self._store, directory, self._session_id, self._resolved.seed, progress.advance)
            for plan in plans:
                own, told = self._score_cell(plan, scorer, profiler)
                cell, failed = plan.cell, len(plan.errors)
                reasons += incomplete_reasons(cell.label, cell.benchmark, len(plan.done), failed, own, told)
                # A mark on the numbers, whose counts are right.
                marked = cell.variant.name in self._surplus
                rows += [replace(row, complete=row.complete and not marked) for row in own]
        self._list_missing(plans)
        reasons += [
            f"{name} has {len(files)} images that the suite does not ask for"
            for name, files in self._surplus.items()
        ]
        self._store.put_summaries(self._run_id, {cell.variant.name for cell in self._cells}, rows)
        return reasons

    def _score_cell(
        self, plan: CellPlan, scorer: Scorer, profiler: Profiler
    ) -> tuple[list[SummaryRecord], dict[str, str]]:
        """The numbers of a cell, and by metric the reason why there is none."""
        cell, rows, told = plan.cell, list[SummaryRecord](), dict[str, str]()
        for name in cell.benchmark.metrics:
            if plan.missing and not self._options.allow_incomplete:
                told[name] = f"{cell.label} is not scored without --allow-incomplete"
                continue
            if name in MEASURED:
                found = measured_summary(profiler, plan, name, self._resolved.seed)
                if found is None:
                    told[name] = f"{cell.label}: {name} was not measured"
                else:
                    rows.append(_record(cell, profiler.key(name, plan), found))
                continue
            metric = self._metrics[choice_key(cell.benchmark, name)]
            if isinstance(metric, CutsTexts):
                self._note_cuts(name, cell.benchmark.name, partial(metric.cut_texts, cell.samples))
            try:
                rows += [_record(cell, metric_key(metric), one) for one in scorer.score(plan, metric)]
            except IncompleteError as error:
                told[name] = f"{cell.label}: {error}"
        return rows, told

    def _list_missing(self, plans: Sequence[CellPlan]) -> None:
        short = {f"{plan.cell.label} lacks:": missing_images(plan) for plan in plans if plan.missing}
        for line in listed(short):
            say(line)

    def _report(self, reasons: list[str]) -> None:
        record_provenance(self._store, self._files, self._resolved, self._checked)
        terminal, paths = write_run_report(self._store, self._files)
        say("")
        say(terminal)
        if reasons:
            say(f"incomplete: {'; '.join(reasons)}")
        say(f"report: {paths.html}")
        if self._log.written is not None:
            say(f"messages of libraries: {self._log.written}")

    def _how_to_resume(self) -> str:
        plans = [self._plan(cell) for cell in self._cells]
        done = sum(len(plan.done) for plan in plans)
        total = sum(len(plan.done) + len(plan.missing) for plan in plans)
        return (
            f"interrupted: {done} of {total} images are done and kept; run the same command again to continue"
        )


def _record(cell: Cell, key: str, summary: Summary) -> SummaryRecord:
    """A metric's number as the store holds it."""
    return SummaryRecord(
        **asdict(summary), variant=cell.variant.name, benchmark=cell.benchmark.name, metric_key=key,
        image_key=cell.image_key, complete=summary.complete,
    )  # fmt: skip
