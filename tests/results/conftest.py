"""A finished run of fake models in a result store, made once."""

import shutil
from pathlib import Path

import pytest

from tests.runner import fakes


@pytest.fixture(scope="session")
def finished_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `results` of a complete run and of a limited one; tests must not change it."""
    folder = tmp_path_factory.mktemp("finished")
    with fakes.installed():
        world = fakes.World(folder)
        assert world.run() == 0
        assert world.run(limit=5, overrides=("seed=1",)) == 3
    return folder


@pytest.fixture
def results(finished_world: Path, tmp_path: Path) -> Path:
    """A copy of the finished results folder."""
    return Path(shutil.copytree(finished_world / "results", tmp_path / "results"))
