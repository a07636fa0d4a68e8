"""Everything that needs a GPU to be measured, in one call: agreement first, then time, against diffusers.

    python benchmarks/gpu.py [--sizes sana-1.6b-1024,...] [--parts kernels,transformer,decoder,pipeline] [--batches 2,8,32]
                             [--repetitions 20] [--dtype bf16] [--kernels auto|triton|torch] [--to reports/gpu]
    python benchmarks/gpu.py --sizes tiny --device cpu --dtype fp32     # tries the script where there is no GPU

Random weights, shared by both sides: speed does not depend on their values. All parts are checked before any is timed; one
disagreement ends the script. Contestants of a row run in turn, on CUDA between events. The roofline share is the least time
that the work can take, by the device's published peaks, over the median time. Rows are written as they are measured.
"""

import argparse
import gc
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from gpu_cases import (
    DISAGREEMENT,
    Case,
    Scene,
    config_of,
    decoder_case,
    kernel_cases,
    pipeline_case,
    transformer_case,
)
from side_by_side import Timing, cuda_seconds, environment, interleave, table, wall_seconds

from sana_bench.profiling.roofline import find_peaks
from sana_kernels import resolve_backend
from sana_models.config import SANA_CONFIGS

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("kernels", "transformer", "decoder", "pipeline")
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def main() -> int:
    arguments = parse()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no CUDA device; --device cpu --sizes tiny --dtype fp32 tries the script without one")
    backend = resolve_backend(arguments.kernels, arguments.device)
    scene = Scene(torch.device(arguments.device), DTYPES[arguments.dtype], backend)
    with torch.inference_mode():
        failures = [line for make in cases(arguments, scene) for line in disagreements(make(), scene)]
        if failures:
            sys.exit("\n".join(["outputs differ; nothing was timed", *failures]))
        arguments.to.mkdir(parents=True, exist_ok=True)
        rows: list[dict[str, Any]] = []
        for make in cases(arguments, scene):
            rows.append(timed(make(), scene, arguments))
            print(*cells(rows[-1]), sep="  ", flush=True)
            record(rows, scene, arguments)
            release(scene)
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--sizes", default=",".join(SANA_CONFIGS))
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--batches", default="2,8,32", help="rows of a transformer step; 2 is a guided image")
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


def cases(arguments: argparse.Namespace, scene: Scene) -> Iterator[Callable[[], Case]]:
    """Yield what builds each case; sizes of equal shape are measured once where resolution plays no part."""
    for name in arguments.sizes:
        if "kernels" in arguments.parts:
            for case in kernel_cases(scene, name):
                yield lambda case=case: case
        if "transformer" in arguments.parts:
            for batch in arguments.batches:
                yield lambda name=name, batch=batch: transformer_case(scene, name, batch)
        if "pipeline" in arguments.parts:
            yield lambda name=name: pipeline_case(scene, name)
    if "decoder" in arguments.parts:
        by_side = {config_of(name)[0].sample_size: name for name in arguments.sizes}
        for name in by_side.values():
            yield lambda name=name: decoder_case(scene, name)


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


def timed(case: Case, scene: Scene, arguments: argparse.Namespace) -> dict[str, Any]:
    """Time a case; contestants that are made late are checked first, and left out by name when they differ or do not fit."""
    left_out: dict[str, str] = {}
    contestants = dict(case.contestants)
    expected = case.contestants[case.peer]().float()
    for name, make in case.late.items():
        try:
            run = make()
            error = float((run().float() - expected).abs().max() / expected.std())
        except torch.cuda.OutOfMemoryError:
            left_out[name] = "out of memory"
            continue
        if error <= DISAGREEMENT[scene.dtype]:
            contestants[name] = run
        else:
            left_out[name] = f"off by {error:.2g} of the spread"
    measure = cuda_seconds if scene.device.type == "cuda" else wall_seconds
    times = interleave(contestants, arguments.repetitions, warm_up=3, measure=measure)
    return {
        "what": case.what,
        "peer": case.peer,
        "seconds": {name: list(timing.seconds) for name, timing in times.items()},
        "left_out": left_out,
        "flops": case.flops,
        "bytes": case.bytes,
        "floor": floor(case, scene),
    }


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


def record(rows: list[dict[str, Any]], scene: Scene, arguments: argparse.Namespace) -> None:
    """Write what was measured so far."""
    facts = environment() | {"dtype": str(scene.dtype).removeprefix("torch."), "kernels": scene.kernels}
    if scene.device.type == "cuda":
        facts |= {"device": torch.cuda.get_device_name(), "CUDA": str(torch.version.cuda), "driver": driver()}
    (arguments.to / "gpu.json").write_text(
        json.dumps({"environment": facts, "rows": rows}, indent=2) + "\n", encoding="utf-8"
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
        f"{arguments.repetitions} interleaved repetitions. Random weights: speed does not depend on them.\n"
        f"Every row's contestants agreed in the same run. {listed}.\n\n{table(header, [cells(row) for row in rows])}\n"
    )
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
