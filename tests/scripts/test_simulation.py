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


@pytest.fixture
def sequences(script, monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    monkeypatch.setitem(sys.modules, "simulate_statistics", script)
    spec = importlib.util.spec_from_file_location(
        "simulate_sequences", SCRIPT.parent / "simulate_sequences.py"
    )
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("difference", [0.0, 0.05])
def test_synthetic_suites_have_the_difference_and_the_clusters_that_the_page_says(sequences, difference):
    np, rng = sequences.np, sequences.np.random.default_rng(1)
    for name, world in sequences.WORLDS.items():
        single = world.draw(400, 50, 1, difference, rng)
        pairs = world.draw(400, 50, 2, difference, rng)
        # Three standard errors of a mean of 120,000 differences of at most 1.
        assert abs(single.mean() - difference) <= 3 / np.sqrt(single.size)
        if difference == 0:
            assert abs(np.abs(single).mean() - float(name.split()[0]) / 100) <= 0.005
            # Two images of a prompt: the variance of their mean is (1 + r) / 2 of that of one.
            within = 2 * pairs.var(axis=(0, 2)).mean() / single.var(axis=(0, 2)).mean() - 1
            assert 0.05 <= within <= 0.15


def test_pairs_of_micro_variants_get_any_difference_up_to_their_own(sequences):
    np = sequences.np
    for pair in sequences.json.loads(sequences.PAIRS.read_text())["pairs"]:
        assert len(pair["tasks"]) == 6
        assert all(len(prompts) == 24 for prompts in pair["tasks"].values())
        values = sequences.resampled(pair, 400, 50, 0.02, np.random.default_rng(1))
        assert abs(values.mean() - 0.02) <= 3 * values.std() / np.sqrt(values.size)


def test_sequences_seldom_decide_falsely(sequences):
    values = sequences.WORLDS["22 %"].draw(N, 100, 4, 0.0, sequences.np.random.default_rng(2))
    row = sequences.stopped("x", values, sequences.GENEVAL, 4, 0.0).split("|")
    assert float(row[3].split()[0]) <= 100 * (0.05 + ERROR)
    assert float(row[4]) >= 100 * (0.95 - ERROR)


def test_the_bound_is_that_of_a_test_which_knows_everything(sequences):
    """Half of the prompts at the spread's distance: 2 log(40) of them tell with certainty."""
    np = sequences.np
    values = np.random.default_rng(3).normal(0.1, 0.1, size=(1000, 1, 1000))
    # Nothing missed of 1,000 counts as one missed: 1 % less than 2 log(40).
    assert sequences.bound(values, 0.1, 0.0) == pytest.approx(2 * np.log(40), rel=0.01)


def test_page_holds_the_tables_of_sequences(sequences):
    page = sequences.PAGE.read_text(encoding="utf-8")
    table = page.split(sequences.MARKS[0])[1].split(sequences.MARKS[1])[0]
    assert "| synthetic, disagree on 12 % | 5 |" in table
    assert "| sana-micro-8-steps and sana-micro | 0 |" in table
