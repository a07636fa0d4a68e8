"""What each metric must satisfy, whatever it measures."""

import json
import pickle
import random
from dataclasses import asdict, replace

import pytest

from sana_bench import metrics
from sana_bench.core.errors import AssetError, IncompleteError, SuiteError
from sana_bench.core.images import ImageError
from sana_bench.core.registry import METRICS
from sana_bench.metrics.base import FeatureMetric, MetricAssets, ScoreRow
from tests.tiny_weights import write_tiny_clip, write_tiny_reading, write_tiny_reward, write_tiny_vqa

SEED = 11


# KID has no network in the micro world; its own tests build it on a small random one.
MICRO = (
    *("geneval", "clip_score", "fid", "dpg", "image_reward", "pickscore"),
    *("geneval2", "longtext", "oneig_alignment", "oneig_text", "oneig_diversity"),
)
# Of OneIG-Bench, whose questions go by number.
ONEIG = {
    "questions": {"1": "Is there a ring?", "2": "Is the ring red?"},
    "dependency": {"1": [0], "2": [1]},
}


@pytest.fixture(params=MICRO)
def metric(request, assets):
    return metrics.build(request.param, "micro", assets)


@pytest.fixture
def samples(request, samples):
    if "metric" not in request.fixturenames or request.getfixturevalue("metric").name != "oneig_alignment":
        return samples
    return [replace(one, prompt=replace(one.prompt, metadata=one.prompt.metadata | ONEIG)) for one in samples]


def judge(metric, samples, batch):
    """Rows and summaries when images come in batches of `batch`."""
    return judge_as(metric, samples, batch, n_expected=len(samples))


def judge_as(metric, samples, batch, n_expected):
    chunks = [samples[start : start + batch] for start in range(0, len(samples), batch)]
    if isinstance(metric, FeatureMetric):
        features = [(chunk, metric.features(chunk)) for chunk in chunks]
        rows = [row for chunk, vectors in features for row in metric.score_features(chunk, vectors)]
        return rows, metric.summarise_features(samples, features, n_expected, SEED)
    rows = [row for chunk in chunks for row in metric.score(chunk)]
    return rows, metric.summarise(rows, n_expected, SEED)


# Equality is exact: networks run on padded batches of one size, and everything after them is sorted before it
# is summed, so that an interrupted run ends with the very same numbers.
@pytest.mark.parametrize("batch", [1, 7])
def test_scores_do_not_depend_on_batch_size(metric, samples, batch):
    assert judge(metric, samples, batch) == judge(metric, samples, len(samples))


def test_scores_do_not_depend_on_order(metric, samples):
    shuffled = list(samples)
    random.Random(3).shuffle(shuffled)
    rows, summaries = judge(metric, samples, 5)
    shuffled_rows, shuffled_summaries = judge(metric, shuffled, 4)
    assert sorted(shuffled_rows, key=lambda row: row.sample_id) == rows
    assert shuffled_summaries == summaries


def test_a_second_instance_gives_the_same(metric, samples, assets):
    again = metrics.build(metric.name, "micro", assets)
    assert again.identity() == metric.identity()
    assert judge(again, samples, 5) == judge(metric, samples, 5)


def test_rows_match_samples_and_survive_storage(metric, samples):
    rows, summaries = judge(metric, samples, len(samples))
    if rows:
        assert [row.sample_id for row in rows] == [sample.id for sample in samples]
        assert [row.prompt_id for row in rows] == [sample.prompt.id for sample in samples]
    assert [ScoreRow(**json.loads(json.dumps(asdict(row), allow_nan=False))) for row in rows] == rows
    assert pickle.loads(pickle.dumps((rows, summaries))) == (rows, summaries)


def test_summaries_carry_interval_counts_and_protocol(metric, samples):
    _, summaries = judge(metric, samples, len(samples))
    assert summaries[0].key == "overall"
    assert len({summary.key for summary in summaries}) == len(summaries)
    for summary in summaries:
        assert summary.complete
        assert summary.low <= summary.value <= summary.high
        assert (summary.metric, summary.protocol) == (metric.name, metric.protocol)
        assert summary.higher_is_better == metric.higher_is_better
    assert summaries[0].n_samples == len(samples)
    assert summaries[0].n_prompts == len({sample.prompt.id for sample in samples})


def test_scores_keep_within_the_limits_that_the_registry_names(metric, samples):
    limits = METRICS.entry(metric.name).find_limits()
    rows, _ = judge(metric, samples, 7)
    if limits is not None:
        assert rows
        assert all(limits.low <= row.value <= limits.high for row in rows)


def test_protocol_names_tier_and_version(metric):
    recipe, _, version = metric.protocol.rpartition("@")
    assert recipe.startswith(f"{metric.name}/")
    assert "micro" in recipe
    assert version.isdigit()
    assert metric.protocol in json.dumps(metric.identity())


def test_missing_image_is_refused(metric, samples, tmp_path):
    gone = replace(samples[1], image_path=tmp_path / "gone.png")
    with pytest.raises(ImageError, match=r"gone\.png: no such image"):
        judge(metric, [samples[0], gone], 2)


def test_truncated_image_is_refused(metric, samples, tmp_path):
    path = tmp_path / "short.png"
    path.write_bytes(samples[1].image_path.read_bytes()[:-20])
    with pytest.raises(ImageError, match=r"short\.png"):
        judge(metric, [samples[0], replace(samples[1], image_path=path)], 2)


def test_a_short_set_is_marked_incomplete_everywhere(metric, samples):
    _, summaries = judge_as(metric, samples[:-1], 5, n_expected=len(samples))
    assert (summaries[0].n_samples, summaries[0].n_expected) == (len(samples) - 1, len(samples))
    assert not any(summary.complete for summary in summaries)


@pytest.mark.parametrize(
    ("pick", "n_expected", "message"),
    [
        pytest.param(lambda samples: [], 4, "no scored samples", id="nothing"),
        pytest.param(lambda samples: [*samples[:4], samples[0]], 9, "scored 2 times", id="twice"),
        pytest.param(lambda samples: samples[:5], 4, "5 samples were scored where 4", id="surplus"),
    ],
)
def test_a_set_that_is_not_what_was_planned_is_refused(metric, samples, pick, n_expected, message):
    with pytest.raises(IncompleteError, match=message):
        judge_as(metric, pick(samples), 2, n_expected)


@pytest.mark.parametrize("name", ["clip_score", "fid"])
def test_features_must_cover_the_samples(name, assets, samples):
    metric = metrics.build(name, "micro", assets)
    covered = samples[:4]
    chunk = (covered, metric.features(covered))
    with pytest.raises(IncompleteError):
        metric.summarise_features(samples[:5], [chunk], 5, SEED)
    with pytest.raises(IncompleteError):
        metric.summarise_features(covered, [chunk, chunk], 4, SEED)


def test_other_weights_are_another_identity(metric, tmp_path):
    write_tiny_clip(tmp_path / "clip", seed=1)
    write_tiny_reward(tmp_path / "reward", seed=1)
    write_tiny_vqa(tmp_path / "vqa", seed=1)
    write_tiny_reading(tmp_path / "reading", seed=1)
    other = metrics.build(metric.name, "micro", MetricAssets(tmp_path, tmp_path / "cache"))
    if isinstance(metric, FeatureMetric):
        assert other.identity() != metric.identity()
        assert other.feature_key != metric.feature_key
    else:  # GenEval's micro detector has no weights
        assert (other.identity() == metric.identity()) == (metric.name == "geneval")


def test_full_tier_says_what_is_missing(metric, assets, tmp_path, monkeypatch):
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path))
    with pytest.raises(
        AssetError, match=f"metric '{metric.name}' on the full tier.*(is missing|are not on this machine)"
    ) as caught:
        metrics.build(metric.name, "full", assets)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_metrics_of_one_network_share_features(assets):
    keys = {metrics.build(name, "micro", assets).feature_key for name in ("clip_score", "fid")}
    assert len(keys) == 1


def test_unknown_names_are_answered_with_the_nearest(assets):
    with pytest.raises(SuiteError, match=r"unknown metric 'clip-score' \(did you mean 'clip_score'\?\)"):
        metrics.build("clip-score", "micro", assets)
    with pytest.raises(SuiteError, match="unknown tier 'nano'"):
        metrics.build("fid", "nano", assets)


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(AssetError, match="clip is missing"):
        metrics.build("fid", "micro", MetricAssets(tmp_path, tmp_path))
    readers = [(name, "reading_micro") for name in ("geneval2", "longtext", "oneig_alignment", "oneig_text")]
    for name, config in (("dpg", "vqa_micro"), ("image_reward", "reward_micro"), *readers):
        with pytest.raises(AssetError, match=f"{name}.* not shipped; train them .*{config}") as caught:
            metrics.build(name, "micro", MetricAssets(tmp_path, tmp_path))
        assert "\n" not in str(caught.value)
