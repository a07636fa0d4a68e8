"""What two runs must agree on."""

from pathlib import Path

from sana_bench.results.schema import SummaryRecord
from sana_bench.results.store import Store


def run_ids(output: Path) -> list[str]:
    return sorted(path.name for path in (output / "runs").iterdir())


def summaries(output: Path, run_id: str | None = None) -> list[SummaryRecord]:
    """Return the summaries of a run (the only one by default), exactly as stored."""
    store = Store.open_existing(output)
    assert store is not None
    with store:
        return store.summaries(run_id or run_ids(output)[0])


def sessions(output: Path, run_id: str | None = None) -> list[dict[str, object]]:
    store = Store.open_existing(output)
    assert store is not None
    with store:
        return store.sessions(run_id or run_ids(output)[0])


def image_bytes(output: Path) -> dict[str, bytes]:
    """Return the content of every image by its path inside the run directories."""
    root = output / "runs"
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.glob("*/images/**/*.png")}
