"""`sana-bench compare`: what differs between two variants, and whether it is more than chance."""

from pathlib import Path
from typing import Annotated

import typer

from sana_bench.cli.options import OutputOption, choice, complete_runs
from sana_bench.core.errors import IncomparableError

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: sana-bench compare sana-micro sana-micro-8-steps --run latest")(compare)


def compare(
    a: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help="RUN, RUN:VARIANT, baseline:NAME, or with --run VARIANT.",
            autocompletion=complete_runs,
        ),
    ],
    b: Annotated[
        str,
        typer.Argument(metavar="B", help="As A; differences are B minus A.", autocompletion=complete_runs),
    ],
    run: Annotated[
        str | None,
        typer.Option(
            metavar="RUN", help="The run that holds variants A and B.", autocompletion=complete_runs
        ),
    ] = None,
    format_: Annotated[str, choice("--format", "text", "markdown", "json", help="How to print it.")] = "text",
    output: OutputOption = Path("results"),
) -> int:
    """Compare two variants: what differs by more than chance."""
    import json

    from sana_bench.analysis.baselines import resolve

    sides = resolve(output, a, run), resolve(output, b, run)
    from sana_bench.analysis.compare import compare_variants
    from sana_bench.analysis.compare_text import as_data, as_markdown, as_text
    from sana_bench.analysis.gate import load_policy
    from sana_bench.suites.find import find_policy

    sizes = load_policy(find_policy(Path("default"))).sizes
    found = compare_variants(*sides, sizes=sizes)
    if format_ == "json":
        print(json.dumps(as_data(found), indent=2, ensure_ascii=False))
    else:
        print(as_markdown(found) if format_ == "markdown" else as_text(found))
    return 0 if found.comparable else IncomparableError.exit_code
