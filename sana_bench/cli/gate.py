"""`sana-bench gate`: pass or fail a result against a baseline, for CI."""

from pathlib import Path
from typing import Annotated

import typer

from sana_bench.cli.options import OutputOption, complete_runs
from sana_bench.core.progress import say

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: sana-bench gate latest:sana-micro --baseline release --junit gate.xml")(gate)


def gate(
    candidate: Annotated[
        str, typer.Argument(metavar="CANDIDATE", help="RUN or RUN:VARIANT.", autocompletion=complete_runs)
    ],
    baseline: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE",
            help="Name of a baseline (sana-bench baseline list), or its file (sana-bench baseline export).",
        ),
    ],
    policy: Annotated[Path, typer.Option(metavar="NAME|FILE", help="Effects that matter.")] = Path("default"),
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write JUnit XML.")] = None,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a Markdown summary.")] = None,
    output: OutputOption = Path("results"),
) -> int:
    """Hold a result against a baseline: pass, or fail with a code.

    Exit codes: 0 pass, 3 incomplete, 4 regression, 5 not comparable.
    """
    from sana_bench.analysis import gate as gating
    from sana_bench.core import atomic

    result = gating.gate(candidate, baseline=baseline, policy=policy, output=output)
    if junit is not None:
        atomic.write_bytes(junit, gating.junit_xml(result))
    if markdown is not None:
        atomic.write_text(markdown, gating.markdown(result))
    say(result)
    return result.exit_code
