"""Every kernel with every shipped configuration, compiled for GPUs that need not be present."""

import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="Triton is not packaged for this platform")

from sana_kernels.ahead_of_time import SHARED_MEMORY_LIMITS, Build, Usage, builds, compile_build
from tests import ROOT


@pytest.mark.parametrize("capability", SHARED_MEMORY_LIMITS)
def test_no_kernel_spills_or_overflows(capability: int) -> None:
    problems = [
        f"{build.name} ({build.dtype}, {build.configuration}) {problem}"
        for build in builds()
        if (problem := compile_build(build, capability).problem(capability))
    ]
    assert not problems


def test_problems_are_seen() -> None:
    assert Usage(40, 0, 0, 1024).problem(80) is None
    assert Usage(40, 16, 0, 0).problem(80) == "spills 16 bytes of registers to memory"
    assert Usage(255, 0, 0, 0).problem(80) == "takes 255 registers"
    assert Usage(40, 0, 0, 100 * 1024).problem(90) is None
    assert Usage(40, 0, 0, 100 * 1024).problem(89) == "takes 102400 of 101376 bytes of shared memory"


def test_a_spill_reaches_the_usage_that_is_read() -> None:
    """One warp with 4096 fp32 channels in registers: 128 a thread for each of several rows, which do not fit."""
    build = next(build for build in builds() if build.name == "layer_norm_modulate_backward")
    starved = Build(build.kernel, "fp32", (("BLOCK", 4096),), 1)
    problem = compile_build(starved, 80).problem(80)
    assert problem is not None
    assert problem.startswith("spills")


def test_all_kernels_are_compiled() -> None:
    """A kernel that nobody lists would go to a GPU unproven."""
    sources = (ROOT / "kernels" / "sana_kernels").glob("*.py")
    written = {
        line.removeprefix("def ").partition("_kernel(")[0]
        for source in sources
        for line in source.read_text(encoding="utf-8").splitlines()
        if line.startswith("def ") and "_kernel(" in line
    }
    assert {build.name for build in builds()} == written


def test_the_table_is_of_the_shipped_configurations() -> None:
    script = ROOT / "scripts" / "kernel_table.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
