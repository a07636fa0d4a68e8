"""Fixtures of all rooms, and how many processes run the tests."""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sana_bench.core.allocator import keep_freed_memory

if TYPE_CHECKING:
    from tests.runner import dice, fakes

#: Each takes about 1 GB, and no more files than this take long.
MOST_WORKERS = 16

#: Files of more than 20 seconds, the longest first.
LONGEST = (
    "tests/runner/engines/test_ray.py",
    "tests/kernels/test_interpreted_kernels.py",
    "tests/runner/test_rehearsal.py",
    "tests/runner/test_kill.py",
    "tests/speed/test_speed_scripts.py",
    "tests/wheel/test_wheel.py",
    "tests/models/training/test_sharding.py",
    "tests/faults/test_campaign.py",
    "tests/examples/test_new_colour.py",
    "tests/reports/test_accessibility.py",
    "tests/models/training/test_training_processes.py",
    "tests/scripts/test_ship_judges.py",
    "tests/metrics/test_every_metric.py",
    "tests/reports/test_views.py",
    "tests/runner/test_first_words.py",
    "tests/runner/test_rounds.py",
    "tests/reports/test_browser.py",
    "tests/results/test_places.py",
    "tests/wheel/test_notebook.py",
)

# Both as the command line does at its start.
keep_freed_memory()
gc.set_threshold(50_000, 20, 20)
if "PYTEST_XDIST_WORKER" in os.environ:
    # Read when torch is imported. Workers are as many as cores: more threads would take turns on them.
    os.environ["OMP_NUM_THREADS"] = "1"

# The tests start dozens of processes. Where modules are not kept compiled, as images of containers often have it, each of
# them compiles torch and matplotlib again: two trainings by processes of their own took 53 s of processor time, and 22 s so.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One worker a core and one more where folders are tested: for a quarter of their time tests wait for other processes.

    None for single files, whose imports take longer than a worker saves.
    """
    folders = all(Path(argument).is_dir() for argument in config.args)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores + 1, MOST_WORKERS) if folders and cores > 1 else 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no worker is left alone with one at the end; files come in this order to the workers."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.location[0].replace(os.sep, "/"), len(places)))


def pytest_collection_finish() -> None:
    """What was imported stays: nobody looks for garbage in it again."""
    gc.freeze()


def pytest_unconfigure() -> None:
    """Libraries look at their end for what was not freed."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def tiny_pipeline_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SANA pipeline folder with random weights; tests must not change it."""
    from tests.tiny_weights import write_tiny_pipeline

    return write_tiny_pipeline(tmp_path_factory.mktemp("pipeline") / "sana-micro")


@pytest.fixture(scope="session")
def tiny_weights_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for `SANA_BENCH_MICRO_WEIGHTS` with random weights; tests must not change it."""
    from tests.tiny_weights import write_tiny_clip, write_tiny_pipeline

    root = tmp_path_factory.mktemp("weights")
    write_tiny_pipeline(root / "sana-micro")
    write_tiny_clip(root / "clip")
    return root


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Iterator[fakes.World]":
    """A suite of fake variants, and the runner on it in this process."""
    from tests.runner import fakes

    monkeypatch.setattr(fakes.FakeGenerator, "batches", [])
    monkeypatch.setattr(fakes.Spread, "computed", 0)
    with fakes.installed():
        yield fakes.World(tmp_path)


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Iterator[dice.World]":
    """A suite of variants of known quality, and the runner on it in this process."""
    from tests.runner import dice

    monkeypatch.setattr(dice.Dice, "made", [])
    with dice.installed():
        yield dice.World(tmp_path)
