"""Metrics that are about some prompts only, and metrics that a tier does not have."""

from dataclasses import dataclass

import pytest

from sana_bench.core.fingerprint import FileHashes
from sana_bench.core.registry import BENCHMARKS, METRICS, Entry
from sana_bench.core.samples import Prompt
from sana_bench.results.reader import load_run
from sana_bench.runner.benchmarks import resolve_benchmark
from sana_bench.runner.run import RunOptions, run_suite
from sana_bench.suites.load import load_suite
from sana_bench.suites.schema import BenchmarkSpec
from tests.metrics.told_judge import numbered_image
from tests.runner.fakes import Redness
from tests.suite_files import write_images, write_suite, write_variant


class Marked(Redness):
    """Redness of the images whose prompts have a mark."""

    name = "marked"
    protocol = "marked/test@1"


@dataclass
class Half:
    """Four prompts of two tags, of which one each has a mark."""

    name = "half"
    default_images_per_prompt = 2
    metric_names = ("redness", "marked")

    def prompts(self, tier):
        return [
            Prompt(str(number), f"prompt {number}", f"tag{number % 2}", {"mark": True} if number < 2 else {})
            for number in range(4)
        ]


@pytest.fixture
def half():
    with (
        BENCHMARKS.added(Entry("half", Half)),
        METRICS.added(
            Entry("redness", lambda *_: Redness()), Entry("marked", lambda *_: Marked(), only="mark")
        ),
    ):
        yield


def written(tmp_path, n_images=2):
    images = [
        (
            {
                "id": str(number),
                "prompt": f"prompt {number}",
                "index": index,
                "file": f"{number}-{index}.png",
            },
            numbered_image(number),
        )
        for number in range(4)
        for index in range(n_images)
    ]
    write_images(tmp_path / "suites/variants/images", images)
    write_variant(tmp_path / "suites", "mine", "generator: images", tier="micro", height=16, width=16)
    return write_suite(tmp_path / "suites", "{name: half}", tier="micro")


def test_a_metric_scores_the_prompts_that_concern_it(half, tmp_path):
    suite = written(tmp_path)
    assert run_suite(RunOptions(suite=suite, output=tmp_path / "results", tier="micro")) == 0
    (directory,) = (tmp_path / "results/runs").iterdir()
    (variant,) = load_run(tmp_path / "results", str(directory)).variants.values()
    assert variant.complete
    numbers = {
        name: (row.n_samples, row.n_expected, row.n_prompts) for name, row in variant.overall("half").items()
    }
    assert numbers == {"redness": (8, 8, 4), "marked": (4, 4, 2)}
    scored = {(one.prompt.id, "marked" in one.scores) for one in variant.samples}
    assert scored == {("0", True), ("1", True), ("2", False), ("3", False)}


def test_an_image_that_concerns_it_and_is_missing_makes_it_incomplete(half, tmp_path):
    suite = written(tmp_path)
    (tmp_path / "suites/variants/images/0-1.png").unlink()
    (tmp_path / "suites/variants/images/3-1.png").unlink()
    options = RunOptions(suite=suite, output=tmp_path / "results", tier="micro", allow_incomplete=True)
    assert run_suite(options) == 3
    (directory,) = (tmp_path / "results/runs").iterdir()
    (variant,) = load_run(tmp_path / "results", str(directory)).variants.values()
    numbers = {name: (row.n_samples, row.n_expected) for name, row in variant.overall("half").items()}
    assert numbers == {"redness": (6, 8), "marked": (3, 4)}


def test_a_benchmark_has_its_metrics_of_the_tier_unless_they_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path))
    write_variant(tmp_path, "mine", "generator: images", tier="micro")
    suite = load_suite(write_suite(tmp_path, "{name: mjhq30k}", tier="micro"), "micro")
    own = resolve_benchmark(BenchmarkSpec(name="mjhq30k"), suite, FileHashes({}))
    assert own.metrics == ("fid", "clip_score")
    named = resolve_benchmark(BenchmarkSpec(name="mjhq30k", metrics=("kid",)), suite, FileHashes({}))
    assert named.metrics == ("kid",)
