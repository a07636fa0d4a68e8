"""One execution of a suite: what is asked for is checked, a plan is told, or a session does the work."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sana_bench.core import atomic
from sana_bench.core.engines import EngineRequest
from sana_bench.core.errors import UsageError
from sana_bench.core.fingerprint import FileHashes
from sana_bench.core.progress import say
from sana_bench.core.provenance import command_line
from sana_bench.core.stopping import stoppable
from sana_bench.core.tiers import Tier, TierRequest
from sana_bench.profiling import ProfileOptions
from sana_bench.results.database import disk_errors, writer_lock
from sana_bench.results.store import Store
from sana_bench.runner.checks import (
    check_generators,
    check_output,
    load_metrics,
    reach_judges,
    reading,
    refuse_surplus,
)
from sana_bench.runner.dry_run import DryRun
from sana_bench.runner.engines.choice import choose_engine
from sana_bench.runner.library_log import LibraryLog
from sana_bench.runner.loggers import check_loggers
from sana_bench.runner.resolve import resolve_suite
from sana_bench.runner.session import Outcome, Session
from sana_bench.suites.load import load_suite
from sana_bench.suites.plan import plan_cell
from sana_bench.suites.schema import Suite
from sana_bench.suites.stop import StopRequest, StopSpec
from sana_bench.suites.tiers import DeviceRequest, choose_tier

# A plan is told before these are imported, which bring NumPy.
if TYPE_CHECKING:
    from sana_bench.runner.rounds import Question

__all__ = ["RunOptions", "execute_suite", "run_suite"]

_DEFAULT_BATCH_SIZE = {"micro": 32, "full": 8}


@dataclass(frozen=True)
class RunOptions:
    """What the command line of `sana-bench run` says; `command` is how the run is asked for.

    `tier_reason` says why it is of the tier, where `--tier` does not.
    """

    suite: Path
    output: Path = Path("results")
    tier: TierRequest = "auto"
    tier_reason: str = ""
    device: DeviceRequest = "auto"
    limit: int | None = None
    variants: tuple[str, ...] | None = None
    overrides: tuple[str, ...] = ()
    batch_size: int | None = None
    dry_run: bool = False
    measure: bool = False
    stop: StopRequest = field(default_factory=StopRequest)
    loggers: tuple[str, ...] = ()
    text_cache: bool = True
    fetch: bool = False
    allow_incomplete: bool = False
    profile: ProfileOptions = field(default_factory=ProfileOptions)
    engine: EngineRequest = field(default_factory=EngineRequest)
    command: str = field(default_factory=command_line)

    def images_a_batch(self, tier: Tier) -> int:
        """How many images are made together."""
        return self.batch_size or _DEFAULT_BATCH_SIZE[tier]


def run_suite(options: RunOptions, suite: Suite | None = None) -> int:
    """Run a suite as `execute_suite` does, and return the exit code."""
    return execute_suite(options, suite).exit_code


def execute_suite(options: RunOptions, suite: Suite | None = None) -> Outcome:
    """Run a suite: generate, score and report what is missing.

    `suite` stands in for the file that `options` names. Nothing is written before suite, weights, metrics and folders of
    existing images have been checked. What libraries print meanwhile goes to the run's log file. Raises `BenchError`.
    """
    with LibraryLog(options.command) as log:
        return _run_suite(options, suite, log)


def _run_suite(options: RunOptions, suite: Suite | None, log: LibraryLog) -> Outcome:
    check_loggers(options.loggers)
    tier = choose_tier(options.tier, options.device, options.tier_reason)
    suite = suite or load_suite(options.suite, tier.tier, options.overrides)
    stop = _asked_stop(options, suite)
    check_output(options.output)
    say(tier.line)
    if options.fetch:
        from sana_bench.assets.fetch import fetch_suite

        fetch_suite(suite, say)
    with reading(options.output) as store:
        hashes = FileHashes(store.file_hashes() if store is not None else None)
        if options.dry_run:
            plan = DryRun(
                suite, tier, store, hashes, options.output, options.images_a_batch(tier.tier),
                limit=options.limit, variants=options.variants, engine=options.engine,
            )  # fmt: skip
            run_id = plan.tell(measure=options.measure)
            if stop is not None:
                say("that is the most: a run that stops when its question is answered may need far less")
            return Outcome(run_id, 0)
        resolved = resolve_suite(suite, tier, hashes)
        cells = resolved.cells(options.variants)
        choice = choose_engine(options.engine, tier.device, resolved.benchmarks)
        if choice.line:
            say(choice.line)
        directory = options.output / "runs" / resolved.run_id
        plans = [
            plan_cell(cell, store, options.output, directory, options.limit, verify=False) for cell in cells
        ]
    surplus = refuse_surplus(cells, options.allow_incomplete)
    loaded = load_metrics(resolved, options.output / "cache", hashes)
    questions: list[Question] = []
    if stop is not None:
        from sana_bench.runner.rounds import questions_of

        questions = questions_of(stop, resolved, cells, loaded)
    if questions:
        # Nothing else is made: what the question does not need is left for a run of the whole suite.
        asked = {cell.label for question in questions for cell in question.cells}
        cells = [cell for cell in cells if cell.label in asked]
        plans = [plan for plan in plans if plan.cell.label in asked]
    reach_judges(plans, loaded)
    if choice.engine == "local":  # workers load what they use, on devices that are theirs
        check_generators(plans, tier.device)
    with disk_errors(options.output):
        atomic.make_folder(options.output)
    with (
        disk_errors(options.output),
        writer_lock(options.output),
        Store.open(options.output) as store,
        stoppable(),
    ):
        store.put_file_hashes(hashes.learnt)
        session = Session(store, resolved, options, cells, loaded, surplus, log, choice, hashes, questions)
        return session.execute()


def _asked_stop(options: RunOptions, suite: Suite) -> StopSpec | None:
    """The question to stop by, if any; raises `UsageError` where the options contradict it."""
    names = [suite.variant(name).name for name in options.variants or ()]
    names = names or [variant.name for variant in suite.variants]
    stop = options.stop.applied(suite.file.stop, names)
    if stop is None:
        return None
    for given, option in ((options.limit, "--limit"), (options.allow_incomplete, "--allow-incomplete")):
        if given:
            raise UsageError(
                f"{option} takes images away that the question needs: leave it out, or say --until all"
            )
    return stop
