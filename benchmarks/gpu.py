"""Everything that needs a GPU to be measured, in one call: agreement first, then time, against diffusers.

    python benchmarks/gpu.py [--sizes sana-1.6b-1024,...] [--parts pipeline,transformer,decoder,kernels] [--batches 2,8,32]
                             [--minutes 8] [--repetitions 20] [--dtype bf16] [--kernels auto|triton|torch] [--to reports/gpu]
    python benchmarks/gpu.py --sizes tiny --device cpu --dtype fp32     # tries the script where there is no GPU
    python scripts/collect_wheels.py WHEELS     # what is missing where there are torch and transformers but no network

Random weights, shared by both sides: speed does not depend on their values. All parts are checked before any is timed; one
disagreement ends the script. Contestants of a row run in turn, on CUDA between events. The roofline share is the least time
that the work can take, by the device's published peaks, over the median time. Rows are written as they are measured.

With `--minutes` the call ends in about that time. All cases are checked first, kernels before what is made of them; then they are
timed in the order of `--parts`, and within a part of `--sizes` and `--batches`. What does not fit is dropped by name: repetitions
of a case, down to 3; then contestants that must be compiled; then the case. So what is named last is dropped first. What was not
checked is never timed.
"""

import argparse
import gc
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

# From its folder alone, where nothing of the project is installed; what is installed comes first.
sys.path.extend(str(Path(__file__).resolve().parents[1] / folder) for folder in (".", "models", "kernels"))

from gpu_cases import (
    DISAGREEMENT,
    KERNELS,
    Case,
    Run,
    Scene,
    config_of,
    decoder_case,
    kernel_case,
    pipeline_case,
    transformer_case,
)
from side_by_side import Timing, cuda_seconds, environment, interleave, table, wall_seconds

from sana_bench.profiling.roofline import find_peaks
from sana_kernels import resolve_backend
from sana_models.config import SANA_CONFIGS

ROOT = Path(__file__).resolve().parents[1]
# The order in which parts are timed: where minutes are few, the last are dropped first.
PARTS = ("pipeline", "transformer", "decoder", "kernels")
# Fewer repetitions show no spread.
LEAST_REPETITIONS = 3
# Seconds that making a contestant late is expected to take until one was made: a compilation of the largest transformer.
LATE_SECONDS = 60.0
# Of the time that is left, what the repetitions of one case may take.
SHARE = 0.5
NO_TIME = "no time left"

# A name, and what builds the case.
Planned = tuple[str, Callable[[], Case]]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


class Clock:
    """The time that a call of the script has left, and what making a contestant late took at most so far."""

    def __init__(self, minutes: float | None, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._end = math.inf if minutes is None else now() + 60 * minutes
        self.late = LATE_SECONDS

    def left(self) -> float:
        """Seconds, below zero when there are none."""
        return self._end - self._now()

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
    with torch.inference_mode():
        measure_all(list(cases(arguments, scene)), scene, arguments, Clock(arguments.minutes))
    return 0


def measure_all(cases: Sequence[Planned], scene: Scene, arguments: argparse.Namespace, clock: Clock) -> None:
    """Check all cases that there is time for, then time them; ends the script where outputs differ."""
    failures, took = list[str](), dict[str, float]()
    for what, make in reversed(cases):
        if clock.left() > 0:
            found, took[what] = clock.seconds(lambda make=make: disagreements(make(), scene))
            failures += found
    if failures:
        sys.exit("\n".join(["outputs differ; nothing was timed", *failures]))
    arguments.to.mkdir(parents=True, exist_ok=True)
    rows, dropped = list[dict[str, Any]](), list[str]()
    for what, make in cases:
        # To build it again and run it once takes no longer than the check did.
        fits = took.get(what, math.inf) < clock.left()
        row = timed(make(), scene, arguments, clock) if fits else None
        if row is None:
            dropped.append(what)
        else:
            rows.append(row)
            print(*cells(row), sep="  ", flush=True)
        record(rows, dropped, scene, arguments)
        release(scene)
    if dropped:
        print(f"no time left for: {', '.join(dropped)}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--sizes", default=",".join(SANA_CONFIGS))
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--batches", default="2,8,32", help="rows of a transformer step; 2 is a guided image")
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
    """What is to be measured, in the order of `--parts`; of the decoder only what differs in resolution."""
    by_side = {config_of(name)[0].sample_size: name for name in arguments.sizes}
    for part in arguments.parts:
        for name in by_side.values() if part == "decoder" else arguments.sizes:
            if part == "kernels":
                for label in KERNELS:
                    yield f"{label}, {name}", partial(kernel_case, scene, name, label)
            elif part == "transformer":
                for batch in arguments.batches:
                    yield f"transformer, {name}, {batch} rows", partial(transformer_case, scene, name, batch)
            else:
                make = pipeline_case if part == "pipeline" else decoder_case
                yield f"{part}, {name}", partial(make, scene, name)


def disagreements(case: Case, scene: Scene) -> list[str]:
    """Say which contestants differ from the peer by more than rounding explains."""
    expected = case.contestants[case.peer]().float()
    lines = []
    for name, run in case.contestants.items():
        error = float((run().float() - expected).abs().max() / expected.std())
        if not error <= DISAGREEMENT[scene.dtype]:
            lines.append(f"{case.what}: {name} is off by {error:.2g} of the spread of {case.peer}")
    release(scene)
    return lines


def timed(case: Case, scene: Scene, arguments: argparse.Namespace, clock: Clock) -> dict[str, Any] | None:
    """Time a case; None where there is no time for it.

    Contestants that are made late are checked first, and left out by name when they differ, do not fit, or would take too long.
    """
    left_out: dict[str, str] = {}
    contestants = dict(case.contestants)
    expected = case.contestants[case.peer]().float()
    # Each has run before: what is compiled at the first call is compiled.
    each = sum(clock.seconds(run)[1] for run in contestants.values())
    if clock.repetitions(arguments.repetitions, each) < min(LEAST_REPETITIONS, arguments.repetitions):
        return None
    for name, make in case.late.items():
        if clock.left() < clock.late:
            left_out[name] = NO_TIME
            continue
        (run, reason), seconds = clock.seconds(lambda make=make: made_late(make, expected, scene))
        clock.late = max(clock.late, seconds)
        if run is None:
            left_out[name] = reason
        else:
            contestants[name] = run
    measure = cuda_seconds if scene.device.type == "cuda" else wall_seconds
    each = sum(clock.seconds(run)[1] for run in contestants.values())
    repetitions = max(LEAST_REPETITIONS, clock.repetitions(arguments.repetitions, each))
    times = interleave(
        contestants,
        min(arguments.repetitions, repetitions),
        warm_up=min(3, repetitions // 2),
        measure=measure,
    )
    return {
        "what": case.what,
        "peer": case.peer,
        "seconds": {name: list(timing.seconds) for name, timing in times.items()},
        "left_out": left_out,
        "flops": case.flops,
        "bytes": case.bytes,
        "floor": floor(case, scene),
    }


def made_late(make: Callable[[], Run], expected: torch.Tensor, scene: Scene) -> tuple[Run | None, str]:
    """A contestant that agrees with what is expected, or why there is none."""
    try:
        run = make()
        error = float((run().float() - expected).abs().max() / expected.std())
    except torch.cuda.OutOfMemoryError:
        return None, "out of memory"
    if not error <= DISAGREEMENT[scene.dtype]:
        return None, f"off by {error:.2g} of the spread"
    return run, ""


def floor(case: Case, scene: Scene) -> float | None:
    """Return the least seconds by the device's peaks; None for a device without known ones."""
    if scene.device.type != "cuda":
        return None
    peaks = find_peaks(torch.cuda.get_device_name())
    precision = next(name for name, dtype in DTYPES.items() if dtype == scene.dtype)
    return max(case.flops / peaks.flops[precision], case.bytes / peaks.bytes_per_s) if peaks else None


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    times = {name: Timing(tuple(seconds)) for name, seconds in row["seconds"].items()}
    peer = times[row["peer"]].median
    best = min(
        (timing.median for name, timing in times.items() if name.startswith(("ours", "triton"))), default=peer
    )
    each = "; ".join(f"{name} {timing} ({peer / timing.median:.2f}x)" for name, timing in times.items())
    left_out = "; ".join(f"{name}: {reason}" for name, reason in row["left_out"].items())
    share = f"{row['floor'] / best:.0%}" if row["floor"] else ""
    return row["what"], each, share, left_out


def record(
    rows: list[dict[str, Any]], dropped: Sequence[str], scene: Scene, arguments: argparse.Namespace
) -> None:
    """Write what was measured so far, and what was dropped."""
    facts = environment() | {"dtype": str(scene.dtype).removeprefix("torch."), "kernels": scene.kernels}
    if scene.device.type == "cuda":
        facts |= {"device": torch.cuda.get_device_name(), "CUDA": str(torch.version.cuda), "driver": driver()}
    (arguments.to / "gpu.json").write_text(
        json.dumps({"environment": facts, "rows": rows, "dropped": list(dropped)}, indent=2) + "\n",
        encoding="utf-8",
    )
    header = (
        "what",
        "median [fastest, slowest] (times the peer's speed)",
        "roofline share of our best",
        "left out",
    )
    listed = ", ".join(f"{name} {value}" for name, value in facts.items())
    text = (
        f"# Speed on {facts.get('device', 'a processor, to try the script')}\n\n`python benchmarks/gpu.py`, "
        f"at most {arguments.repetitions} interleaved repetitions. Random weights: speed does not depend on them.\n"
        f"Every row's contestants agreed in the same run. {listed}.\n\n{table(header, [cells(row) for row in rows])}\n"
    )
    if dropped:
        text += f"\nDropped, as the minutes were used up: {'; '.join(dropped)}.\n"
    (arguments.to / "gpu.md").write_text(text, encoding="utf-8")


def driver() -> str:
    import pynvml

    pynvml.nvmlInit()
    return str(pynvml.nvmlSystemGetDriverVersion())


def release(scene: Scene) -> None:
    """Give memory back before the next case is built."""
    gc.collect()
    if scene.device.type == "cuda":
        torch._dynamo.reset()
        torch.cuda.empty_cache()


if __name__ == "__main__":
    sys.exit(main())
