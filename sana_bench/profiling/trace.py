"""A `torch.profiler` trace of one image, for https://ui.perfetto.dev or chrome://tracing."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from sana_bench.core import atomic
from sana_bench.core.errors import UsageError
from sana_models.files import read_bytes

__all__ = ["trace_path", "write_trace"]


def trace_path(target: Path, variant: str, n_variants: int) -> Path:
    """The file for a variant: `target` itself, or `target/VARIANT.json` for a folder.

    Raises `UsageError` for one file and several variants.
    """
    if target.suffix != ".json":
        return target / f"{variant}.json"
    if n_variants > 1:
        raise UsageError(f"--trace {target}: {n_variants} variants need a folder, not one file")
    return target


def write_trace(path: Path, work: Callable[[], object], *, cuda: bool) -> Path:
    """Run `work` once under the profiler and write its trace; the file appears whole or not at all."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as profiler:
        work()
    with tempfile.TemporaryDirectory() as folder:
        # torch tells the format by the end of the name.
        written = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(written))
        atomic.write_bytes(path, read_bytes(written))
    return path
