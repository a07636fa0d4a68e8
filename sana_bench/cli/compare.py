"""`sana-bench compare` and `sana-bench baseline`."""

from pathlib import Path
from typing import Annotated

import typer

from sana_bench.core.errors import IncomparableError, UsageError, nearest

__all__ = ["register"]

_FORMATS = ("text", "markdown", "json")
_OUTPUT = typer.Option("--output", "-o", metavar="DIR", help="Folder of runs and of the result store.")
_DEBUG = typer.Option("--debug", help="Show the traceback of an error.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(compare)
    baselines = typer.Typer(help="Name results to compare with.", add_completion=False)
    baselines.command("set")(set_)
    baselines.command("list")(list_)
    baselines.command("remove")(remove)
    app.add_typer(baselines, name="baseline")


def compare(
    a: Annotated[
        str, typer.Argument(metavar="A", help="RUN, RUN:VARIANT, baseline:NAME, or with --run VARIANT.")
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="As A; differences are B minus A.")],
    run: Annotated[
        str | None, typer.Option(metavar="RUN", help="The run that holds variants A and B.")
    ] = None,
    format_: Annotated[str, typer.Option("--format", metavar="text|markdown|json")] = "text",
    output: Annotated[Path, _OUTPUT] = Path("results"),
    debug: Annotated[bool, _DEBUG] = False,
) -> int:
    """Say what differs between two variants, and whether it is more than chance."""
    del debug
    if format_ not in _FORMATS:
        raise UsageError(f"--format {format_}: not one of {', '.join(_FORMATS)}{nearest(format_, _FORMATS)}")
    import json

    from sana_bench.analysis.baselines import resolve
    from sana_bench.analysis.compare import compare_variants
    from sana_bench.analysis.compare_text import as_data, as_markdown, as_text

    found = compare_variants(resolve(output, a, run), resolve(output, b, run))
    if format_ == "json":
        print(json.dumps(as_data(found), indent=2, ensure_ascii=False))
    else:
        print(as_markdown(found) if format_ == "markdown" else as_text(found))
    return 0 if found.comparable else IncomparableError.exit_code


def set_(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    target: Annotated[str, typer.Argument(metavar="RUN[:VARIANT]")],
    output: Annotated[Path, _OUTPUT] = Path("results"),
    debug: Annotated[bool, _DEBUG] = False,
) -> int:
    """Give a variant of a run a name."""
    del debug
    from sana_bench.analysis.baselines import set_baseline

    run, variant = set_baseline(output, name, target)
    print(f"baseline {name}: {run}:{variant}")
    return 0


def list_(output: Annotated[Path, _OUTPUT] = Path("results"), debug: Annotated[bool, _DEBUG] = False) -> int:
    """List baselines."""
    del debug
    from sana_bench.analysis.baselines import read_baselines

    for name, row in sorted(read_baselines(output).items()):
        print(f"{name}  {row['run']}:{row['variant']}")
    return 0


def remove(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    output: Annotated[Path, _OUTPUT] = Path("results"),
    debug: Annotated[bool, _DEBUG] = False,
) -> int:
    """Forget a baseline; its run stays."""
    del debug
    from sana_bench.analysis.baselines import remove_baseline

    remove_baseline(output, name)
    print(f"baseline {name}: removed")
    return 0
