"""Write reports/kernels/aot.md: registers, spills and shared memory of every kernel, compiled without a GPU.

    python scripts/kernel_table.py [--check]

`--check` compiles nothing: it exits 1 when the table's kernels and configurations are not the shipped ones.
"""

import argparse
import sys
from importlib.metadata import version
from pathlib import Path

from sana_kernels.ahead_of_time import SHARED_MEMORY_LIMITS, Build, Usage, builds, compile_build

TABLE = Path(__file__).resolve().parents[1] / "reports" / "kernels" / "aot.md"

HEAD = """# Kernels compiled ahead of time

Made by `python scripts/kernel_table.py` with triton {triton} and its own ptxas; no GPU took part, and none of this is a time.
Each cell: registers a thread / bytes spilled / bytes of shared memory a block. Limits of shared memory: {limits}.
bf16 stands for fp16 too: both use the same configurations.

| kernel | dtype | configuration | {columns} |
|---|---|---|{rule}
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="only say whether the table is up to date")
    if parser.parse_args().check:
        return check()
    rows = {
        build: [compile_build(build, capability) for capability in SHARED_MEMORY_LIMITS] for build in builds()
    }
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    TABLE.write_text(render(rows), encoding="utf-8")
    problems = [
        f"{build.name} ({build.dtype}, {build.configuration}) on sm_{capability}: {problem}"
        for build, usages in rows.items()
        for capability, usage in zip(SHARED_MEMORY_LIMITS, usages)
        if (problem := usage.problem(capability))
    ]
    print("\n".join(problems) or f"{len(rows)} builds on {len(SHARED_MEMORY_LIMITS)} architectures, no spill")
    return 1 if problems else 0


def check() -> int:
    """Compare the table's first three columns with the shipped configurations."""
    lines = TABLE.read_text(encoding="utf-8").splitlines() if TABLE.exists() else []
    found = [line.split(" | ")[:3] for line in lines if line.startswith("| `")]
    expected = [heading(build).split(" | ") for build in builds()]
    if found == expected:
        return 0
    print(f"{TABLE.name} is not of the shipped configurations: run python scripts/kernel_table.py")
    return 1


def heading(build: Build) -> str:
    return f"| `{build.name}` | {build.dtype} | {build.configuration}"


def render(rows: dict[Build, list[Usage]]) -> str:
    limits = ", ".join(f"sm_{key} {value}" for key, value in SHARED_MEMORY_LIMITS.items())
    columns = " | ".join(f"sm_{key}" for key in SHARED_MEMORY_LIMITS)
    head = HEAD.format(
        triton=version("triton"), limits=limits, columns=columns, rule="---|" * len(SHARED_MEMORY_LIMITS)
    )
    lines = [
        " | ".join(
            [heading(build), *(f"{u.registers} / {max(u.stack, u.local)} / {u.shared}" for u in usages)]
        )
        + " |"
        for build, usages in rows.items()
    ]
    return head + "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
