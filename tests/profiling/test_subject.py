"""What is under the clock is made under the clock: no batch is answered from what an earlier one left."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sana_bench.profiling.hardware import Monitor
from sana_bench.profiling.power import EnergyMeter
from sana_bench.profiling.subject import Subject
from sana_bench.profiling.timers import timer_for
from sana_bench.suites.plan import plan_cell
from tests.runner import fakes

STEPS = 3  # milliseconds of a batch of the fake generator
CANDIDATES = 4


@pytest.fixture
def registered() -> Iterator[None]:
    with fakes.installed():
        yield


def subject_of(folder: Path, *search: str) -> Subject:
    """A variant that makes its images one by one, alone or in searches, loaded for the clock."""
    cell = fakes.single_cell(folder, STEPS, *search)
    return Subject(plan_cell(cell, None, folder, folder / "run", None), "cpu", timer_for("cpu"))


@pytest.mark.parametrize("size", [1, 5, 2 * 12 + 1])
@pytest.mark.parametrize(("keep", "made"), [(None, 1), (1, CANDIDATES), (2, CANDIDATES)])
def test_every_timed_batch_makes_its_images(registered, tmp_path, monkeypatch, size, keep, made):
    """Each of three equal batches, also one that is larger than the benchmark (6 prompts, 2 images each)."""
    subject = subject_of(tmp_path, *([fakes.search(CANDIDATES, keep)] if keep else ()))
    searches = len({(one.prompt, one.noise_seed) for one in (subject._fresh(place) for place in range(size))})
    images = []
    for _ in range(3):
        monkeypatch.setattr(fakes.FakeGenerator, "batches", [])
        seconds, _ = subject.batch(size)
        images.append(sum(fakes.FakeGenerator.batches))
        # A sleep takes at least its time: so many images a second is the most that can be.
        calls = len(fakes.FakeGenerator.batches)
        assert seconds >= calls * STEPS / 1000
    assert images == [searches * made] * 3


def test_an_image_pays_for_its_search_however_often_it_is_asked_for(registered, tmp_path, monkeypatch):
    subject = subject_of(tmp_path, fakes.search(CANDIDATES))
    sample = subject.plan.cell.samples[0]
    for _ in range(2):
        monkeypatch.setattr(fakes.FakeGenerator, "batches", [])
        timed = subject.image(sample, EnergyMeter(None, "not measured here"), Monitor(None))
        assert fakes.FakeGenerator.batches == [1] * CANDIDATES
        assert timed.ms >= CANDIDATES * STEPS
        assert 0 < timed.details["stages"]["judging"] < timed.ms
