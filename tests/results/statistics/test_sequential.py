"""Confidence sequences: exact on small cases, by simulation on clustered ones, and never fooled by looking."""

from itertools import product
from math import log, sqrt

import numpy as np
import pytest

from sana_bench.results.statistics.intervals import t_interval
from sana_bench.results.statistics.sequential import (
    ConfidenceSequence,
    e_holm,
    prompts_per_round,
    replay,
    verdicts,
)

N_RUNS = 400
# Three Monte-Carlo standard errors of a share of 5 % among the runs.
ERROR = 3 * sqrt(0.05 * 0.95 / N_RUNS)
TASKS = (40, 60, 50)


def outcomes(rng, shape, rates, *, images=4, alike=0.8):
    """Differences of two variants by prompt: images pass or fail together within a prompt, and alike for both variants."""
    n_runs, n_tasks, n_prompts = shape
    first, second = (np.asarray(side)[:, None, None] for side in rates)
    own = rng.beta(1, 1, size=(n_runs, n_tasks, n_prompts, 1))
    noise = rng.random((n_runs, n_tasks, n_prompts, images))
    other = np.where(rng.random(noise.shape) < alike, noise, rng.random(noise.shape))
    # A mixture of the prompt's ease and the image's luck, uniform in itself: rates are exact.
    ease = np.where(rng.random(noise.shape) < 0.5, own, noise)
    other_ease = np.where(rng.random(noise.shape) < 0.5, own, other)
    return ((other_ease < second).astype(float) - (ease < first)).mean(axis=3)


def capital(values, claimed, n_prompts, **options):
    """Capital of both sides against a claimed mean after these rounds, for one run."""
    sequence = ConfidenceSequence(n_prompts, effect=0.1, **options)
    for round_ in values:
        sequence.next_round()
        sequence.add(np.asarray(round_, dtype=float)[None, :, None])
    found = []
    for side, sign in enumerate((1, -1)):
        grown = sequence._gains[side].sum(axis=1) - sign * claimed * sequence._stakes[side]
        found.append(float(np.exp(grown).mean()))
    return found


@pytest.mark.parametrize(
    "tasks",
    [
        # Values and chances of each task: skewed, of unequal means, at the limits.
        (((-1.0, 0.25), (0.2, 0.8)), ((-0.5, 0.5), (0.3, 0.7))),
        (((-1.0, 1.0), (0.5, 0.5)), ((0.0, 1.0), (0.9, 0.1))),
        (((-1.0, 0.05), (0.05, 0.95)), ((-1.0, 1.0), (0.02, 0.98))),
    ],
)
def test_a_bet_on_the_truth_gains_nothing_on_average(tasks) -> None:
    """All outcomes of three rounds are counted: no simulation, no error but rounding."""
    truth = float(np.mean([np.dot(values, chances) for values, chances in tasks]))
    expected = np.zeros(2)
    for places in product(product((0, 1), repeat=len(tasks)), repeat=3):
        rounds = [[values[place] for (values, _), place in zip(tasks, row, strict=True)] for row in places]
        chance = np.prod(
            [chances[place] for row in places for (_, chances), place in zip(tasks, row, strict=True)]
        )
        expected += chance * np.array(capital(rounds, truth, [9, 9]))
    # 64 products of doubles of size 1: rounding stays below 1e-12.
    assert np.all(expected <= 1 + 1e-12)
    assert np.all(expected > 0.2), "nor is the capital given away"


def test_looking_after_every_round_seldom_misses_the_truth() -> None:
    rng = np.random.default_rng(7)
    values = outcomes(rng, (N_RUNS, 3, 60), ([0.3, 0.6, 0.8], [0.3, 0.6, 0.8]))
    found = replay(values, TASKS, effect=0.02)
    assert np.mean((found.low > 0) | (found.high < 0)) <= 0.05 + ERROR
    assert set(np.unique(found.verdict)) <= {"undecided", "better", "worse", "equivalent"}


def test_looking_at_an_ordinary_interval_is_fooled() -> None:
    """What the sequence is for: the same data, looked at as often with a fixed-size interval."""
    rng = np.random.default_rng(7)
    values = outcomes(rng, (120, 3, 60), ([0.3, 0.6, 0.8], [0.3, 0.6, 0.8]))
    fooled = 0
    for run in values:
        for seen in range(4, 41):
            part = run[:, :seen].ravel()
            found = t_interval(part, range(len(part)), np.repeat(range(3), seen))
            if found.low > 0 or found.high < 0:
                fooled += 1
                break
    # Measured 22 %; far beyond what 5 % would give 120 runs (11 %).
    assert fooled / 120 > 0.05 + 3 * sqrt(0.05 * 0.95 / 120)


def test_rare_large_losses_are_not_overlooked() -> None:
    """Mostly a little better, seldom much worse, the same on average: a normal approximation claims "better" here."""
    rng = np.random.default_rng(3)
    values = np.where(rng.random((N_RUNS, 1, 200)) < 1 / 21, -1.0, 0.05)
    found = replay(values, [200], effect=0.01)
    assert np.mean((found.low > 0) | (found.high < 0)) <= 0.05 + ERROR


@pytest.mark.parametrize(("difference", "verdict"), [(0.15, "better"), (-0.15, "worse")])
def test_a_large_difference_is_decided_by_few_prompts(difference, verdict) -> None:
    rng = np.random.default_rng(5)
    rates = [0.4, 0.5, 0.6]
    values = outcomes(rng, (200, 3, 60), (rates, np.add(rates, difference)))
    found = replay(values, TASKS, effect=0.02)
    assert np.mean(found.verdict == verdict) >= 0.95
    assert np.mean(found.prompts) <= 0.6 * sum(TASKS)
    assert np.mean((found.low <= difference) & (difference <= found.high)) >= 0.95 - ERROR


def test_variants_that_hardly_ever_disagree_are_equivalent() -> None:
    rng = np.random.default_rng(6)
    values = (rng.random((100, 2, 400)) < 0.01) * rng.choice([-0.25, 0.25], size=(100, 2, 400))
    found = replay(values, [400, 400], effect=0.03)
    assert np.mean(found.verdict == "equivalent") >= 0.95
    assert found.prompts.mean() < 800


def test_exchanging_the_variants_mirrors_everything() -> None:
    rng = np.random.default_rng(8)
    values = outcomes(rng, (20, 3, 60), ([0.3, 0.6, 0.8], [0.4, 0.6, 0.8]))
    there, back = (replay(sign * values, TASKS, effect=0.02) for sign in (1, -1))
    np.testing.assert_array_equal(there.low, -back.high)
    np.testing.assert_array_equal(there.prompts, back.prompts)
    mirrored = {"better": "worse", "worse": "better"}
    assert [mirrored.get(str(v), str(v)) for v in there.verdict] == [str(v) for v in back.verdict]


def test_a_run_is_the_same_alone_and_among_others() -> None:
    rng = np.random.default_rng(9)
    values = outcomes(rng, (5, 3, 60), ([0.3, 0.6, 0.8], [0.4, 0.6, 0.8]))
    together = replay(values, TASKS, effect=0.02)
    for index in range(5):
        alone = replay(values[index : index + 1], TASKS, effect=0.02)
        assert alone.prompts[0] == together.prompts[index]
        # Sums over one run and over many may round apart in the last bits: 1e-12 is a few thousand of them.
        assert alone.low[0] == pytest.approx(together.low[index], abs=1e-12)


def test_limits_only_set_the_scale() -> None:
    values = np.random.default_rng(1).random((4, 2, 1))
    small = ConfidenceSequence([10, 10], limits=(0, 1), width=0.2)
    large = ConfidenceSequence([10, 10], limits=(0, 100), width=20)
    for step in values:
        for sequence, scale in ((small, 1), (large, 100)):
            assert sequence.next_round().tolist() == [[1, 1]]
            sequence.add(scale * step[None])
    for name in ("low", "high", "estimate"):
        # Division by 50 instead of 0.5 rounds apart in the last bit of each of some ten steps.
        assert getattr(large, name)[0] == pytest.approx(100 * getattr(small, name)[0], rel=1e-12)


def test_the_interval_only_narrows_and_ends_with_the_prompts() -> None:
    rng = np.random.default_rng(2)
    sequence = ConfidenceSequence([12, 10], effect=0.02)
    widths, seen = [2.0], 0
    while (counts := sequence.next_round()).any():
        sequence.add(rng.choice([-1.0, 0.0, 1.0], size=(1, 2, counts.max())))
        seen += int(counts.sum())
        widths.append(float(sequence.high[0] - sequence.low[0]))
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 2
    assert seen == sequence.used.sum() <= 22
    assert sequence.used[0].max() >= 10


def test_rounds_take_more_prompts_of_the_task_that_varies() -> None:
    rng = np.random.default_rng(4)
    shape = (60, 4, 400)
    values = np.zeros(shape)
    values[:, 0] = rng.choice([-1.0, 0.0, 1.0], size=(60, 400))
    values[:, 1:] = 0.1 * rng.choice([-1.0, 1.0], size=(60, 3, 400))
    values = np.clip(values + 0.04, -1, 1)
    used = []
    for even in (True, False):
        sequence = ConfidenceSequence([400] * 4, effect=0.02, n_runs=60, even=even)
        for _ in range(40):
            places = sequence.used[:, :, None] + np.arange(4)
            sequence.next_round()
            sequence.add(np.take_along_axis(values, places, axis=2))
        used.append(sequence.used.mean(axis=0))
    assert np.all(used[0] == 40)
    assert used[1][0] > 1.5 * used[1][1]
    plain, planned = (replay(values, [400] * 4, effect=0.02, even=even) for even in (True, False))
    assert planned.prompts.mean() < 0.95 * plain.prompts.mean()


def test_the_estimate_is_unbiased_whatever_the_rounds_look_at() -> None:
    rng = np.random.default_rng(11)
    shape, n_rounds = (2000, 3, 100), 12
    # Skewed, and with a spread that goes with the mean: prompts chosen by what was seen could mislead.
    values = np.where(rng.random(shape) < np.array([0.05, 0.3, 0.5])[:, None], 1.0, -0.1)
    truth = float(np.mean([p - 0.1 * (1 - p) for p in (0.05, 0.3, 0.5)]))
    sequence = ConfidenceSequence([100] * 3, effect=0.02, n_runs=2000)
    for _ in range(n_rounds):
        places = sequence.used[:, :, None] + np.arange(4)
        sequence.next_round()
        sequence.add(np.take_along_axis(values, places, axis=2))
    assert np.ptp(sequence.used.sum(axis=0)) > 0, "the tasks were not treated alike"
    found = sequence.estimate
    # Three standard errors of the mean of the runs.
    assert abs(found.mean() - truth) <= 3 * found.std() / sqrt(len(found))


def test_evidence_on_single_tasks() -> None:
    rng = np.random.default_rng(12)
    values = np.stack([rng.choice([0.0, 1.0], 60), rng.choice([-0.25, 0.25], 60)])
    sequence = ConfidenceSequence([60, 60], effect=0.02)
    for place in range(30):
        assert sequence.next_round().tolist() == [[1, 1]]
        sequence.add(values[None, :, place : place + 1])
    large, small = sequence.task_e_values[0]
    assert large > 100
    assert small < 5
    np.testing.assert_allclose(sequence.task_estimates[0], values[:, :30].mean(axis=1), rtol=1e-12)
    assert e_holm([large, small]) == [pytest.approx(2 / large), pytest.approx(min(1, 1 / small))]


def test_e_values_of_a_family_keep_the_level() -> None:
    """Six tasks without a difference, stopped where the best of them looks best: still at most 5 % false claims."""
    rng = np.random.default_rng(13)
    sequence = ConfidenceSequence([60] * 6, effect=0.02, n_runs=N_RUNS)
    best = np.zeros((N_RUNS, 6))
    for _ in range(60):
        sequence.next_round()
        sequence.add(rng.choice([-1.0, 0.0, 1.0], size=(N_RUNS, 6, 4), p=[0.1, 0.8, 0.1]))
        now = sequence.task_e_values
        best = np.where((now.max(axis=1) > best.max(axis=1))[:, None], now, best)
    claims = [min(e_holm(row.tolist())) <= 0.05 for row in best]
    assert np.mean(claims) <= 0.05 + ERROR


def test_verdicts() -> None:
    low, high = [0.01, -0.2, -0.01, -0.01], [0.2, -0.01, 0.01, 0.05]
    expected = ["better", "worse", "equivalent", "undecided"]
    assert verdicts(low, high, 0.02).tolist() == expected
    lower = verdicts(low, high, 0.02, higher_is_better=False).tolist()
    assert lower == ["worse", "better", "equivalent", "undecided"]
    assert verdicts([0.001], [0.01], 0.02).tolist() == ["better"], "a small difference is a difference"


def test_rounds_hold_about_24_images_of_a_variant() -> None:
    assert [prompts_per_round(*shape) for shape in ((6, 4), (6, 1), (1, 4), (1, 1), (40, 4))] == [
        1,
        4,
        6,
        24,
        1,
    ]


def test_no_stake_can_lose_everything() -> None:
    sequence = ConfidenceSequence([50], effect=0.02)
    for place in range(50):
        sequence.next_round()
        sequence.add(np.full((1, 1, 1), -1.0 if place % 10 == 9 else 1.0))
    assert np.isfinite(sequence._gains).all()
    assert -1 <= sequence.low[0] <= sequence.estimate[0] <= sequence.high[0] <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_prompts": []}, "every task needs prompts"),
        ({"n_prompts": [3, 0]}, "every task needs prompts"),
        ({"limits": (1, 1)}, "limits must rise"),
        ({"error": 0}, "between 0 and 1"),
        ({"effect": 0}, "must be positive"),
        ({"width": 0.1}, "one of effect and width"),
    ],
)
def test_wrong_use_is_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        ConfidenceSequence(**{"n_prompts": [5], "effect": 0.1, **options})


@pytest.mark.parametrize("value", [1.5, float("nan")])
def test_values_outside_the_limits_are_refused(value) -> None:
    sequence = ConfidenceSequence([5], effect=0.1)
    sequence.next_round()
    with pytest.raises(ValueError, match="within the limits"):
        sequence.add([[[value]]])


def test_a_goal_is_the_logarithm_of_the_error_of_one_side() -> None:
    assert ConfidenceSequence([5], effect=0.1, error=0.05)._goal == pytest.approx(log(40))


def test_an_interval_of_one_rate_holds_where_it_is_narrow_enough() -> None:
    """Images of a prompt pass together; every run stops where its interval is 0.3 wide, or with its prompts."""
    rng = np.random.default_rng(15)
    rates = np.array([0.3, 0.6, 0.8])[:, None, None]
    shape = (N_RUNS, 3, 60, 4)
    ease = np.where(rng.random(shape) < 0.7, rng.random((*shape[:3], 1)), rng.random(shape))
    values = (ease < rates).mean(axis=3)
    sequence = ConfidenceSequence([60] * 3, limits=(0, 1), width=0.3, n_runs=N_RUNS)
    low, high = np.zeros(N_RUNS), np.ones(N_RUNS)
    while (counts := sequence.next_round()).any():
        places = np.minimum(sequence.used[:, :, None] + np.arange(counts.max()), 59)
        sequence.add(np.take_along_axis(values, places, axis=2))
        going = high - low > 0.3
        low, high = np.where(going, sequence.low, low), np.where(going, sequence.high, high)
    assert np.mean((low <= rates.mean()) & (rates.mean() <= high)) >= 0.95 - ERROR
    assert np.mean(high - low <= 0.3) >= 0.95


def test_looks_of_this_version_are_what_they_were() -> None:
    """Stored looks carry `rounds@1`: a change of these numbers needs another version in `sana_bench.runner.rounds`."""
    sequence = ConfidenceSequence([30, 20], effect=0.02)
    counts = []
    for look in range(12):
        counts.append(sequence.next_round()[0].tolist())
        # Plain arithmetic, so that no library's generator decides the values.
        values = [
            [((7 * look + 3 * task + 5 * place) % 9 - 3) / 4 for place in range(4)] for task in range(2)
        ]
        sequence.add(np.clip([values], -1, 1))
    assert counts == [[2, 1], [1, 1]] * 6
    # Logarithms and exponentials differ in the last bits between machines; a billionth is far above them.
    assert sequence.low[0] == pytest.approx(-0.12899821554090724, rel=1e-9)
    assert sequence.high[0] == pytest.approx(0.6021655766328771, rel=1e-9)
