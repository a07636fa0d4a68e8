"""A finished run of fake models in a result store, made once."""

import shutil
from pathlib import Path

import pytest

from sana_bench.runner.run import RunOptions, run_suite
from tests.runner import fakes


@pytest.fixture(scope="session")
def finished_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `results` of a complete run and of a limited one; tests must not change it."""
    folder = tmp_path_factory.mktemp("finished")
    suite = fakes.write_suite(folder)
    with fakes.installed():
        output = folder / "results"
        assert run_suite(RunOptions(suite=suite, output=output, tier="micro")) == 0
        limited = RunOptions(suite=suite, output=output, tier="micro", limit=5, overrides=("seed=1",))
        assert run_suite(limited) == 3
    return folder


@pytest.fixture
def results(finished_world: Path, tmp_path: Path) -> Path:
    """A copy of the finished results folder."""
    return Path(shutil.copytree(finished_world / "results", tmp_path / "results"))
