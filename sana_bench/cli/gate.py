"""`sana-bench gate`."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(gate)


def gate(
    candidate: Annotated[str, typer.Argument(metavar="CANDIDATE", help="RUN or RUN:VARIANT.")],
    baseline: Annotated[str, typer.Option(metavar="NAME", help="Baseline, see sana-bench baseline.")],
    policy: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Policy; default suites/policies/default.yaml.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write JUnit XML.")] = None,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a Markdown summary.")] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of runs and of the result store.")
    ] = Path("results"),
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> int:
    """Pass or fail a result against a baseline: exit 0, 3 incomplete, 4 regression, 5 not comparable."""
    del debug
    from sana_bench.analysis import gate as gating
    from sana_bench.analysis.baselines import resolve
    from sana_bench.core import atomic
    from sana_bench.suites.load import suites_dir

    rules = gating.load_policy(policy or suites_dir() / "policies" / "default.yaml")
    named = baseline if baseline.startswith("baseline:") else f"baseline:{baseline}"
    result = gating.evaluate(resolve(output, named), resolve(output, candidate), rules)
    if junit is not None:
        atomic.write_bytes(junit, gating.junit_xml(result))
    if markdown is not None:
        atomic.write_text(markdown, gating.markdown(result))
    for check in result.checks:
        print(f"{check.name}: {check.status}: {check.message}")
    print(f"gate: {result.outcome}")
    return result.exit_code
