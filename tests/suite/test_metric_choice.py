"""A suite may say which protocol of a metric it wants, and with which parameters."""

from pathlib import Path

import pytest
import yaml

from sana_bench import metrics
from sana_bench.cli import execute
from sana_bench.errors import AssetError, SuiteError
from sana_bench.metrics.assets import MetricAssets
from sana_bench.resolve import ResolvedBenchmark
from sana_bench.suite import BenchmarkSpec, MetricSpec


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
    from sana_bench.catalogue import catalogue
    from sana_bench.suite import load_suite

    (tmp_path / "s.yaml").write_text(
        "schema_version: 1\nname: s\nbenchmarks:\n"
        f"  - name: geneval\n    metrics: {metrics}\nvariants:\n  micro: [x]\n"
    )
    with pytest.raises(SuiteError, match=message) as caught:
        load_suite(tmp_path / "s.yaml", "micro", catalogue())
    assert "\n" not in str(caught.value)


def documented_choices():
    page = (Path(__file__).resolve().parents[2] / "docs/suites.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith("- {name:")]
    return yaml.safe_load("\n".join(lines))


def test_the_page_has_an_example_of_every_metric():
    assert {choice["name"] for choice in documented_choices()} == set(metrics.NAMES)


@pytest.mark.parametrize("choice", documented_choices(), ids=str)
def test_documented_choices_are_known(tmp_path, monkeypatch, choice):
    """Protocol and parameters are accepted: what stops the metric is that its weights are not there."""
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    spec = BenchmarkSpec.model_validate({"name": "any", "metrics": [choice]}).metric_specs[0]
    chosen = metrics.MetricChoice(spec.name, spec.protocol, spec.parameters)
    with pytest.raises(AssetError):
        metrics.build(spec.name, "full", MetricAssets(tmp_path, tmp_path), chosen)
    with pytest.raises(SuiteError, match="has no protocol"):
        metrics.build(
            spec.name,
            "full",
            MetricAssets(tmp_path, tmp_path),
            metrics.MetricChoice(spec.name, f"{spec.name}/nothing@1", spec.parameters),
        )


@pytest.mark.parametrize("name", ["all", "dpg_bench", "image_reward"])
def test_shipped_suites_have_both_tiers(name, tmp_path):
    from sana_bench.catalogue import catalogue
    from sana_bench.suite import load_all_tiers

    path = Path(__file__).resolve().parents[2] / f"suites/{name}.yaml"
    assert [suite.tier for suite in load_all_tiers(path, catalogue())] == ["micro", "full"]


@pytest.mark.parametrize(
    ("suite", "network"), [("dpg_bench", "vqa"), ("image_reward", "reward")], ids=["vqa", "reward"]
)
def test_without_judges_a_micro_suite_is_planned_and_stops_with_one_line(
    suite, network, tiny_weights_root, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("SANA_BENCH_MICRO_WEIGHTS", str(tiny_weights_root))
    path = str(Path(__file__).resolve().parents[2] / f"suites/{suite}.yaml")
    arguments = ["run", path, "--tier", "micro", "--output", str(tmp_path / "results")]
    assert execute([*arguments, "--dry-run"]) == 0
    capsys.readouterr()
    assert execute(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tiny_weights_root / network} is missing, these weights are not shipped" in line
    assert not (tmp_path / "results").exists()
