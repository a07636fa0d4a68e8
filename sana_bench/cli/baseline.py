"""`sana-bench baseline`: names for results to compare with."""

from pathlib import Path
from typing import Annotated

import typer

from sana_bench.cli.options import OutputOption, complete_runs
from sana_bench.core.progress import say

__all__ = ["register"]

_Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the baseline.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    baselines = typer.Typer(help="Name results to compare with.", rich_markup_mode=None)
    baselines.command("set", epilog="Example: sana-bench baseline set release latest:sana-micro")(set_)
    baselines.command("list")(list_)
    baselines.command("remove")(remove)
    baselines.command("export", epilog="Example: sana-bench baseline export release -o release.json")(export)
    app.add_typer(baselines, name="baseline")


def set_(
    name: _Name,
    target: Annotated[
        str,
        typer.Argument(
            metavar="RUN[:VARIANT]",
            help="Variant of a run; a run of one variant needs no :VARIANT.",
            autocompletion=complete_runs,
        ),
    ],
    output: OutputOption = Path("results"),
) -> None:
    """Give a variant of a run a name."""
    from sana_bench.analysis.baselines import set_baseline

    run, variant = set_baseline(output, name, target)
    say(f"baseline {name}: {run}:{variant}")


def export(
    name: Annotated[
        str, typer.Argument(metavar="NAME|RUN[:VARIANT]", help="Name of the baseline, or a variant of a run.")
    ],
    to: Annotated[
        Path,
        typer.Option(
            "--to", "-o", metavar="FILE", help="JSON file to write; an earlier baseline is replaced."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", metavar="DIR", help="Folder of runs and of the result store.")
    ] = Path("results"),
) -> None:
    """Write a baseline with all its scores to one file, which gate and compare take on any machine."""
    from sana_bench.analysis.baselines import export_baseline

    exported, lacking = export_baseline(name, to, output=output)
    for line in lacking:
        say(line)
    say(f"{to}: {exported}")


def list_(output: OutputOption = Path("results")) -> None:
    """List baselines."""
    from sana_bench.analysis.baselines import read_baselines

    for name, row in sorted(read_baselines(output).items()):
        say(f"{name}  {row['run']}:{row['variant']}")


def remove(name: _Name, output: OutputOption = Path("results")) -> None:
    """Forget a baseline; its run stays."""
    from sana_bench.analysis.baselines import remove_baseline

    remove_baseline(output, name)
    say(f"baseline {name}: removed")
