"""The command line: parse, call, print. Nothing heavy is imported before a command needs it."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sana_bench import __version__
from sana_bench.cli import register_all
from sana_bench.core.errors import BenchError, UsageError, nearest

__all__ = ["execute", "main"]

# The base of typer's usage errors; typer exports none of its ancestors, and where they live changed between
# versions.
_ClickException: type[Exception] = typer.BadParameter.__mro__[2]

_EXIT_CODES = (
    "Exit codes: 0 done, 1 crash, 2 usage or bad input, 3 incomplete, 4 regression, 5 not comparable."
)

app = typer.Typer(
    name="sana-bench",
    help="Generate, score and compare text-to-image variants: one suite file in, one report out.",
    epilog=_EXIT_CODES,
    add_completion=False,
    no_args_is_help=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

_OUTPUT = typer.Option("--output", "-o", metavar="DIR", help="Folder of runs and of the result store.")
_DEBUG = typer.Option("--debug", help="Show the traceback of an error.")


def main() -> None:
    """Run the command line and exit with the code of what happened."""
    sys.exit(execute(sys.argv[1:]))


def execute(arguments: list[str]) -> int:
    """Run one command and return its exit code; errors become one line on standard error."""
    debug = "--debug" in arguments
    try:
        result = app(args=arguments, prog_name="sana-bench", standalone_mode=False)
    except BenchError as error:
        return _fail(error, error.exit_code, debug)
    except _ClickException as error:
        return _fail(UsageError(_usage_message(error)), UsageError.exit_code, debug)
    except KeyboardInterrupt:
        print("sana-bench: interrupted", file=sys.stderr)
        return 3
    except OSError as error:
        return _fail(error, 1, debug)
    except Exception as error:
        if debug:
            raise
        kind = type(error).__name__
        first = str(error).strip().partition("\n")[0]
        print(f"sana-bench: crashed with {kind}: {first} (--debug shows where)", file=sys.stderr)
        return 1
    return result if isinstance(result, int) else 0


def _fail(error: Exception, code: int, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exception(error)
    message = " ".join(str(error).split())
    print(f"sana-bench: {message}", file=sys.stderr)
    return code


def _usage_message(error: Any) -> str:
    message = str(error.format_message()).rstrip(".")
    command = getattr(getattr(error, "ctx", None), "command_path", "sana-bench")
    return f"{message[:1].lower()}{message[1:]} (see {command} --help)"


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"sana-bench {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> int | None:
    if context.invoked_subcommand is None:
        print(context.get_help())
        return UsageError.exit_code
    return None


@app.command(
    epilog="Example: sana-bench run suites/geneval.yaml --limit 20 --set variants.sana-micro.sampler.steps=14"
)
def run(
    suite: Annotated[Path, typer.Argument(metavar="SUITE", help="Suite file, such as suites/geneval.yaml.")],
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Only the first N images of each variant and benchmark; marks the result.",
        ),
    ] = None,
    variants: Annotated[
        str | None, typer.Option(metavar="A,B", help="Only these variants of the suite.")
    ] = None,
    tier: Annotated[str, typer.Option(metavar="auto|micro|full", help="Models and data to use.")] = "auto",
    output: Annotated[Path, _OUTPUT] = Path("results"),
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a key of the suite or, as variants.NAME.KEY, of a variant.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be done, and write nothing.")
    ] = False,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, max=4096, metavar="N", help="Images per batch; does not change the numbers."),
    ] = None,
    logger: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Tell mlflow, tensorboard, wandb or a logger plug-in; may be given again."
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of evaluators and data; default SANA_BENCH_DATA."),
    ] = None,
    fetch: Annotated[
        bool, typer.Option("--fetch", help="Fetch what is missing first; otherwise nothing is.")
    ] = False,
    allow_incomplete: Annotated[
        bool,
        typer.Option(
            "--allow-incomplete", help="Score what is there although images are missing; marks the result."
        ),
    ] = False,
    text_cache: Annotated[
        bool,
        typer.Option(
            help="Keep text embeddings in DIR/cache/text, for all variants of a text encoder; up to 1.4 MB a prompt."
        ),
    ] = True,
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json|DIR",
            help="With the latency benchmark: a torch.profiler trace of one image, for Perfetto.",
        ),
    ] = None,
    debug: Annotated[bool, _DEBUG] = False,
) -> int:
    """Run a suite; the same command again does what is missing."""
    del debug
    from sana_bench.assets.locate import choose_data_root
    from sana_bench.profiling.session import ProfileOptions
    from sana_bench.runner.run import RunOptions, run_suite

    if data_dir is not None:
        choose_data_root(data_dir)
    options = RunOptions(
        suite=suite,
        output=output,
        tier=_tier(tier),
        limit=limit,
        variants=_names(variants),
        overrides=tuple(set_ or ()),
        batch_size=batch_size,
        dry_run=dry_run,
        loggers=tuple(logger or ()),
        text_cache=text_cache,
        fetch=fetch,
        allow_incomplete=allow_incomplete,
        profile=ProfileOptions(trace=trace),
    )
    return run_suite(options)


@app.command()
def validate(
    suite: Annotated[Path, typer.Argument(metavar="SUITE", help="Suite file.")],
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="As for run.")] = None,
    debug: Annotated[bool, _DEBUG] = False,
) -> int:
    """Check a suite and its variants without loading a model."""
    del debug
    from sana_bench.suites.load import load_all_tiers

    for loaded in load_all_tiers(suite, tuple(set_ or ())):
        names = ", ".join(variant.name for variant in loaded.variants)
        print(f"{suite}: {loaded.tier} tier is valid: {names}")
    return 0


@app.command("list")
def list_(
    what: Annotated[
        str | None, typer.Argument(metavar="[suites|variants|benchmarks|metrics|generators|loggers]")
    ] = None,
    debug: Annotated[bool, _DEBUG] = False,
) -> int:
    """List suites, variants, benchmarks, metrics, generators or loggers."""
    del debug
    from sana_bench.cli.list_body import SECTIONS, section_lines

    if what is not None and what not in SECTIONS:
        raise UsageError(f"cannot list {what!r}{nearest(what, SECTIONS)}; one of {', '.join(SECTIONS)}")
    for section in [what] if what is not None else SECTIONS:
        if what is None:
            print(f"{section}:")
        for line in section_lines(section):
            print(line if what is not None else f"  {line}")
    return 0


@app.command()
def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run directory, or its name below DIR/runs.")],
    output: Annotated[Path, _OUTPUT] = Path("results"),
    debug: Annotated[bool, _DEBUG] = False,
) -> int:
    """Write the report of a run again from the store."""
    del debug
    from sana_bench.analysis.report import regenerate_report
    from sana_bench.results.run_folder import find_run

    terminal, paths = regenerate_report(find_run(run, output))
    print(terminal)
    print(f"report: {paths.html}")
    return 0


@app.command()
def doctor(debug: Annotated[bool, _DEBUG] = False) -> int:
    """Show environment, devices, weights, and what is lacking."""
    del debug
    from sana_bench.cli.doctor_body import diagnose
    from sana_bench.suites.load import suites_dir

    lines, works = diagnose(suites_dir())
    print("\n".join(lines))
    return 0 if works else UsageError.exit_code


@app.command()
def train(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="Training configuration, such as configs/train/*.yaml.")
    ],
    output: Annotated[Path | None, _OUTPUT] = None,
    device: Annotated[str, typer.Option(metavar="cpu|cuda", help="Where to train.")] = "cpu",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start anew: remove the states that an earlier run left there.")
    ] = False,
    debug: Annotated[bool, _DEBUG] = False,
) -> int:
    """Train weights; the same command again continues."""
    del debug
    from sana_bench.cli.train_body import train_from_config

    return train_from_config(config, output, device, fresh=fresh)


def _tier(name: str) -> Any:
    tiers = ("auto", "micro", "full")
    if name not in tiers:
        raise UsageError(f"--tier {name}: unknown tier{nearest(name, tiers)}; one of {', '.join(tiers)}")
    return name


def _names(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise UsageError("--variants: expected names separated by commas")
    return names


register_all(app)

if __name__ == "__main__":
    main()
