"""What is under the clock is made under the clock: no batch is answered from what an earlier one left."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from sana_bench.core.fingerprint import FileHashes
from sana_bench.core.registry import JUDGES, Entry
from sana_bench.judges.base import YesNo
from sana_bench.profiling.hardware import Monitor
from sana_bench.profiling.power import EnergyMeter
from sana_bench.profiling.subject import Subject
from sana_bench.profiling.timers import timer_for
from sana_bench.runner.resolve import resolve_suite
from sana_bench.suites.load import load_suite
from sana_bench.suites.plan import plan_cell
from sana_bench.suites.tiers import choose_tier
from tests import suite_files
from tests.runner import fakes

STEPS = 3  # milliseconds of a batch of the fake generator
CANDIDATES = 4


class ByMean:
    """Prefers bright images."""

    def __init__(self, *_: object) -> None:
        pass

    def load(self) -> None:
        pass

    def identity(self) -> dict[str, object]:
        return {"judge": "mean@1"}

    def judge(self, prompts: Sequence[str], images: np.ndarray) -> list[YesNo]:
        return [YesNo(float(image.mean()), -float(image.mean())) for image in images]


@pytest.fixture
def registered() -> Iterator[None]:
    with fakes.installed(), JUDGES.added(Entry("mean", ByMean, "mean@1")):
        yield


def subject_of(folder: Path, *search: str, images_per_prompt: int = 2) -> Subject:
    """A variant that makes its images one by one, alone or in searches, loaded for the clock."""
    fakes.write_suite(folder)
    sampler = f"sampler: {{name: flow_euler, steps: {STEPS}, guidance_scale: 4.5}}"
    generator = "generator: best_of_n" if search else "generator: fake"
    lines = (generator, sampler, *search)
    place = {"tier": "micro", "weights": "./weights", "height": fakes.SIZE, "width": fakes.SIZE}
    suite_files.write_variant(folder / "suites", "timed", *lines, **place)
    benchmark = f"{{name: shapes, images_per_prompt: {images_per_prompt}, metrics: [redness]}}"
    suite = suite_files.write_suite(folder / "suites", benchmark, ["timed"], tier="micro", name="timed")
    resolved = resolve_suite(load_suite(suite, "micro"), choose_tier("micro"), FileHashes())
    (cell,) = resolved.cells()
    return Subject(plan_cell(cell, None, folder, folder / "run", None), "cpu", timer_for("cpu"))


def search(keep: int = 1) -> str:
    return f"best_of_n: {{generator: fake, candidates: {CANDIDATES}, keep: {keep}, batch_size: 1, judge: {{name: mean}}}}"


@pytest.mark.parametrize("size", [1, 5, 2 * 12 + 1])
@pytest.mark.parametrize(("keep", "made"), [(None, 1), (1, CANDIDATES), (2, CANDIDATES)])
def test_every_timed_batch_makes_its_images(registered, tmp_path, monkeypatch, size, keep, made):
    """Each of three equal batches, also one that is larger than the benchmark (6 prompts, 2 images each)."""
    subject = subject_of(tmp_path, *([search(keep)] if keep else ()))
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
    subject = subject_of(tmp_path, search())
    sample = subject.plan.cell.samples[0]
    for _ in range(2):
        monkeypatch.setattr(fakes.FakeGenerator, "batches", [])
        timed = subject.image(sample, EnergyMeter(None, "not measured here"), Monitor(None))
        assert fakes.FakeGenerator.batches == [1] * CANDIDATES
        assert timed.ms >= CANDIDATES * STEPS
        assert 0 < timed.details["stages"]["judging"] < timed.ms
