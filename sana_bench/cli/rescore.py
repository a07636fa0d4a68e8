"""`sana-bench rescore`: other thresholds or another protocol on the stored detections of a run."""

import math
from typing import Annotated

import typer

from sana_bench.cli.options import RunArgument, RunOutputOption
from sana_bench.core.errors import IncompleteError, UsageError
from sana_bench.core.progress import say

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("rescore", epilog="Example: sana-bench rescore latest --protocol geneval/sana@1")(_rescore)


def _rescore(
    run: RunArgument,
    protocol: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Protocol of the same detector; default: the run's own."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(metavar="P", help="Confidence above which a detection counts; default: 0.3."),
    ] = None,
    counting_threshold: Annotated[
        float | None, typer.Option(metavar="P", help="The same for the counting task; default: 0.9.")
    ] = None,
    max_objects: Annotated[
        int | None,
        typer.Option(min=1, max=100, metavar="N", help="Detections kept for each class; default: 16."),
    ] = None,
    position_threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=10,
            metavar="X",
            help="Share of the boxes' sizes taken off the offset between them; default: 0.1.",
        ),
    ] = None,
    output: RunOutputOption = None,
) -> int:
    """Decide GenEval again from stored detections, with no network."""
    given = {
        "threshold": threshold,
        "counting_threshold": counting_threshold,
        "max_objects": max_objects,
        "position_threshold": position_threshold,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    if protocol is None and not changes:
        raise UsageError("rescore needs --protocol or a threshold to change")
    from sana_bench.metrics.geneval.rescore import rescore

    done, path = rescore(run, output, protocol, changes)
    for one in done:
        for summary in one.summaries:
            interval = f"{summary.low:.3f} to {summary.high:.3f}"
            if math.isnan(summary.low) or math.isnan(summary.high):
                interval = "no interval: too few prompts"
            counts = "" if summary.complete else f", incomplete: {summary.n_samples}/{summary.n_expected}"
            say(f"{one.variant}  {one.protocol}  {summary.key}: {summary.value:.4f} ({interval}{counts})")
        if not one.complete:
            say(f"{one.variant}  {one.protocol}  is incomplete, as the run's own score is")
    say(f"rescored: {path}")
    return 0 if all(one.complete for one in done) else IncompleteError.exit_code
