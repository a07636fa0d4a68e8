"""Coverage and false positives at small size: the script behind the tables of docs/statistics.md."""

import importlib.util
import sys
from math import sqrt

import pytest

from tests import ROOT

SCRIPT = ROOT / "scripts" / "simulate_statistics.py"
N = 150
# Three Monte-Carlo standard errors of a share of 5 % (or 95 %) among N.
ERROR = 3 * sqrt(0.05 * 0.95 / N)


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("simulate_statistics", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_intervals_of_rates_cover_at_the_shape_of_micro_geneval(script):
    bootstrap, t = script.coverage_of_rates(script.MICRO_GENEVAL, 0.6, N)
    assert bootstrap >= 0.95 - ERROR
    assert t >= 0.95 - ERROR


def test_intervals_of_scores_cover(script):
    for share in script.coverage_of_scores(script.Layout(1, 40, 2), skewed=False, n=N):
        assert share >= 0.95 - ERROR


def test_paired_intervals_cover_and_the_test_keeps_its_level(script):
    covered, significant = script.paired_rates(script.MICRO_GENEVAL, 0.6, 0.6, N)
    assert covered >= 0.95 - ERROR
    assert significant <= 0.05 + ERROR
    covered, significant = script.paired_rates(script.MICRO_GENEVAL, 0.6, 0.8, N)
    assert covered >= 0.95 - ERROR
    assert significant >= 0.5  # a true difference of 6 points is mostly found


def test_treating_images_as_independent_would_not_cover(script):
    layout = script.Layout(1, 144, 4)
    rng = script.np.random.default_rng(1)
    hits = 0
    for simulation in range(N):
        values = script.outcomes(layout, script.np.array([0.6]), rng)
        interval = script.clustered_proportion(values, range(len(values)), seed=simulation, n_draws=99)
        hits += interval.low <= 0.6 <= interval.high
    assert hits / N < 0.95 - ERROR


@pytest.mark.parametrize("name", ["null_scores", "null_latency"])
def test_tests_keep_their_level(script, name):
    assert script.false_positives(getattr(script, name), N) <= 0.05 + ERROR


@pytest.mark.parametrize("name", ["null_frechet"])
def test_tests_of_distances_keep_their_level(script, name):
    assert script.false_positives(getattr(script, name), 40) <= 0.05 + 3 * sqrt(0.05 * 0.95 / 40)


def test_page_holds_tables_of_this_script():
    page = (SCRIPT.parents[1] / "docs" / "statistics.md").read_text(encoding="utf-8")
    table = page.split("<!-- simulated: begin -->")[1].split("<!-- simulated: end -->")[0]
    assert "| 6 x 24 x 4 | rate 0.6 |" in table
    assert "The standard error of a share" in table
