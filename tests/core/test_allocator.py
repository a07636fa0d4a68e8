"""Freed memory stays in the process."""

import os
import subprocess
import sys

import pytest

# Twenty blocks of 8 MB, one after the other: 2048 pages each.
BLOCKS = """
import resource
from sana_bench.core.allocator import keep_freed_memory
{call}
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    bytearray(8 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(call: str) -> int:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    # The first threshold that glibc adapts would hide the difference for blocks of one size.
    environment["MALLOC_MMAP_THRESHOLD_"] = "131072"
    command = [sys.executable, "-c", BLOCKS.format(call=call)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator of Linux")
def test_a_block_that_comes_again_costs_no_page_faults() -> None:
    assert faults("") > 20 * 1000
    # The heap grows to one block and is used again.
    assert faults("assert keep_freed_memory()") < 2 * 2048 + 1000
