"""A suite may say which protocol of a metric it wants, and with which parameters."""

import pytest
import yaml

from sana_bench import metrics
from sana_bench.cli.main import execute
from sana_bench.core.errors import AssetError, SuiteError
from sana_bench.core.registry import METRICS
from sana_bench.metrics.base import MetricAssets
from sana_bench.suites.cells import ResolvedBenchmark
from sana_bench.suites.schema import BenchmarkSpec, MetricSpec
from tests import ROOT


def test_names_and_choices_may_be_mixed():
    choice = {"name": "fid", "protocol": "fid/clean@1", "parameters": {"image_size": 256}}
    spec = BenchmarkSpec.model_validate({"name": "mjhq30k", "metrics": ["clip_score", choice]})
    assert spec.metric_specs[0] == MetricSpec(name="clip_score")
    assert spec.metric_specs[1].protocol == "fid/clean@1"
    assert BenchmarkSpec(name="mjhq30k").metric_specs == ()


def test_a_choice_changes_the_identity_and_a_plain_name_does_not():
    plain = ResolvedBenchmark("mjhq30k", (), 1, ("fid",))
    chosen = ResolvedBenchmark("mjhq30k", (), 1, ("fid",), (MetricSpec(name="fid", protocol="fid/clean@1"),))
    assert "choices" not in plain.describe()
    assert plain.describe() != chosen.describe()
    assert chosen.choice("fid").protocol == "fid/clean@1"
    assert chosen.choice("clip_score") == MetricSpec(name="clip_score")


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ("[{name: fidd}]", "has no metric 'fidd'"),
        ("[fid, {name: fid}]", "'fid' appears twice"),
        ("[{name: fid, protocl: x}]", "protocl"),
    ],
)
def test_bad_choices_are_one_line(tmp_path, metrics, message):
    from sana_bench.suites.load import load_suite

    (tmp_path / "s.yaml").write_text(
        "schema_version: 1\nname: s\nbenchmarks:\n"
        f"  - name: geneval\n    metrics: {metrics}\nvariants:\n  micro: [x]\n"
    )
    with pytest.raises(SuiteError, match=message) as caught:
        load_suite(tmp_path / "s.yaml", "micro")
    assert "\n" not in str(caught.value)


def documented_choices():
    page = (ROOT / "docs/suites.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith("- {name:")]
    return yaml.safe_load("\n".join(lines))


def test_the_page_has_an_example_of_every_metric():
    assert {choice["name"] for choice in documented_choices()} == set(METRICS.names())


@pytest.mark.parametrize("choice", documented_choices(), ids=str)
def test_documented_choices_are_known(tmp_path, monkeypatch, choice):
    """Protocol and parameters are accepted: what stops the metric is that its weights are not there."""
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    spec = BenchmarkSpec.model_validate({"name": "any", "metrics": [choice]}).metric_specs[0]
    with pytest.raises(AssetError):
        metrics.build(spec, "full", MetricAssets(tmp_path, tmp_path))
    unknown = spec.model_copy(update={"protocol": f"{spec.name}/nothing@1"})
    with pytest.raises(SuiteError, match="has no protocol"):
        metrics.build(unknown, "full", MetricAssets(tmp_path, tmp_path))


@pytest.mark.parametrize("name", ["all", "dpg_bench", "image_reward"])
def test_shipped_suites_have_both_tiers(name, tmp_path):
    from sana_bench.suites.load import load_all_tiers

    path = ROOT / f"suites/{name}.yaml"
    assert [suite.tier for suite in load_all_tiers(path)] == ["micro", "full"]


@pytest.mark.parametrize(
    ("suite", "network"), [("dpg_bench", "vqa"), ("image_reward", "reward")], ids=["vqa", "reward"]
)
def test_without_judges_a_micro_suite_is_planned_and_stops_with_one_line(
    suite, network, tiny_weights_root, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("SANA_BENCH_MICRO_WEIGHTS", str(tiny_weights_root))
    path = str(ROOT / f"suites/{suite}.yaml")
    arguments = ["run", path, "--tier", "micro", "--output", str(tmp_path / "results")]
    assert execute([*arguments, "--dry-run"]) == 0
    capsys.readouterr()
    assert execute(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tiny_weights_root / network} is missing, these weights are not shipped" in line
    assert not (tmp_path / "results").exists()
