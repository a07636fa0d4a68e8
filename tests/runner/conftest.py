import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import fakes

from sana_bench.run import RunOptions, run_suite


class World:
    """A folder with a suite of fake variants, and the runner on it in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.suite = fakes.write_suite(folder)
        self.output = folder / "results"

    def run(self, **options: object) -> int:
        """Run the suite on the micro tier; return the exit code."""
        return run_suite(RunOptions(suite=self.suite, output=self.output, tier="micro", **options))

    def images(self) -> list[Path]:
        """Return every image file, sorted."""
        return sorted((self.output / "runs").glob("*/images/**/*.png"))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(fakes.FakeGenerator, "batches", [])
    monkeypatch.setattr(fakes.Spread, "computed", 0)
    saved = fakes.registries()
    fakes.install()
    yield World(tmp_path)
    fakes.uninstall(saved)
