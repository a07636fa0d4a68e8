"""The judge that reads, as tiers and suites choose it."""

from types import SimpleNamespace

import pytest

from sana_bench import metrics
from sana_bench.core.errors import AssetError, SuiteError
from sana_bench.metrics.base import MetricAssets
from sana_bench.metrics.chosen_judge import reading_judge
from sana_bench.suites.schema import MetricSpec
from tests.metrics.told_judge import ToldJudge
from tests.tiny_weights import write_tiny_reading

READERS = ("geneval2", "longtext", "oneig_alignment", "oneig_text")


@pytest.fixture
def assets(tmp_path, monkeypatch):
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return MetricAssets(tmp_path / "weights", tmp_path / "cache")


def test_metrics_of_the_micro_tier_share_its_reader(assets):
    write_tiny_reading(assets.weights_dir / "reading")
    found = [
        reading_judge("micro", MetricSpec(name=name), assets, (f"{name}/official@1",)) for name in READERS
    ]
    assert [protocol for protocol, _ in found] == [f"{name}/micro@1" for name in READERS]
    assert len({id(judge) for _, judge in found}) == 1
    assert found[0][1].identity()["network"] == "mplug-reading@1"


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({}, AssetError, "configs/train/reading_micro.yaml"),
        ({"protocol": "{name}/official@1"}, SuiteError, "it has {name}/micro@1 on this tier"),
        ({"parameters": {"precision": "bf16"}}, SuiteError, "no parameter 'precision'"),
        ({"parameters": {"judge": "owner/judge-1b"}}, AssetError, "'{name}' on the micro tier: weights 'owner/judge-1b'"),
        ({"parameters": {"server": "http://a/v1"}}, SuiteError, "needs the parameter judge"),
    ],
)  # fmt: skip
def test_a_choice_that_cannot_be_on_the_micro_tier_is_one_line(assets, name, change, kind, message):
    choice = MetricSpec(
        name=name,
        **{key: value.format(name=name) if key == "protocol" else value for key, value in change.items()},
    )
    with pytest.raises(kind) as caught:
        metrics.build(choice, "micro", assets)
    assert message.format(name=name) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("tier", ["micro", "full"])
def test_a_named_judge_is_the_same_on_either_tier(assets, tier, monkeypatch):
    """It reads images of the micro world, too, by the protocol that carries its name."""
    judge = ToldJudge()
    monkeypatch.setattr("sana_bench.metrics.chosen_judge.choose", lambda *_: SimpleNamespace(judge=judge))
    choice = MetricSpec(name="longtext", parameters={"judge": "me/mine-1b"})
    found = reading_judge(tier, choice, assets, ("longtext/official@1",))
    assert found == ("longtext/vlm-mine-1b@1", judge)
