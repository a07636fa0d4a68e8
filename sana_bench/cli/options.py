"""Options and arguments that several commands have, and the helpers that declare them."""

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from sana_bench.core.engines import ENGINES, EngineName
from sana_bench.core.errors import UsageError, nearest
from sana_bench.core.tiers import TIER_REQUESTS, TierRequest
from sana_bench.suites.tiers import DeviceRequest

__all__ = [
    "AddressOption",
    "AutoBatchSizeOption",
    "BatchSizeOption",
    "CpuDeviceOption",
    "DataDirOption",
    "DeviceOption",
    "DryRunOption",
    "EffectOption",
    "EngineOption",
    "ErrorOption",
    "GuidanceOption",
    "LimitOption",
    "NoiseSeedOption",
    "OutputOption",
    "PairOption",
    "RunArgument",
    "RunOutputOption",
    "SetOption",
    "StepsOption",
    "SuiteArgument",
    "TierOption",
    "TraceOption",
    "UntilOption",
    "VariantGuidanceOption",
    "VariantStepsOption",
    "VariantsOption",
    "WeightsVariantOption",
    "WorkerTimeoutOption",
    "WorkersOption",
    "choice",
    "choose",
    "complete_runs",
    "complete_variants",
    "from_record",
    "names",
    "precision_choice",
    "starting",
]

_Record = TypeVar("_Record")
_Result = TypeVar("_Result")
_Name = TypeVar("_Name", bound=str)


def choose(option: str, value: str, allowed: Sequence[_Name]) -> _Name:
    """Return `value` of an option, one of `allowed`; another is a `UsageError` with the nearest of them."""
    for name in allowed:
        if name == value:
            return name
    raise UsageError(
        f"{option} {value}: unknown {option.lstrip('-')}{nearest(value, allowed)}; one of {', '.join(allowed)}"
    )


def choice(option: str, *allowed: str, help: str) -> Any:
    """Declare an option whose value is one of `allowed`, held and told as by `choose`."""
    return typer.Option(
        option,
        metavar="|".join(allowed),
        parser=lambda value: choose(option, value, allowed),
        autocompletion=starting(lambda: allowed),
        help=help,
    )


def precision_choice(help: str) -> Any:
    """Declare the option for a number format by its name in variant files."""
    return choice("--precision", "fp32", "bf16", "fp16", help=help)


def from_record(command: Callable[[_Record], _Result]) -> Callable[..., _Result]:
    """Make a command of a function of one dataclass: each field of the record is an argument or an option."""
    (parameter,) = inspect.signature(command).parameters.values()
    record = parameter.annotation

    @functools.wraps(command)
    def filled(**values: Any) -> _Result:
        return command(record(**values))

    filled.__signature__ = inspect.signature(record)  # type: ignore[attr-defined]
    filled.__annotations__ = record.__annotations__
    return filled


def names(option: str, text: str | None) -> tuple[str, ...] | None:
    """The names of an option, which commas separate; None where it was not given, and a `UsageError` for no name."""
    if text is None:
        return None
    found = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not found:
        raise UsageError(f"{option}: expected names separated by commas")
    return found


def starting(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Return what typer asks for completions: those of `names()` that start with what is typed."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete)]

    return complete


def complete_runs(context: typer.Context, incomplete: str) -> list[str]:
    """Names of runs below the output folder that `--output` names, if it stands before."""
    output = Path(context.params.get("output") or "results")
    # What is not printable, a shell would print.
    names = sorted(p.name for p in (output / "runs").glob("*") if p.is_dir() and p.name.isprintable())
    return [name for name in (*names, *(["latest"] if names else [])) if name.startswith(incomplete)]


def complete_variants(incomplete: str) -> list[str]:
    """Variant names for the last of names separated by commas."""
    before, comma, last = incomplete.rpartition(",")
    from sana_bench.suites.find import variant_files

    names = variant_files()
    return [f"{before}{comma}{name}" for name in names if name.startswith(last)]


def _suites() -> list[str]:
    from sana_bench.suites.find import suite_files

    return [*suite_files(), *sorted(map(str, Path("suites").glob("*.yaml")))]


SuiteArgument = Annotated[
    Path,
    typer.Argument(
        metavar="SUITE",
        help="Name of a suite, such as geneval (sana-bench list suites), or its file.",
        autocompletion=starting(_suites),
    ),
]
RunArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="latest, a run's name or how it begins, its suite, its hash, or its directory.",
        autocompletion=complete_runs,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a key of the suite or, as variants.NAME.KEY, of a variant; may be repeated.",
    ),
]
TierOption = Annotated[
    TierRequest,
    choice("--tier", *TIER_REQUESTS, help="Models and data to use."),
]
DeviceOption = Annotated[DeviceRequest, choice("--device", "auto", "cpu", "cuda", help="Where to compute.")]
#: Of commands that take a GPU only when told to.
CpuDeviceOption = Annotated[str, choice("--device", "cpu", "cuda", help="Where to compute.")]
OutputOption = Annotated[
    Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of runs and of the result store.")
]
#: Of commands on runs that may be named by their directory, which lies in the output folder.
RunOutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        help="Folder of runs and of the result store; default: that of a run directory, or results.",
    ),
]
DataDirOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of evaluators and data; default: SANA_BENCH_DATA."),
]
TraceOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.json|DIR",
        help="Write a torch.profiler trace of one image of the latency benchmark, for Perfetto.",
    ),
]
LimitOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Only the first N images of each variant and benchmark; the result is marked.",
    ),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and write nothing.")]
NoiseSeedOption = Annotated[
    int, typer.Option(min=0, metavar="N", help="Seed of the noise; further images count up from it.")
]
_BATCH_SIZE = typer.Option(
    min=1, max=4096, metavar="N", help="Images per batch; changes the time, not the numbers."
)
BatchSizeOption = Annotated[int, _BATCH_SIZE]
AutoBatchSizeOption = Annotated[int | None, _BATCH_SIZE]
_STEPS = typer.Option(min=1, max=1000, metavar="N", help="Solver steps.")
StepsOption = Annotated[int, _STEPS]
VariantStepsOption = Annotated[int | None, _STEPS]
_GUIDANCE = typer.Option(min=0, max=100, metavar="SCALE", help="Scale of classifier-free guidance.")
GuidanceOption = Annotated[float, _GUIDANCE]
VariantGuidanceOption = Annotated[float | None, _GUIDANCE]
UntilOption = Annotated[
    str | None,
    typer.Option(
        metavar="decided|width=W|all",
        help="Make images in rounds, and stop when two variants are decided or an interval is W wide.",
        autocompletion=starting(lambda: ("decided", "width=", "all")),
    ),
]
EffectOption = Annotated[
    float | None,
    typer.Option(
        metavar="SIZE", help="A difference smaller than this is none; default: 2 % of the metric's range."
    ),
]
ErrorOption = Annotated[
    float | None,
    typer.Option(metavar="SHARE", help="Chance of a wrong verdict, however often one looks; default: 0.05."),
]
PairOption = Annotated[
    str | None,
    typer.Option(
        "--compare",
        metavar="A,B",
        help="The two variants to decide between.",
        autocompletion=complete_variants,
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=4096,
        metavar="N",
        help="Share the work among N GPUs, or N one-thread workers on a CPU (by Ray).",
    ),
]
EngineOption = Annotated[
    EngineName,
    choice("--engine", *ENGINES, help="This process alone, or workers; auto takes all visible GPUs."),
]
AddressOption = Annotated[
    str | None, typer.Option(metavar="HOST:PORT|auto", help="A running Ray cluster, of any number of nodes.")
]
WorkerTimeoutOption = Annotated[
    float | None,
    typer.Option(
        min=1,
        metavar="SECONDS",
        help="Replace a worker that takes longer for a batch, loading included; default: never.",
    ),
]
VariantsOption = Annotated[
    str | None,
    typer.Option(metavar="A,B", help="Only these variants of the suite.", autocompletion=complete_variants),
]
WeightsVariantOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Weight files to read, such as fp16 for *.fp16.safetensors; plain ones if left out.",
    ),
]
