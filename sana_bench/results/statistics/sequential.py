"""Intervals that may be looked at after every round of images, and the rounds themselves.

The unit is a prompt with all of its images: a value in known limits, the difference of two variants say. Prompts count as
drawn from those that a task could have, as everywhere in this package, so a verdict means what it means in a fixed design.

Each bet is a capital of 1 that grows while the mean lies above (or below) what is claimed. With what was seen before,
a task's mean is guessed to be c and a stake b is chosen; a prompt's value x then multiplies the capital against the claim
that the task's mean is m by (1 + b (x - c)) exp(-b (m - c)), which is at most 1 on average if the claim is true, because 1 + y is
at most exp(y). Stakes of a round add up to the same in every task, so that only the mean of the task means stays in the
exponent. By Ville's inequality a capital ever reaches 1 / error with a chance of at most error, whenever one looks.

Sources: Waudby-Smith & Ramdas, Estimating means of bounded random variables by betting, JRSS B 86 (2024), for stakes chosen
by what was seen and for the bound above, from which their empirical-Bernstein sequence goes on; Howard, Ramdas, McAuliffe
& Sekhon, Annals of Statistics 49 (2021), for mixtures over stakes; Vovk & Wang, the same volume, for Holm's procedure with
e-values.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sana_bench.results.statistics import holm

__all__ = ["ConfidenceSequence", "Replayed", "Verdict", "e_holm", "prompts_per_round", "replay", "verdicts"]

Numbers = NDArray[np.float64]
Counts = NDArray[np.int64]
#: What a sequence of differences says so far.
Verdict = Literal["better", "worse", "equivalent", "undecided"]

# Capital is split evenly among bets, each tuned to pay once this share of what all prompts can tell is there ...
_SHARES = np.array([0.6, 0.25, 0.06])
# ... and losing at most this share of itself by one prompt. The last is for large differences, and for variants that hardly
# ever disagree, where more is safe to stake.
_RISKS = np.array([0.6, 0.75, 0.95])
# Before anything was seen: the variance of a prompt's value within limits of -1 and 1, and as how many prompts that counts.
_FIRST_VARIANCE, _FIRST_PROMPTS = 0.15, 4.0
_LEAST_VARIANCE = 1e-4
# A mixture pays for not knowing the best stake; in logarithms of capital.
_PRICE_OF_MIXING = 0.7
# Prompts of a task in a round for each one of the task that needs fewest.
_MOST_UNEVEN = 4
_IMAGES_PER_ROUND = 24
_HALVINGS = 32
# Capital beyond e to this is as good as infinite.
_LARGEST_LOG = 600.0


def prompts_per_round(n_tasks: int, images_per_prompt: int) -> int:
    """Fewest prompts of each task in a round of about 24 images of a variant, so that looks are frequent and batches full."""
    return max(1, -(-_IMAGES_PER_ROUND // (n_tasks * images_per_prompt)))


def verdicts(
    low: ArrayLike, high: ArrayLike, effect: float, *, higher_is_better: bool = True
) -> NDArray[np.str_]:
    """The `Verdict` on each interval of a difference, b minus a; `equivalent` lies within `effect` of 0 on either side."""
    below, above = np.asarray(low), np.asarray(high)
    up, down = ("better", "worse") if higher_is_better else ("worse", "better")
    within = (below > -effect) & (above < effect)
    return np.select([below > 0, above < 0, within], [up, down, "equivalent"], "undecided")


def e_holm(e_values: Sequence[float]) -> list[float]:
    """p-values of a family of claims, valid whenever one stopped: Holm's procedure on 1 / e, at most 1 each."""
    return holm([min(1.0, 1 / e) if e > 0 else 1.0 for e in e_values])


class ConfidenceSequence:
    """Intervals of the unweighted mean of task means, after every round, for `n_runs` independent runs at once.

    A run asks for `next_round()` and is given the values of so many prompts of each task by `add()`, prompts of a task in an
    order that does not depend on their values. `low` and `high` then hold the mean at all looks together with a chance of at
    least 1 - `error`. `estimate` is the mean over rounds of the mean over tasks, which is unbiased after any number of rounds
    that was fixed before (not where a run stopped because of what it saw).

    Args:
        n_prompts: prompts that each task has, shape (n_tasks,).
        limits: the smallest and the largest value there can be.
        effect: what the intervals are for: to tell a difference from 0, or that it is smaller than this.
        width: instead of `effect`: an interval no wider than this.
        per_round: fewest prompts of a task in a round, see `prompts_per_round`.
        even: take as many prompts of each task as their number asks for, instead of those that tell most.

    Raises:
        ValueError: no prompts in a task, limits that do not rise, an error outside (0, 1), or not one of effect and width.
    """

    def __init__(
        self,
        n_prompts: ArrayLike,
        *,
        limits: tuple[float, float] = (-1.0, 1.0),
        effect: float | None = None,
        width: float | None = None,
        error: float = 0.05,
        per_round: int = 1,
        even: bool = False,
        n_runs: int = 1,
    ) -> None:
        self._supply = np.asarray(n_prompts, dtype=np.int64)
        if self._supply.ndim != 1 or len(self._supply) == 0 or self._supply.min() < 1:
            raise ValueError(f"every task needs prompts, got {self._supply.tolist()}")
        if not limits[0] < limits[1]:
            raise ValueError(f"limits must rise, got {limits}")
        if not 0 < error < 1:
            raise ValueError(f"an error lies between 0 and 1, got {error}")
        if (effect is None) == (width is None) or not (effect or width or 0) > 0:
            raise ValueError(f"one of effect and width must be positive, got {effect} and {width}")
        self._middle, self._half = (limits[0] + limits[1]) / 2, (limits[1] - limits[0]) / 2
        self._effect = None if effect is None else effect / self._half
        self._width = None if width is None else width / self._half
        # Half of the error for each side.
        self._goal = float(np.log(2 / error))
        self._per_round, self._even = per_round, even
        shape, n_bets = (n_runs, len(self._supply)), len(_SHARES)
        self._asked = np.zeros(shape, dtype=np.int64)
        self._used = np.zeros(shape, dtype=np.int64)
        self._sums, self._squares = np.zeros(shape), np.zeros(shape)
        # Logarithms of capital by side (above, below), run, task and bet, without the claimed mean; and the stakes on that mean.
        self._gains = np.zeros((2, *shape, n_bets))
        self._stakes = np.zeros((2, n_runs, n_bets))
        self._information, self._rounds = np.zeros(n_runs), np.zeros(n_runs)
        self._total = np.zeros(n_runs)
        self._low, self._high = np.full(n_runs, -1.0), np.full(n_runs, 1.0)

    @property
    def low(self) -> Numbers:
        """Lower ends, shape (n_runs,): the highest of all looks so far."""
        return self._middle + self._half * self._low

    @property
    def high(self) -> Numbers:
        """Upper ends, shape (n_runs,): the lowest of all looks so far."""
        return self._middle + self._half * self._high

    @property
    def estimate(self) -> Numbers:
        """The mean, shape (n_runs,); NaN before the first round."""
        with np.errstate(invalid="ignore"):
            return self._middle + self._half * self._total / self._rounds

    @property
    def used(self) -> Counts:
        """Prompts of each task so far, shape (n_runs, n_tasks)."""
        return self._used.copy()

    @property
    def task_estimates(self) -> Numbers:
        """Mean of each task's values, shape (n_runs, n_tasks); NaN before the first round."""
        with np.errstate(invalid="ignore"):
            return self._middle + self._half * self._sums / self._used

    @property
    def task_e_values(self) -> Numbers:
        """Evidence against "the task's mean is the middle of the limits", 0 for a difference; shape (n_runs, n_tasks)."""
        return np.exp(np.minimum(self._gains, _LARGEST_LOG)).mean(axis=(0, 3))

    def next_round(self) -> Counts:
        """Prompts to add of each task, shape (n_runs, n_tasks); 0 in all of them where a task has none left."""
        left = self._supply - self._used
        weights = left.astype(np.float64) if self._even else self._plan(np.maximum(left, 1))
        least = np.min(np.maximum(weights, 1e-300), axis=1, keepdims=True)
        most = self._per_round * _MOST_UNEVEN
        counts = np.clip(np.rint(self._per_round * weights / least), 1, most).astype(np.int64)
        counts = np.minimum(counts, left)
        self._asked = np.where(counts.min(axis=1, keepdims=True) > 0, counts, 0)
        return self._asked.copy()

    def add(self, values: ArrayLike) -> None:
        """Take the values of the round, shape (n_runs, n_tasks, most); what lies beyond the prompts asked for is ignored.

        Raises:
            ValueError: values outside the limits, or not finite.
        """
        given = (np.asarray(values, dtype=np.float64) - self._middle) / self._half
        counts = self._asked
        there = np.arange(given.shape[2]) < counts[:, :, None]
        x = np.where(there, given, 0.0)
        # One part in a thousand million for the rounding of means of values at the limits.
        if not np.all(np.abs(x) <= 1 + 1e-9) or given.shape[2] < counts.max():
            raise ValueError("every prompt of the round needs a value within the limits")
        x = np.clip(x, -1.0, 1.0)
        going = counts[:, 0] > 0
        shares = 1 / (len(self._supply) * np.maximum(counts, 1))
        self._bet(x, there, shares, going)
        self._information += going / self._variance_of_round(shares)
        self._sums += x.sum(axis=2)
        self._squares += (x**2).sum(axis=2)
        self._used += counts
        self._total += (x.sum(axis=2) * shares).sum(axis=1)
        self._rounds += going
        self._narrow()
        self._asked = np.zeros_like(counts)

    def _guesses(self) -> tuple[Numbers, Numbers]:
        """Mean and variance of each task by what was seen, drawn towards those of all tasks while that is little."""
        seen = self._used.sum(axis=1, keepdims=True) + _FIRST_PROMPTS
        mean = self._sums.sum(axis=1, keepdims=True) / seen
        square = (self._squares.sum(axis=1, keepdims=True) + _FIRST_PROMPTS * _FIRST_VARIANCE) / seen
        own = self._used + _FIRST_PROMPTS
        means = (self._sums + _FIRST_PROMPTS * mean) / own
        variances = (self._squares + _FIRST_PROMPTS * square) / own - means**2
        return means, np.maximum(variances, _LEAST_VARIANCE)

    def _variance_of_round(self, shares: Numbers) -> Numbers:
        """Variance of the mean over tasks of one round, shape (n_runs,)."""
        return (self._guesses()[1] * shares).sum(axis=1) / len(self._supply)

    def _bet(self, x: Numbers, there: NDArray[np.bool_], shares: Numbers, going: NDArray[np.bool_]) -> None:
        means, variances = self._guesses()
        n_tasks = len(self._supply)
        least = (variances / self._supply).sum(axis=1) / n_tasks**2
        # The stake that grows fastest when the mean is as far off as can be told by then.
        distance = np.sqrt(2 * (self._goal + _PRICE_OF_MIXING) * least[:, None] / _SHARES)
        wanted = distance / self._variance_of_round(shares)[:, None]
        centred = np.where(there, x - means[:, :, None], 0.0)
        guessed = np.where(there, means[:, :, None], 0.0).sum(axis=2)
        for side, sign in enumerate((1.0, -1.0)):
            # What is lost by the worst value there can be.
            worst = (shares * (1 + sign * means)).max(axis=1)[:, None]
            stakes = np.where(going[:, None], np.minimum(wanted, _RISKS / worst), 0.0)
            each = stakes[:, None, :] * shares[:, :, None]
            grown = np.log1p(sign * each[:, :, None, :] * centred[:, :, :, None]).sum(axis=2)
            self._gains[side] += grown + sign * each * guessed[:, :, None]
            self._stakes[side] += stakes

    def _reached(self, side: int, claimed: Numbers) -> NDArray[np.bool_]:
        """Whether the capital of a side against a claimed mean is at its goal, by run."""
        sign = 1 - 2 * side
        grown = self._gains[side].sum(axis=1) - sign * claimed[:, None] * self._stakes[side]
        most = grown.max(axis=1, keepdims=True)
        return np.log(np.exp(grown - most).mean(axis=1)) + most[:, 0] >= self._goal

    def _narrow(self) -> None:
        """Move both ends to the last claims that are refuted."""
        for side, end in enumerate((self._low, self._high)):
            refuted, open_ = end.copy(), np.full_like(end, 1.0 - 2 * (side == 1))
            for _ in range(_HALVINGS):
                middle = (refuted + open_) / 2
                reached = self._reached(side, middle)
                refuted, open_ = np.where(reached, middle, refuted), np.where(reached, open_, middle)
            end[:] = refuted

    def _plan(self, left: Counts) -> Numbers:
        """How many more prompts of each task would answer, if what was seen goes on: Neyman's shares, within what is left.

        Where bets are held back by the limits of the values, not by their spread, more prompts of a task that varies most gain
        nothing: deviations below that point count as equal.
        """
        means, variances = self._guesses()
        deviations = np.sqrt(variances)
        typical = deviations.mean(axis=1, keepdims=True)
        if self._width is not None:
            distance = np.full_like(typical, self._width / 2)
        else:
            centre = np.abs(means.mean(axis=1, keepdims=True))
            distance = np.maximum(centre, (self._effect or 0.0) - centre)
            deviations = np.maximum(deviations, np.minimum(typical, distance / (_RISKS[0] * typical)))
        needed = 2 * (self._goal + 1) / distance[:, 0] ** 2 - self._information
        few, many = np.zeros(len(left)), np.full(len(left), np.log(1e6))
        for _ in range(_HALVINGS):
            middle = (few + many) / 2
            counts = np.minimum(left, np.exp(middle)[:, None] * deviations)
            enough = len(self._supply) ** 2 / (variances / counts).sum(axis=1) >= needed
            few, many = np.where(enough, few, middle), np.where(enough, middle, many)
        return np.minimum(left, np.exp(many)[:, None] * deviations)


@dataclass(frozen=True, eq=False)
class Replayed:
    """Many runs on values that were there: each array has shape (n_runs,).

    `verdict` is the `Verdict` each stopped with, `prompts` the prompts it used (all, where it never stopped), `low` and `high`
    its interval then, within those of every look before, and `estimate` the mean.
    """

    verdict: NDArray[np.str_]
    prompts: Counts
    low: Numbers
    high: Numbers
    estimate: Numbers


def replay(
    values: ArrayLike,
    n_prompts: Sequence[int],
    *,
    effect: float,
    error: float = 0.05,
    per_round: int = 1,
    even: bool = False,
) -> Replayed:
    """Stop each run of differences as a live one is stopped: at the first `Verdict` other than undecided.

    `values` has shape (n_runs, n_tasks, most prompts), prompts in the order of the rounds.
    """
    given = np.asarray(values, dtype=np.float64)
    n_runs, _, most = given.shape
    sequence = ConfidenceSequence(
        n_prompts, effect=effect, error=error, per_round=per_round, even=even, n_runs=n_runs
    )
    verdict = np.full(n_runs, "undecided", dtype="<U10")
    prompts = np.full(n_runs, sum(n_prompts))
    low, high, estimate = np.full(n_runs, -1.0), np.full(n_runs, 1.0), np.full(n_runs, np.nan)
    going = np.ones(n_runs, dtype=bool)
    while True:
        counts = sequence.next_round()
        going &= counts[:, 0] > 0
        if not going.any():
            return Replayed(verdict, prompts, low, high, estimate)
        places = np.minimum(sequence.used[:, :, None] + np.arange(counts.max()), most - 1)
        sequence.add(np.take_along_axis(given, places, axis=2))
        for kept, now in ((low, sequence.low), (high, sequence.high), (estimate, sequence.estimate)):
            kept[going] = now[going]
        found = verdicts(low, high, effect)
        stopped = going & (found != "undecided")
        verdict[stopped], prompts[stopped] = found[stopped], sequence.used.sum(axis=1)[stopped]
        going &= ~stopped
