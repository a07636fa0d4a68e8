"""GenEval 2, OneIG-Bench and LongText-Bench on the micro tier: what the shipped judge finds in images whose truth is known."""

import numpy as np
import pytest
from PIL import Image

from sana_bench import metrics
from sana_bench.assets.locate import micro_weights_root
from sana_bench.core.errors import SuiteError
from sana_bench.core.registry import BENCHMARKS
from sana_bench.core.samples import Sample
from sana_bench.metrics.base import MetricAssets
from sana_bench.micro.rendered import draw
from sana_bench.suites.schema import MetricSpec

# Every fourth prompt of each set, once as asked and once with one mistake.
STEP = 4


@pytest.fixture(scope="module")
def shipped(tmp_path_factory) -> MetricAssets:
    return MetricAssets(micro_weights_root(), tmp_path_factory.mktemp("cache"))


def drawn(folder, benchmark, key, seed) -> list[Sample]:
    """One image a prompt that has the key, as asked by an even seed."""
    prompts = [prompt for prompt in BENCHMARKS.build(benchmark).prompts("micro") if key in prompt.metadata]
    found = []
    for prompt in prompts[::STEP]:
        path = folder / f"{prompt.id}-{seed}.png"
        Image.fromarray(draw(prompt.text, seed).image).save(path)
        found.append(Sample("drawn", benchmark, prompt, 0, path))
    return found


# Of what is asked for at most this share is missed by the judge, and of what is not there at most this share is seen.
@pytest.mark.parametrize(
    ("name", "benchmark", "key", "scale", "as_asked", "with_a_mistake"),
    [
        ("geneval2", "geneval2", "vqa_list", 100, 0.9, 0.35),
        ("oneig_alignment", "oneig", "dependency", 1, 0.97, 0.85),
        ("oneig_text", "oneig", "text_content", 1, 0.95, None),
        ("longtext", "longtext", "text", 1, 0.9, 0.6),
    ],
)
def test_rendered_truth_scores_high_and_a_mistake_costs(
    shipped, tmp_path, name, benchmark, key, scale, as_asked, with_a_mistake
):
    metric = metrics.build(name, "micro", shipped)
    assert metric.protocol == f"{name}/micro@1"
    values = []
    for seed in (0, 1):
        samples = drawn(tmp_path, benchmark, key, seed)
        rows = metric.score(samples)
        values.append(metric.summarise(rows, len(samples), 0)[0].value / scale)
    assert values[0] >= as_asked
    assert values[1] < values[0]
    if with_a_mistake is not None:
        assert values[1] <= with_a_mistake


def test_metrics_share_one_judge(shipped):
    found = [metrics.build(name, "micro", shipped) for name in ("geneval2", "longtext", "oneig_text")]
    assert len({id(metric.judge) for metric in found}) == 1


@pytest.mark.parametrize("name", ["geneval2", "longtext", "oneig_alignment", "oneig_text"])
def test_the_micro_tier_has_no_published_protocol(shipped, name):
    with pytest.raises(SuiteError, match="official@1"):
        metrics.build(MetricSpec(name=name, protocol=f"{name}/official@1"), "micro", shipped)


def test_images_without_text_score_nothing(shipped, tmp_path):
    """As sana-micro's, which was trained on shapes alone."""
    metric = metrics.build("longtext", "micro", shipped)
    rng = np.random.default_rng(0)
    prompts = BENCHMARKS.build("longtext").prompts("micro")[:8]
    samples = []
    for prompt in prompts:
        path = tmp_path / f"{prompt.id}.png"
        Image.fromarray(
            draw("a photo of two red circles and a blue star", 2 * int(rng.integers(99))).image
        ).save(path)
        samples.append(Sample("drawn", "longtext", prompt, 0, path))
    assert {row.value for row in metric.score(samples)} == {0.0}
