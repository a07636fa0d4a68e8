"""What the harness costs beside its models: processor time of its commands, of a run with nothing to do, and around generation.

    python benchmarks/harness.py [--repetitions 5] [--images 48] [--to reports/benchmarks]

Each command runs in a process of its own; its processor time is that of the process, imports of all packages included, which
other work on the machine changes little. The least of the repetitions counts. What it imports of the heavy packages is named.
Around generation, the time that a run takes to make images is held against what the generator alone took of it, on one thread.
Writes `harness.{json,md}`.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from side_by_side import environment, table

ROOT = Path(__file__).resolve().parents[1]
_HEAVY = ("torch", "open_clip", "transformers", "diffusers", "pandas", "scipy", "numpy", "PIL.Image")
_COMMAND = """
import sys
from sana_bench.cli.main import execute
code = execute(sys.argv[2:])
print("imported:", *(name for name in sys.argv[1].split(",") if name in sys.modules))
sys.exit(code)
"""
_AROUND = """
import json, sys, time
from sana_bench.cli.main import execute
from sana_bench.generators.sana import SanaGenerator
from sana_bench.runner.making import ImageMaker
from sana_bench.runner.workshop import Workshop
spent = {}
def timed(kind, name):
    plain = getattr(kind, name)
    def around(*arguments, **options):
        began = time.perf_counter()
        try:
            return plain(*arguments, **options)
        finally:
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - began
    setattr(kind, name, around)
for kind, name in ((ImageMaker, "make"), (Workshop, "_open"), (Workshop, "_prepare"), (SanaGenerator, "generate")):
    timed(kind, name)
execute(sys.argv[1:])
print(json.dumps(spent))
"""


def measure_command(arguments: list[str], repetitions: int) -> dict[str, Any]:
    """Processor seconds of a command, and the heavy packages that it imports."""
    seconds, done = [], None
    for _ in range(repetitions):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-c", _COMMAND, ",".join(_HEAVY), *arguments],
            capture_output=True, text=True, cwd=ROOT,
        )  # fmt: skip
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            sys.exit(f"{' '.join(arguments)}: {done.stderr.strip()}")
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    imported = done.stdout.splitlines()[-1].partition(":")[2].split() if done else []
    return {"cpu_seconds": seconds, "imports": imported}


def around_generation(suite: str, output: Path, images: int) -> dict[str, float]:
    """Seconds of making images by a run, and of the generator alone in it, on one thread."""
    command = [
        *("run", suite, "--tier", "micro", "--variants", "sana-micro", "--output", str(output)),
        *("--limit", str(images)),
    ]
    done = subprocess.run(
        [sys.executable, "-c", _AROUND, *command], capture_output=True, text=True, cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr)
    spent = json.loads(done.stdout.splitlines()[-1])
    alone = spent["_open"] + spent["_prepare"] + spent["generate"]
    return {
        "seconds": spent["make"],
        "generator_seconds": alone,
        "overhead": (spent["make"] - alone) / spent["generate"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--images", type=int, default=48, help="made to measure what the harness adds")
    parser.add_argument("--to", type=Path, default=ROOT / "reports" / "benchmarks")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder)
        # All of its images are there after this, and all of its scores: the second run has nothing to do.
        suite = output / "whole.yaml"
        suite.write_text(
            f"schema_version: 1\nname: whole\nbenchmarks:\n  - {{name: geneval, prompts: {options.images}, "
            "images_per_prompt: 1}\nvariants: {micro: [sana-micro]}\n"
        )
        made = around_generation(str(suite), output, options.images)
        again = ["run", str(suite), "--tier", "micro", "--output", str(output)]
        names = (
            "--help",
            "--version",
            "list",
            "list metrics",
            "validate demo",
            "run demo --dry-run --tier micro",
        )
        empty = ["--output", str(output / "empty")]
        commands = [(name, [*name.split(), *(empty if "--dry-run" in name else ())], 0.3) for name in names]
        results = {
            name: {**measure_command(command, options.repetitions), "aim": aim}
            for name, command, aim in [*commands, ("run, nothing to do", again, 4.0)]
        }
    write(results, made, options)


def write(results: dict[str, Any], made: dict[str, float], options: argparse.Namespace) -> None:
    """Write the report as JSON and Markdown, and print it."""
    where = environment()
    command = f"python benchmarks/harness.py --repetitions {options.repetitions} --images {options.images}"
    document = {"command": command, "environment": where, "commands": results, "generation": made}
    options.to.mkdir(parents=True, exist_ok=True)
    (options.to / "harness.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    rows = [
        (
            f"`sana-bench {name}`", f"{min(one['cpu_seconds']):.2f} s", f"{max(one['cpu_seconds']):.2f} s",
            f"{one['aim']:g} s", ", ".join(one["imports"]) or "none",
        )
        for name, one in results.items()
    ]  # fmt: skip
    text = (
        f"# What the harness costs\n\n`{command}`. {', '.join(f'{key} {value}' for key, value in where.items())}.\n\n"
        f"{table(('command', 'processor time, least', 'most', 'aim', 'heavy imports'), rows)}\n\n"
        f"Around generation: {options.images} images of the micro tier in {made['seconds']:.2f} s, of which the generator took "
        f"{made['generator_seconds']:.2f} s; the rest is {100 * made['overhead']:.1f} % of generating (aim: below 2 %).\n"
    )
    (options.to / "harness.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
