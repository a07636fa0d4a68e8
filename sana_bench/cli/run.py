"""`sana-bench run`: generate, score and report what a suite asks for."""

from pathlib import Path
from typing import Annotated

import typer

from sana_bench.cli.options import (
    AddressOption,
    AutoBatchSizeOption,
    DataDirOption,
    DeviceOption,
    DryRunOption,
    EffectOption,
    EngineOption,
    ErrorOption,
    LimitOption,
    OutputOption,
    PairOption,
    SetOption,
    SuiteArgument,
    TierOption,
    TraceOption,
    UntilOption,
    VariantsOption,
    WorkersOption,
    WorkerTimeoutOption,
    names,
)
from sana_bench.core.engines import EngineRequest
from sana_bench.core.errors import UsageError

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog="Example: sana-bench run geneval --limit 20 --set variants.sana-micro.sampler.steps=14"
    )(run)


def run(
    suite: SuiteArgument,
    limit: LimitOption = None,
    variants: VariantsOption = None,
    tier: TierOption = "auto",
    device: DeviceOption = "auto",
    output: OutputOption = Path("results"),
    set_: SetOption = None,
    until: UntilOption = None,
    compare: PairOption = None,
    effect: EffectOption = None,
    error: ErrorOption = None,
    dry_run: DryRunOption = False,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="With --dry-run: time an image of each variant instead of guessing."),
    ] = False,
    batch_size: AutoBatchSizeOption = None,
    workers: WorkersOption = None,
    engine: EngineOption = "auto",
    address: AddressOption = None,
    worker_timeout: WorkerTimeoutOption = None,
    logger: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Tell mlflow, tensorboard, wandb or a logger plug-in; may be repeated."
        ),
    ] = None,
    data_dir: DataDirOption = None,
    fetch: Annotated[
        bool, typer.Option("--fetch", help="Download what is missing first; otherwise nothing is downloaded.")
    ] = False,
    allow_incomplete: Annotated[
        bool,
        typer.Option(
            "--allow-incomplete", help="Score even though images are missing; the result is marked."
        ),
    ] = False,
    text_cache: Annotated[
        bool,
        typer.Option(
            help="Keep text embeddings in DIR/cache/text, for all variants of a text encoder; up to 1.4 MB a prompt."
        ),
    ] = True,
    trace: TraceOption = None,
) -> int:
    """Run a suite; the same command again does what is missing."""
    from sana_bench.assets.locate import choose_data_root
    from sana_bench.suites.load import check_suite_file

    if measure and not dry_run:
        raise UsageError("--measure goes with --dry-run: a run times its images itself")
    overrides = tuple(set_ or ())
    # The runner imports torch, which takes seconds: a mistake in the suite is told before.
    check_suite_file(suite, overrides)
    from sana_bench.profiling import ProfileOptions
    from sana_bench.runner.run import RunOptions, run_suite
    from sana_bench.suites.stop import StopRequest

    if data_dir is not None:
        choose_data_root(data_dir)
    options = RunOptions(
        suite=suite,
        output=output,
        tier=tier,
        device=device,
        limit=limit,
        variants=names("--variants", variants),
        overrides=overrides,
        batch_size=batch_size,
        dry_run=dry_run,
        measure=measure,
        stop=StopRequest(until, names("--compare", compare), effect, error),
        loggers=tuple(logger or ()),
        text_cache=text_cache,
        fetch=fetch,
        allow_incomplete=allow_incomplete,
        profile=ProfileOptions(trace=trace),
        engine=EngineRequest(engine, workers, address, worker_timeout),
    )
    return run_suite(options)
