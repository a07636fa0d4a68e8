"""A finished run of fake models in a result store, made once."""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "runner"))

import fakes

from sana_bench.run import RunOptions, run_suite


@pytest.fixture(scope="session")
def finished_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `results` of a complete run and of a limited one; tests must not change it."""
    folder = tmp_path_factory.mktemp("finished")
    suite, saved = fakes.write_suite(folder), fakes.registries()
    fakes.install()
    try:
        output = folder / "results"
        assert run_suite(RunOptions(suite=suite, output=output, tier="micro")) == 0
        limited = RunOptions(suite=suite, output=output, tier="micro", limit=5, overrides=("seed=1",))
        assert run_suite(limited) == 3
    finally:
        fakes.uninstall(saved)
    return folder


@pytest.fixture
def results(finished_world: Path, tmp_path: Path) -> Path:
    """A copy of the finished results folder."""
    return Path(shutil.copytree(finished_world / "results", tmp_path / "results"))
