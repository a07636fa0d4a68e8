"""A suite may score with other metrics on each tier, where some have no version on one."""

import pytest

from sana_bench.core.errors import SuiteError
from sana_bench.suites.load import check_suite_file, load_all_tiers, load_suite
from sana_bench.suites.schema import BenchmarkSpec
from tests import ROOT


def write(folder, metrics, variants="{micro: [sana-micro], full: [sana-1.6b-1024]}"):
    path = folder / "s.yaml"
    path.write_text(
        "schema_version: 1\nname: s\nbenchmarks:\n"
        f"  - name: mjhq30k\n    metrics: {metrics}\nvariants: {variants}\n"
    )
    return path


def names(suite):
    return [metric.name for metric in suite.file.benchmarks[0].metric_specs]


def test_each_tier_has_its_own(tmp_path):
    path = write(tmp_path, "{micro: [fid], full: [kid, {name: fid, protocol: fid/clean@1}]}")
    assert names(load_suite(path, "micro")) == ["fid"]
    full = load_suite(path, "full")
    assert names(full) == ["kid", "fid"]
    assert full.file.benchmarks[0].metric_specs[1].protocol == "fid/clean@1"
    assert [names(suite) for suite in load_all_tiers(path)] == [["fid"], ["kid", "fid"]]


def test_a_tier_that_is_not_named_has_the_benchmarks_own(tmp_path):
    suite = load_suite(write(tmp_path, "{full: [kid]}"), "micro")
    assert suite.file.benchmarks[0].metrics is None


def test_what_a_tier_names_is_as_if_it_stood_alone(tmp_path):
    parted = load_suite(write(tmp_path, "{micro: [fid, clip_score]}"), "micro")
    alone = load_suite(write(tmp_path, "[fid, clip_score]"), "micro")
    assert parted.file == alone.file


def test_paths_of_each_tier_start_from_the_suite(tmp_path):
    (tmp_path / "mine.py").write_text("def light(image, prompt):\n    return 1.0\n")
    suite = load_suite(write(tmp_path, '{micro: [fid, "./mine.py:light"], full: [kid]}'), "micro")
    assert suite.file.benchmarks[0].metric_specs[1].function == f"{tmp_path / 'mine.py'}:light"


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ("{micro: [fid], full: [kidd]}", r"s\.yaml:5: benchmark 'mjhq30k' has no metric 'kidd'.*'kid'"),
        ("{micro: [fid, fid]}", "'fid' appears twice"),
        ("{}", "metrics"),
        ("{nano: [fid]}", "nano"),
        ("{micro: []}", "micro"),
        ("fid", "metrics"),
    ],
)
def test_mistakes_are_one_line(tmp_path, metrics, message):
    with pytest.raises(SuiteError, match=message) as caught:
        check_suite_file(write(tmp_path, metrics))
    assert "\n" not in str(caught.value)


def test_the_metrics_of_several_tiers_are_not_taken_for_those_of_one():
    spec = BenchmarkSpec.model_validate({"name": "mjhq30k", "metrics": {"micro": ["fid"], "full": ["kid"]}})
    with pytest.raises(TypeError, match="other metrics on each tier"):
        _ = spec.metric_specs


def test_the_shipped_suite_of_preferences():
    path = ROOT / "suites/preference.yaml"
    assert names(load_suite(path, "micro")) == ["image_reward", "pickscore"]
    assert names(load_suite(path, "full")) == ["hpsv2.1", "hpsv2", "pickscore", "aesthetic", "image_reward"]
