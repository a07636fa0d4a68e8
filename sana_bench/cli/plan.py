"""`sana-bench plan`: how many images it takes to tell two variants apart."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sana_bench.cli.options import ErrorOption, OutputOption, PairOption, SetOption, SuiteArgument, names
from sana_bench.core.errors import UsageError
from sana_bench.core.progress import say

if TYPE_CHECKING:
    from sana_bench.suites.schema import Suite

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog="Example: sana-bench plan geneval --effect 0.02 --compare sana-micro,sana-micro-8-steps"
    )(plan)


def plan(
    suite: SuiteArgument,
    effect: Annotated[
        float | None,
        typer.Option(metavar="SIZE", help="The difference to tell; default: 2 % of the metric's range."),
    ] = None,
    compare: PairOption = None,
    error: ErrorOption = None,
    power: Annotated[
        float, typer.Option(metavar="SHARE", help="How often a fixed design is to find the difference.")
    ] = 0.8,
    output: OutputOption = Path("results"),
    set_: SetOption = None,
) -> None:
    """Say how many images tell two variants apart, by results in the store."""
    from sana_bench.analysis.planning import design_lines, plan_design
    from sana_bench.suites.load import load_all_tiers
    from sana_bench.suites.stop import StopRequest

    tiers = load_all_tiers(suite, tuple(set_ or ()))
    file = tiers[0].file
    pair = names("--compare", compare)
    chosen = next((tier for tier in tiers if _has_all(tier, pair or ())), tiers[0])
    asked = tuple(chosen.variant(name).name for name in pair) if pair is not None else None
    known = [variant.name for variant in chosen.variants]
    stop = StopRequest("decided", asked, effect, error).applied(file.stop, known)
    if stop is None:
        raise UsageError("--compare A,B says which two variants")
    if not stop.error < power < 1:
        raise UsageError(f"--power {power:g}: must lie between the error, {stop.error:g}, and 1")
    say("\n".join(design_lines(plan_design(output, file.name, stop, power=power))))


def _has_all(tier: "Suite", variants: Iterable[str]) -> bool:
    known = {
        name
        for variant, path in zip(tier.variants, tier.files, strict=True)
        for name in (variant.name, path.stem)
    }
    return known >= set(variants)
