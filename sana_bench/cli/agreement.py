"""`sana-bench agreement`: what the metrics of a run agree on, and how often each is right."""

from pathlib import Path
from typing import Annotated

import typer

from sana_bench.cli.options import OutputOption, RunArgument
from sana_bench.core.progress import say

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: sana-bench agreement latest")(agreement)


def agreement(
    run: RunArgument,
    images: Annotated[
        int, typer.Option(min=0, max=200, metavar="N", help="Images to show of each pair of metrics.")
    ] = 8,
    json: Annotated[
        bool, typer.Option("--json", help="Print plain data instead, and write no page.")
    ] = False,
    output: OutputOption = Path("results"),
) -> None:
    """Show what the metrics of a run agree on."""
    from json import dumps

    from sana_bench.results.reader import load_run

    found = load_run(output, run)
    from sana_bench.analysis.agreement import find_agreement
    from sana_bench.analysis.agreement_text import as_page

    agreed = find_agreement(found, images)
    if json:
        say(dumps(agreed.to_dict(), indent=2, ensure_ascii=False))
        return
    from sana_reports import write_agreement

    say(agreed)
    say(f"page: {write_agreement(as_page(agreed), found.files.report)}")
