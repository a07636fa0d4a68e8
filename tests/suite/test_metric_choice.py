"""A suite may say which protocol of a metric it wants, and with which parameters."""

import pytest

from sana_bench.errors import SuiteError
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
