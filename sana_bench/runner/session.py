"""What a run does with its output: make images, score, summarise, report; again, only what is missing."""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import yaml

from sana_bench.core import atomic
from sana_bench.core.errors import IncompleteError
from sana_bench.core.fingerprint import FileHashes
from sana_bench.core.progress import Progress, listed, megabytes, say
from sana_bench.core.provenance import now
from sana_bench.core.registry import MEASURED
from sana_bench.core.stopping import caught
from sana_bench.metrics.base import CutsTexts, FeatureMetric, Metric, Summary, metric_key
from sana_bench.results.reader import incomplete_reasons
from sana_bench.results.run_folder import RunFiles
from sana_bench.results.schema import SummaryRecord
from sana_bench.results.sequences import StoredSequence
from sana_bench.results.store import Store
from sana_bench.runner.checks import choice_key, missing_images
from sana_bench.runner.engines.base import Engine
from sana_bench.runner.engines.choice import Choice, open_engine
from sana_bench.runner.library_log import LibraryLog
from sana_bench.runner.loggers import Loggers
from sana_bench.runner.making import ImageMaker
from sana_bench.runner.provenance import record_provenance
from sana_bench.runner.workshop import Workplace
from sana_bench.suites.cells import Cell, ResolvedSuite
from sana_bench.suites.plan import CellPlan, asked_rows, plan_cell, work_left, work_of

# Imported when they are needed: a plan is told without them and the NumPy that they bring.
if TYPE_CHECKING:
    from sana_bench.profiling.session import Profiler
    from sana_bench.runner.rounds import Question
    from sana_bench.runner.run import RunOptions
    from sana_bench.runner.scoring import Scorer

__all__ = ["Outcome", "Session"]


@dataclass(frozen=True)
class Outcome:
    """The run that a suite became, and the exit code: 0 when all that was asked for is there, 3 otherwise."""

    run_id: str
    exit_code: int
    interrupted: bool = False


class Session:
    """The writing part of a run; the caller holds the output's lock."""

    def __init__(
        self,
        store: Store,
        resolved: ResolvedSuite,
        options: "RunOptions",
        cells: list[Cell],
        loaded: dict[str, Metric | FeatureMetric],
        surplus: dict[str, list[str]],
        log: LibraryLog,
        choice: Choice,
        hashes: FileHashes,
        questions: "Sequence[Question]" = (),
    ) -> None:
        self._store = store
        self._resolved = resolved
        self._options = options
        self._cells = cells
        self._metrics = loaded
        self._surplus = surplus
        self._log = log
        self._choice = choice
        self._hashes = hashes
        self._questions = questions
        self._sequences: list[StoredSequence] = []
        self._output = options.output
        self._run_id = resolved.run_id
        self._files = RunFiles(options.output / "runs" / resolved.run_id)
        self._session_id = 0
        self._engine: Engine
        self._maker: ImageMaker

    def execute(self) -> Outcome:
        """Do everything; record how it ended, and tell the loggers."""
        described = {
            **self._resolved.describe(),
            "run_id": self._run_id,
            "fingerprint": self._resolved.fingerprint,
            "directory": str(self._files.directory),
        }
        atomic.make_folder(self._files.directory)
        self._log.keep_in(self._files.log)
        loggers = Loggers(self._options.loggers, self._files.directory)
        with loggers.observe(described) as result:
            self._prepare()
            with closing(self._engine):
                # Before hours of work it is said when this machine's numbers are known to be wrong.
                self._engine.check()
                outcome = self._work(loggers, result)
            # What workers were writing when they were lost.
            atomic.remove_leftovers(self._files.directory)
            return outcome

    def _work(self, loggers: Loggers, result: dict[str, Any]) -> Outcome:
        state = result["state"]
        reasons: list[str] = []
        try:
            reasons = self._ask_all()
            if self._cells and not reasons:
                self._generate_all()
                reasons = self._score_all(self._profile_all())
            state = "incomplete" if reasons else "done"
        except KeyboardInterrupt:
            caught()
            state = "interrupted"
            say(self._how_to_resume())
            return Outcome(self._run_id, IncompleteError.exit_code, interrupted=True)
        except (OSError, sqlite3.Error) as error:
            for note in self._space_needed():
                error.add_note(note)
            raise
        finally:
            # On a full disk even this cannot be written; the error in flight is the one to tell.
            with suppress(sqlite3.Error) if state == "failed" else nullcontext():
                self._store.finish_session(self._session_id, now(), state)
            result.update(state=state, incomplete=reasons)
        self._report(reasons)
        for record in self._store.summaries(self._run_id):
            loggers.summary(asdict(record))
        return Outcome(self._run_id, IncompleteError.exit_code if reasons else 0)

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
        self._session_id = self._store.start_session(self._run_id, created, self._options.command)
        text_cache = self._options.text_cache
        place = Workplace(
            self._output, directory, self._resolved.tier.device, self._output / "cache", text_cache
        )
        self._engine = open_engine(
            self._choice,
            self._options.engine,
            self._resolved,
            place,
            self._metrics,
            self._hashes,
            self._note,
            self._store.put_worker,
        )
        batch_size = self._options.images_a_batch(self._resolved.tier.tier)
        self._maker = ImageMaker(
            self._store, directory, self._session_id, self._engine, batch_size=batch_size
        )
        text = yaml.safe_dump(self._resolved.describe(), sort_keys=False, allow_unicode=True)
        atomic.write_text(self._files.suite, text)
        for benchmark in self._resolved.benchmarks:
            self._files.write_prompts(benchmark.name, benchmark.prompts)
        for cell in self._resolved.cells():
            if cell.variant.rewrites is not None:
                texts = {prompt.id: cell.given_text(prompt) for prompt in cell.benchmark.prompts}
                self._files.write_rewrites(cell.variant.name, cell.benchmark.name, texts)

    def _note(self, kind: str, details: dict[str, Any]) -> None:
        self._store.add_event(self._session_id, now(), kind, details)

    def _plan(self, cell: Cell) -> CellPlan:
        return self._maker.plan(cell, limit=self._options.limit)

    def _ask_all(self) -> list[str]:
        """Answer every question; cells whose question is answered need no more. Returns why one cannot be answered."""
        reasons, n_reused = [], 0
        for question in self._questions:
            scorer = self._scorer(lambda _: None)
            if isinstance(question.metric, CutsTexts):
                count = partial(question.metric.cut_texts, question.cells[0].samples)
                self._maker.note_cuts(question.metric.name, question.benchmark.name, count)
            from sana_bench.runner.rounds import Rounds

            rounds = Rounds(self._store, self._run_id, self._resolved.seed, self._maker, scorer, question)
            found = rounds.run()
            self._engine.release()
            n_reused += rounds.n_reused
            self._store.count_reused(self._session_id, n_reused)
            if found is None:
                reasons.append(f"{question.label}: the images of a round are not all there")
                continue
            self._sequences.append(found)
            if found.answered:
                self._cells = [cell for cell in self._cells if cell not in question.cells]
        return reasons

    def _scorer(self, advance: Callable[[int], None]) -> "Scorer":
        from sana_bench.runner.scoring import Scorer

        return Scorer(
            self._store, self._files.directory, self._session_id, self._resolved.seed, advance, self._engine
        )

    def _generate_all(self) -> None:
        plans = [self._plan(cell) for cell in self._cells]
        for plan in plans:
            self._maker.adopt(plan)
        todo = [plan for plan in plans if plan.missing]
        left = work_left((work_of(plan.cell.variant.variant), len(plan.missing)) for plan in plans)
        n_done = sum(len(plan.done) for plan in plans)
        self._store.count_reused(self._session_id, n_done)
        damaged = sum(plan.damaged for plan in plans)
        note = f", {damaged} damaged or lost and to be made again" if damaged else ""
        say(f"run {self._run_id}: {left}, {n_done} already there{note}")
        self._maker.make(todo)
        self._engine.release()

    def _profile_all(self) -> "Profiler":
        """Measure what is measured while images are made, all variants in turns."""
        from sana_bench.profiling.session import Profiler

        tier = self._resolved.tier
        profiler = Profiler(
            self._store,
            self._files.directory,
            self._session_id,
            tier=tier.tier,
            device=tier.device,
            options=replace(self._options.profile, limit=self._options.limit),
        )
        plans = [self._plan(cell) for cell in self._cells if set(cell.benchmark.metrics) & set(MEASURED)]
        profiler.measure(plans)
        return profiler

    def _score_all(self, profiler: "Profiler") -> list[str]:
        """Score every cell, store the summaries, and return the reasons why the result is incomplete."""
        plans = [self._plan(cell) for cell in self._cells]
        total = sum(len(plan.done) * len(set(plan.cell.benchmark.metrics) - set(MEASURED)) for plan in plans)
        rows: list[SummaryRecord] = []
        reasons: list[str] = []
        with Progress("scoring", total, "scores") as progress:
            scorer = self._scorer(progress.advance)
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
        self, plan: CellPlan, scorer: "Scorer", profiler: "Profiler"
    ) -> tuple[list[SummaryRecord], dict[str, str]]:
        """The numbers of a cell, and by metric the reason why there is none."""
        plan = replace(plan, done=tuple(plan.done))  # every metric looks at them several times
        cell, rows, told = plan.cell, list[SummaryRecord](), dict[str, str]()
        if not plan.missing or self._options.allow_incomplete:
            looking = (name for name in cell.benchmark.metrics if name not in MEASURED)
            scorer.look(plan, [self._metrics[choice_key(cell.benchmark, name)] for name in looking])
        for name in cell.benchmark.metrics:
            if plan.missing and not self._options.allow_incomplete:
                told[name] = f"{cell.label} is not scored without --allow-incomplete"
                continue
            if name in MEASURED:
                from sana_bench.profiling.times import measured_summary

                found = measured_summary(profiler, plan, name, self._resolved.seed)
                if found is None:
                    told[name] = f"{cell.label}: {name} was not measured"
                else:
                    rows.append(_record(cell, profiler.key(name, plan), found))
                continue
            metric = self._metrics[choice_key(cell.benchmark, name)]
            if isinstance(metric, CutsTexts):
                self._maker.note_cuts(name, cell.benchmark.name, partial(metric.cut_texts, cell.samples))
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
        from sana_bench.analysis.report import write_run_report

        record_provenance(self._store, self._files, self._resolved, self._engine.checked)
        terminal, paths = write_run_report(self._store, self._files)
        say("")
        say(terminal)
        if reasons:
            say(f"incomplete: {'; '.join(reasons)}")
        for sequence in self._sequences:
            say(sequence.finding)
        self._tell_left(reasons)
        say(f"report: {paths.html}")
        if self._log.written is not None:
            say(f"messages of libraries: {self._log.written}")

    def _tell_left(self, reasons: list[str]) -> None:
        """Say what a run that stopped early leaves."""
        cells = [cell for question in self._questions for cell in question.cells]
        if reasons or all(
            sum(1 for _ in asked_rows(cell, self._store)) == cell.benchmark.n_samples for cell in cells
        ):
            return
        seen = {question.metric.name for question in self._questions}
        others = [name for name in cells[0].benchmark.metrics if name not in seen]
        left = f" {', '.join(others)} {'is' if len(others) == 1 else 'are'} left for it;" if others else ""
        say(
            f"stopped early: --until all goes on to the whole suite;{left} none of these images is made again"
        )

    def _how_to_resume(self) -> str:
        plans = self._recorded()
        done = sum(len(plan.done) for plan in plans)
        total = sum(len(plan.done) + len(plan.missing) for plan in plans)
        return (
            f"interrupted: {done} of {total} images are done and kept; run the same command again to continue"
        )

    def _space_needed(self) -> list[str]:
        """A line on the space that the missing images will take, by the mean length of those that are there."""
        plans = self._recorded()
        lengths = [one.image.length for plan in plans for one in plan.done if one.image.length]
        missing = sum(len(plan.missing) for plan in plans)
        if not lengths or not missing:
            return []
        return [
            f"{missing} missing images will take about {megabytes(sum(lengths) * missing // len(lengths))}"
        ]

    def _recorded(self) -> list[CellPlan]:
        """What is done by the records alone: what keeps a file from being read must not keep the run from stopping."""
        directory, limit = self._files.directory, self._options.limit
        return [
            plan_cell(cell, self._store, self._output, directory, limit, verify=False) for cell in self._cells
        ]


def _record(cell: Cell, key: str, summary: Summary) -> SummaryRecord:
    """A metric's number as the store holds it."""
    return SummaryRecord(
        **asdict(summary), variant=cell.variant.name, benchmark=cell.benchmark.name, metric_key=key,
        image_key=cell.image_key, complete=summary.complete,
    )  # fmt: skip
