"""How much work one driver can hand out, and what that means for many GPUs.

    python benchmarks/scale.py [--images 3000,30000] [--workers 0,1,2,4,8] [--batch-size 8] [--milliseconds 1] [--to FOLDER]

A synthetic generator takes so many milliseconds an image, and all else is as in a run: Ray's workers, PNG files, the store. With
0 workers it is the local engine. Each row is a process of its own: rate, the driver's processor time an image and the rate that
this alone would allow, its memory, and the time of planning. Then a simulation takes the driver's time as measured, and asks how
long MJHQ-30K and best-of-2048 take with 8, 64 and 512 GPUs, and where the driver is the limit. Needs the extra `distributed`, and
about ten minutes on two cores. Writes `scale.{json,md}`.
"""

import argparse
import heapq
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from side_by_side import environment
from side_by_side import table as markdown

from sana_bench.core.engines import EngineRequest
from sana_bench.core.fingerprint import FileHashes

ROOT = Path(__file__).resolve().parents[1]
SIZE = 16
GPUS = (8, 64, 512)
IN_FLIGHT = 2
PLUGIN = """
import time
import numpy as np

class Synthetic:
    def __init__(self, spec, device):
        self.seconds = float((spec.weights_path / "seconds").read_text())

    def generate(self, requests):
        time.sleep(self.seconds * len(requests))
        seeds = np.array([request.noise_seed for request in requests], np.uint64)
        pixels = np.frombuffer(seeds.tobytes(), np.uint8).reshape(len(requests), 8)
        return np.ascontiguousarray(np.broadcast_to(pixels[:, :1, None, None], (len(requests), SIZE, SIZE, 3)))

class Mean:
    name, protocol, higher_is_better = "synthetic_mean", "synthetic_mean/test@1", True
    def identity(self): return {"version": 1}
    def score(self, samples): return []
    def summarise(self, rows, n_expected, seed): return []

def mean(*_): return Mean()
SIZE = %d
"""


@dataclass(frozen=True)
class Row:
    """One measurement; seconds of planning are of an empty output, of one whose images are read, and of one that was read."""

    images: int
    workers: int
    batch_size: int
    images_per_s: float
    driver_ms_an_image: float
    peak_mb: float
    plan_s: tuple[float, float, float]

    @property
    def who(self) -> str:
        return str(self.workers or "local")


@dataclass(frozen=True)
class Work:
    """Units that are handed out whole, each of so many images that take so many seconds."""

    name: str
    units: int
    images_a_unit: int
    seconds_an_image: float


#: Seconds an image on one A100: 8 hours for 30,000 of the 1.6B at 1024 pixels, 32 for the 4.8B. Of a search, all candidates.
WORKS = (
    Work("MJHQ-30K, 1.6B, batches of 8", 3750, 8, 0.96),
    Work("MJHQ-30K, 4.8B, batches of 8", 3750, 8, 3.84),
    Work("best of 2048, GenEval's 553 prompts, 1.6B, batches of 8", 70, 8, 2048 * 0.96),
    Work("best of 2048, GenEval's 553 prompts, 1.6B, batches of 1", 553, 1, 2048 * 0.96),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", default="3000,30000")
    parser.add_argument("--workers", default="0,1,2,4,8")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--milliseconds", type=float, default=1.0)
    parser.add_argument("--to", type=Path, default=ROOT / "reports" / "benchmarks")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    counts, workers = numbers(options.images), numbers(options.workers)
    if options.one:
        print(
            json.dumps(asdict(measure(counts[0], workers[0], options.batch_size, options.milliseconds / 1e3)))
        )
        return 0
    rows = []
    for count in counts:
        for number in workers:
            rows.append(in_process(count, number, options))
            print(rows[-1], flush=True)
    write(rows, options)
    return 0


def write(rows: list[Row], options: argparse.Namespace) -> None:
    """Write the report as JSON and Markdown, and print it."""
    where = environment()
    command = (
        f"python benchmarks/scale.py --images {options.images} --workers {options.workers} "
        f"--batch-size {options.batch_size} --milliseconds {options.milliseconds:g}"
    )
    costs = [row.driver_ms_an_image / 1e3 * row.batch_size for row in rows if row.workers]
    document = {
        "command": command,
        "environment": where,
        "rows": [asdict(row) for row in rows],
        "growth_bytes_an_image": growth(rows),
        "driver_s_a_unit": max(costs, default=None),
    }
    parts = [
        "# How much work one driver can hand out",
        f"`{command}`. {', '.join(f'{key} {value}' for key, value in where.items())}.",
        table(rows),
        *(f"Memory grows by {bytes_:,.0f} bytes an image ({who})." for who, bytes_ in growth(rows).items()),
        *(simulation(max(costs)) if costs else ()),
    ]
    text = "\n\n".join(parts) + "\n"
    options.to.mkdir(parents=True, exist_ok=True)
    (options.to / "scale.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (options.to / "scale.md").write_text(text, encoding="utf-8")
    print(text)


def growth(rows: list[Row]) -> dict[str, float]:
    """By engine, the bytes of peak memory for each image more, from the fewest images to the most."""
    found = {}
    for who in dict.fromkeys(row.who for row in rows):
        own = sorted((row for row in rows if row.who == who), key=lambda row: row.images)
        if own[-1].images > own[0].images:
            more = (own[-1].peak_mb - own[0].peak_mb) * 1e6
            found[f"{who} worker{'s' if own[0].workers > 1 else ''}" if own[0].workers else who] = more / (
                own[-1].images - own[0].images
            )
    return found


def numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def in_process(count: int, workers: int, options: argparse.Namespace) -> Row:
    """Measure in a process of its own, whose peak of memory is nobody else's."""
    command = [sys.executable, __file__, "--one", "--images", str(count), "--workers", str(workers)]
    command += ["--batch-size", str(options.batch_size), "--milliseconds", str(options.milliseconds)]
    with tempfile.TemporaryDirectory() as folder:
        install(Path(folder))
        path = os.pathsep.join([folder, *(str(ROOT / name) for name in ("", "models", "kernels", "reports"))])
        environment = {**os.environ, "PYTHONPATH": path}
        found = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return Row(**json.loads(found.stdout.splitlines()[-1]))


def install(folder: Path) -> None:
    """Write the generator as an installed plug-in, which workers find."""
    (folder / "synthetic_parts.py").write_text(PLUGIN % SIZE)
    info = folder / "synthetic_parts-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: synthetic-parts\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(
        "[sana_bench.generators]\nsynthetic = synthetic_parts:Synthetic\n"
        "[sana_bench.metrics]\nsynthetic_mean = synthetic_parts:mean\n"
    )


def measure(count: int, workers: int, batch_size: int, seconds: float) -> Row:
    """Make images as a run does; scores are left out."""
    from sana_bench.core.provenance import now
    from sana_bench.results.store import Store
    from sana_bench.runner.checks import load_metrics
    from sana_bench.runner.engines.choice import Choice, open_engine
    from sana_bench.runner.making import ImageMaker
    from sana_bench.runner.resolve import resolve_suite
    from sana_bench.runner.workshop import Workplace
    from sana_bench.suites.load import load_suite
    from sana_bench.suites.tiers import choose_tier

    with tempfile.TemporaryDirectory() as folder:
        suite = load_suite(write_suite(Path(folder), count, seconds), "micro")
        hashes, output = FileHashes(), Path(folder) / "results"
        resolved = resolve_suite(suite, choose_tier("micro"), hashes)
        (cell,) = resolved.cells()
        directory = output / "runs" / resolved.run_id
        directory.mkdir(parents=True)
        with Store.open(output) as store:
            store.put_run(resolved.run_id, "scale", "micro", resolved.fingerprint, "runs/scale", now())
            session = store.start_session(resolved.run_id, now(), "scale")
            engine = open_engine(
                Choice("ray" if workers else "local", workers or 1), EngineRequest(), resolved,
                Workplace(output, directory, "cpu", output / "cache"),
                load_metrics(resolved, output / "cache", hashes), hashes,
                lambda kind, details: store.add_event(session, now(), kind, details), store.put_worker,
            )  # fmt: skip
            maker = ImageMaker(store, directory, session, engine, batch_size=batch_size)
            plan, first = timed(lambda: maker.plan(cell))
            # Workers start before the clock does.
            few = maker.plan(cell, limit=batch_size * max(1, workers))
            maker.make([few])
            plan = maker.plan(cell)
            began, used = time.perf_counter(), time.process_time()
            maker.make([plan])
            took, used = time.perf_counter() - began, time.process_time() - used
            engine.close()
            time.sleep(2)  # what was changed less than two seconds ago is read again
            done, second = timed(lambda: maker.plan(cell))
            _, third = timed(lambda: maker.plan(cell))
            if len(done.done) != count:
                raise SystemExit(f"{len(done.done)} of {count} images are there")
        made = len(plan.missing)
        # Of this process alone; what getrusage says starts at the parent's.
        peak = 1024 / 1e6 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
        return Row(count, workers, batch_size, made / took, used / made * 1e3, peak, (first, second, third))


def timed(work):
    began = time.perf_counter()
    return work(), time.perf_counter() - began


def write_suite(folder: Path, count: int, seconds: float) -> Path:
    lines = (json.dumps({"id": f"{line:06d}", "prompt": f"prompt {line}"}) for line in range(count))
    (folder / "prompts.jsonl").write_text("\n".join(lines) + "\n")
    weights = folder / "variants" / "weights"
    weights.mkdir(parents=True)
    (weights / "seconds").write_text(str(seconds))
    (folder / "variants" / "synthetic.yaml").write_text(
        f"schema_version: 1\nname: synthetic\ntier: micro\ngenerator: synthetic\n"
        f"model: {{weights: ./weights, height: {SIZE}, width: {SIZE}}}\n"
    )
    path = folder / "scale.yaml"
    path.write_text(
        "schema_version: 1\nname: scale\nvariants: {micro: [synthetic]}\n"
        "benchmarks:\n  - {name: scale, prompts: prompts.jsonl, images_per_prompt: 1, metrics: [synthetic_mean]}\n"
    )
    return path


def table(rows: Iterable[Row]) -> str:
    heads = (
        "images", "workers", "images/s", "driver, ms an image", "driver alone, images/s", "driver, peak MB",
        "planning: empty, read, known (s)",
    )  # fmt: skip
    return markdown(
        heads,
        [
            (
                f"{row.images:,}", row.who, f"{row.images_per_s:,.0f}", f"{row.driver_ms_an_image:.2f}",
                f"{1e3 / row.driver_ms_an_image:,.0f}", f"{row.peak_mb:,.0f}",
                ", ".join(f"{seconds:.2f}" for seconds in row.plan_s),
            )
            for row in rows
        ],
    )  # fmt: skip


def simulation(driver_s: float) -> list[str]:
    """Paragraphs on how long work takes if the driver needs `driver_s` for each unit, whatever its size."""
    rows = []
    for work in WORKS:
        unit_s = work.images_a_unit * work.seconds_an_image
        took = {gpus: simulate(work.units, unit_s, gpus, driver_s) for gpus in GPUS}
        shown = [f"{s / 3600:,.2f} h ({work.units * unit_s / gpus / s:.0%} busy)" for gpus, s in took.items()]
        limit = unit_s / driver_s
        never = f"never: there are {work.units} units"
        rows.append((work.name, *shown, f"{limit:,.0f} GPUs" if limit <= work.units else never))
    heads = ("work", *(f"{gpus} GPUs" for gpus in GPUS), "the driver is the limit from")
    return [
        f"Simulated with a driver of {driver_s * 1e3:.1f} ms a unit, the most above, so at most {1 / driver_s:,.0f} units/s:",
        markdown(heads, rows),
    ]


def simulate(units: int, unit_s: float, gpus: int, driver_s: float) -> float:
    """Seconds until all units are done: each GPU has a queue of two, and the driver deals with one finished unit at a time."""
    free_at = [0.0] * gpus  # when the GPU has done everything that it was given
    finished: list[tuple[float, int]] = []
    first = min(units, IN_FLIGHT * gpus)
    for unit in range(first):
        free_at[unit % gpus] += unit_s
        heapq.heappush(finished, (free_at[unit % gpus], unit % gpus))
    left, driver_at = units - first, 0.0
    while finished:
        done, gpu = heapq.heappop(finished)
        driver_at = max(driver_at, done) + driver_s
        if left:
            left -= 1
            free_at[gpu] = max(free_at[gpu], driver_at) + unit_s
            heapq.heappush(finished, (free_at[gpu], gpu))
    return driver_at


if __name__ == "__main__":
    raise SystemExit(main())
