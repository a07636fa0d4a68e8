"""Everything that needs a GPU to be measured, in one call: agreement first, then time, against diffusers.

    python benchmarks/gpu.py [--minutes 8] [--sizes sana-1.6b-1024,...] [--parts pipeline,transformer,decoder,kernels]
                             [--batches 1,8] [--repetitions 20] [--dtype bf16] [--kernels auto|triton|torch] [--to reports/gpu]
    python benchmarks/gpu.py --sizes tiny --device cpu --dtype fp32     # tries the script where there is no GPU
    python scripts/collect_wheels.py WHEELS     # what is missing where there are torch and transformers but no network

Random weights, shared by both sides: speed does not depend on their values. All parts are checked before any is timed; one
disagreement ends the script. Contestants of a row run in turn, on CUDA between events, pipelines with marks around their stages.
The roofline share is the least time that the work can take, by peaks of products and of copies measured at the start of the call,
over the median time. Rows are written as they are measured.

With `--minutes` the call ends in about that time. All cases are checked first, kernels before what is made of them; then they are
timed by `--batches`, for each batch by `--sizes`, and for each size in the order of `--parts`. What does not fit is dropped by
name: repetitions of a case, down to 3; then contestants that must be compiled; then the case. So what is named last is dropped
first. What was not checked is never timed, and what was not measured is named with the reason.
"""

import argparse
import gc
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, get_args

import torch

# From its folder alone, where nothing of the project is installed; what is installed comes first.
sys.path.extend(str(Path(__file__).resolve().parents[1] / folder) for folder in (".", "models", "kernels"))

from gpu_cases import (
    DISAGREEMENT,
    KERNELS,
    Case,
    Run,
    Scene,
    Short,
    Staged,
    config_of,
    decoder_case,
    kernel_case,
    transformer_case,
)
from gpu_pipelines import pipeline_case
from gpu_report import Found, card, in_ms, precision_of, write
from side_by_side import cuda_seconds, interleave, wall_seconds

from sana_bench.profiling.roofline import Peaks, measure_peaks
from sana_bench.profiling.stages import StageClock
from sana_bench.profiling.timers import timer_for
from sana_kernels import resolve_backend
from sana_models.config import SANA_CONFIGS
from sana_models.quantization import Quantization

ROOT = Path(__file__).resolve().parents[1]
# The order in which parts are timed: where minutes are few, the last are dropped first.
PARTS = ("pipeline", "transformer", "decoder", "kernels")
SIZES = ("sana-1.6b-1024", "sana-0.6b-1024")
# Fewer repetitions show no spread.
LEAST_REPETITIONS = 3
# Seconds that making a contestant late is expected to take until one was made: a compilation of the largest transformer.
LATE_SECONDS = 60.0
# Of the time that is left, what the repetitions of one case may take.
SHARE = 0.5
NO_TIME = "no time left"
OUT_OF_MEMORY = "out of memory"

# A name, and what builds the case.
Planned = tuple[str, Callable[[], Case]]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


class Clock:
    """The time that a call of the script has left, and what making each late contestant took at most so far."""

    def __init__(self, minutes: float | None, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._end = math.inf if minutes is None else now() + 60 * minutes
        self._late: dict[str, float] = {}

    def left(self) -> float:
        """Seconds, below zero when there are none."""
        return self._end - self._now()

    def fits(self, late: str) -> bool:
        """Whether there is time to make a contestant; one that was never made may take as long as any other."""
        longest = max([LATE_SECONDS, *self._late.values()])
        return self._late.get(late, longest) <= self.left()

    def made(self, late: str, seconds: float) -> None:
        """Note what making a contestant took."""
        self._late[late] = max(self._late.get(late, 0.0), seconds)

    def seconds(self, run: Callable[[], Any]) -> tuple[Any, float]:
        """What a call returns, and what it took."""
        began = self._now()
        return run(), self._now() - began

    def repetitions(self, asked: int, each: float) -> int:
        """How many repetitions of `each` seconds fit, of those that are asked for."""
        return asked if each <= 0 or self.left() == math.inf else min(asked, int(SHARE * self.left() / each))


def main() -> int:
    arguments = parse()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no CUDA device; --device cpu --sizes tiny --dtype fp32 tries the script without one")
    backend = resolve_backend(arguments.kernels, arguments.device)
    scene = Scene(torch.device(arguments.device), DTYPES[arguments.dtype], backend)
    clock = Clock(arguments.minutes)
    # What a quantised transformer multiplies is integers.
    peaks = measure_peaks(card(scene.device), arguments.device, (arguments.dtype, "int8"))
    measure_all(list(cases(arguments, scene)), scene, arguments, clock, peaks)
    return 0


def measure_all(
    cases: Sequence[Planned],
    scene: Scene,
    arguments: argparse.Namespace,
    clock: Clock,
    peaks: Peaks | None = None,
) -> None:
    """Check all cases that there is time for, then time them; ends the script where outputs differ."""
    found = Found(peaks, not_measured=absent(scene, peaks))
    failures, took = list[str](), dict[str, float]()
    for what, make in sorted(cases, key=lambda planned: not planned[0].startswith(KERNELS)):
        # What is made of kernels that are wrong is wrong as well, or does not run at all.
        if failures and not what.startswith(KERNELS):
            break
        if clock.left() > 0:
            lines, took[what] = clock.seconds(
                lambda what=what, make=make: in_memory(what, found, lambda: disagreements(make(), scene))
            )
            failures += lines or []
            release(scene)
    if failures:
        sys.exit("\n".join(["outputs differ; nothing was timed", *failures]))
    arguments.to.mkdir(parents=True, exist_ok=True)
    for what, make in cases:
        row = None
        # To build it again and run it once takes no longer than the check did.
        if what not in found.not_measured and took.get(what, math.inf) < clock.left():
            row = in_memory(what, found, lambda make=make: timed(make(), scene, arguments, clock))
        if row is not None:
            found.rows.append(row)
            print(summary(row), flush=True)
        elif what not in found.not_measured:
            found.dropped.append(what)
        write(found, scene, arguments.repetitions, arguments.to)
        release(scene)
    if found.dropped:
        print(f"no time left for: {', '.join(found.dropped)}")


def absent(scene: Scene, peaks: Peaks | None) -> dict[str, str]:
    """What this call cannot measure, and why."""
    found = {"fp8": f"sana_models quantises to {', '.join(get_args(Quantization)[1:])}"}
    if scene.device.type != "cuda":
        found["compiled contestants and CUDA graphs"] = "made on a GPU alone"
    if scene.kernels != "triton":
        found["Triton kernels"] = f"ours runs on {scene.kernels}"
    if peaks is not None:
        for name in {precision_of(scene.dtype), "int8"} - peaks.flops.keys():
            found[f"peak of {name}"] = "torch has no product of it on this device"
    return found


def in_memory(what: str, found: Found, run: Callable[[], Any]) -> Any:
    """What a call returns; None where the device's memory does not hold it, which is noted."""
    try:
        return run()
    except torch.OutOfMemoryError:
        found.not_measured[what] = OUT_OF_MEMORY
        return None


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--sizes", default=",".join(SIZES), help=f"of tiny, {', '.join(SANA_CONFIGS)}")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument(
        "--batches", default="1,8", help="images at a time; a guided step has two rows for each"
    )
    parser.add_argument("--minutes", type=float, help="drop what does not fit; default: time everything")
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="bf16")
    parser.add_argument("--kernels", choices=("auto", "triton", "torch"), default="auto")
    parser.add_argument("--to", type=Path, default=ROOT / "reports" / "gpu")
    arguments = parser.parse_args()
    arguments.sizes = arguments.sizes.split(",")
    arguments.parts = arguments.parts.split(",")
    arguments.batches = [int(batch) for batch in arguments.batches.split(",")]
    known = {"--sizes": (arguments.sizes, ("tiny", *SANA_CONFIGS)), "--parts": (arguments.parts, PARTS)}
    for option, (given, allowed) in known.items():
        unknown = [name for name in given if name not in allowed]
        if unknown:
            parser.error(f"{option}: unknown {unknown[0]!r}; of {', '.join(allowed)}")
    return arguments


def cases(arguments: argparse.Namespace, scene: Scene) -> Iterator[Planned]:
    """What is to be measured, in order; of the decoder what differs in resolution, kernels of one image of the first size."""
    # The first size of each resolution.
    by_side = {config_of(name)[0].sample_size: name for name in reversed(arguments.sizes)}
    makers = {"pipeline": pipeline_case, "transformer": transformer_case, "decoder": decoder_case}
    for batch, name, part in product(arguments.batches, arguments.sizes, arguments.parts):
        if part == "kernels":
            first = batch == arguments.batches[0] and name == arguments.sizes[0]
            for label in KERNELS if first else ():
                yield f"{label}, {name}", partial(kernel_case, scene, name, label)
        elif part != "decoder" or name in by_side.values():
            yield f"{part}, {name}, batch {batch}", partial(makers[part], scene, name, batch)


@torch.inference_mode()
def difference(case: Case, name: str, run: Run, expected: torch.Tensor, scene: Scene) -> str:
    """How far a contestant is off, where that is too far; else nothing."""
    off, spread = as_numbers(run()) - expected, expected.std()
    if name in case.bounds:
        error, of = float(off.square().mean().sqrt() / spread), "the spread"
    else:
        error, of = float((off.abs() / (spread + expected.abs())).max()), "value plus spread"
    return "" if error <= case.bounds.get(name, DISAGREEMENT[scene.dtype]) else f"off by {error:.2g} of {of}"


def as_numbers(output: torch.Tensor) -> torch.Tensor:
    """Levels of pixels as shares of white, all else as it is, in fp32."""
    return output.float() / 255 if output.dtype == torch.uint8 else output.float()


def disagreements(case: Case, scene: Scene) -> list[str]:
    """Say which contestants differ from the peer by more than rounding explains."""
    with torch.inference_mode():
        expected = as_numbers(case.contestants[case.peer]())
    lines = []
    for name, run in case.contestants.items():
        try:
            off = difference(case, name, run, expected, scene)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a kernel raises: the others are still to be checked
            lines.append(f"{case.what}: {name} fails: {first_line(error)}")
            continue
        if off:
            lines.append(f"{case.what}: {name} is {off} of {case.peer}")
    return lines


def first_line(error: Exception) -> str:
    """What an error says, in short."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def timed(case: Case, scene: Scene, arguments: argparse.Namespace, clock: Clock) -> dict[str, Any] | None:
    """Time a case; None where there is no time for it.

    Contestants that are made late are checked first, and left out by name when they differ, fail, or would take too long.
    """
    left_out: dict[str, str] = {}
    contestants = dict(case.contestants)
    with torch.inference_mode():
        expected = as_numbers(case.contestants[case.peer]())
    # Each has run before: what is compiled at the first call is compiled.
    if clock.repetitions(arguments.repetitions, once(contestants, scene, clock)) < min(
        LEAST_REPETITIONS, arguments.repetitions
    ):
        return None
    for name, make in case.late.items():
        if not clock.fits(name):
            left_out[name] = NO_TIME
            continue
        (run, reason), seconds = clock.seconds(
            lambda name=name, make=make: made_late(case, name, make, expected, scene)
        )
        clock.made(name, seconds)
        if run is None:
            left_out[name] = reason
        else:
            contestants[name] = run
    fit = max(LEAST_REPETITIONS, clock.repetitions(arguments.repetitions, once(contestants, scene, clock)))
    with torch.inference_mode():
        times = interleave(
            contestants,
            min(arguments.repetitions, fit),
            warm_up=min(3, fit // 2),
            measure=partial(seconds_of, scene=scene),
        )
    return {
        "what": case.what,
        "peer": case.peer,
        "seconds": {name: list(timing.seconds) for name, timing in times.items()},
        "stages": {name: run.medians() for name, run in contestants.items() if isinstance(run, Staged)},
        "left_out": left_out,
        "flops": case.work.flops,
        "bytes": case.work.bytes,
        "precision": precision_of(torch.float32 if case.work.itemsize == 4 else scene.dtype),
        "eight_bits": list(case.eight_bits),
    }


@torch.inference_mode()
def once(contestants: dict[str, Run], scene: Scene, clock: Clock) -> float:
    """Seconds that a call of each takes together, until the device is done."""

    def run_all() -> None:
        for run in contestants.values():
            run()
        timer_for(scene.device.type).finish()

    return clock.seconds(run_all)[1]


def seconds_of(run: Run, scene: Scene) -> float:
    """Seconds of one call; a contestant whose time can be split keeps those of its stages."""
    measure = cuda_seconds if scene.device.type == "cuda" else wall_seconds
    if isinstance(run, Short) and scene.device.type == "cuda":
        run.record()
        return measure(run.recording.replay) / run.calls
    if not isinstance(run, Staged):
        return measure(run)
    clock = StageClock(run.stages, timer_for(scene.device.type))
    with clock.watching():
        seconds = measure(run)
    run.taken.append({stage: sum(each) / 1000 for stage, each in clock.milliseconds().items()})
    return seconds


def made_late(
    case: Case, name: str, make: Callable[[], Run], expected: torch.Tensor, scene: Scene
) -> tuple[Run | None, str]:
    """A contestant that agrees with what is expected, or why there is none."""
    try:
        run = make()
        off = difference(case, name, run, expected, scene)
    except torch.OutOfMemoryError:
        return None, OUT_OF_MEMORY
    except Exception as error:  # noqa: BLE001 - whatever a compiler raises: the others are still to be timed
        return None, first_line(error)
    return (None, off) if off else (run, "")


def summary(row: dict[str, Any]) -> str:
    """A row's medians in a line."""
    medians = "; ".join(f"{name} {in_ms(seconds)}" for name, seconds in row["seconds"].items())
    left_out = "".join(f"; {name}: not measured: {reason}" for name, reason in row["left_out"].items())
    return f"{row['what']}: {medians}{left_out}"


def release(scene: Scene) -> None:
    """Give memory back before the next case is built."""
    gc.collect()
    if scene.device.type == "cuda":
        torch._dynamo.reset()
        torch.cuda.empty_cache()


if __name__ == "__main__":
    sys.exit(main())
