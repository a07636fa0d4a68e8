"""Measure intervals and tests on simulated data and write the tables into docs/statistics.md.

Usage: python scripts/simulate_statistics.py [--simulations 1000] [--print]

Every draw comes from one fixed seed, so the same command writes the same tables.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sana_bench.results.statistics.distances import compare_frechet
from sana_bench.results.statistics.intervals import clustered_bootstrap, clustered_proportion, t_interval
from sana_bench.results.statistics.latency import compare_latency
from sana_bench.results.statistics.paired import compare_means, compare_proportions
from sana_bench.results.statistics.steps import detect_steps

PAGE = Path(__file__).resolve().parents[1] / "docs" / "statistics.md"
BEGIN, END = "<!-- simulated: begin -->", "<!-- simulated: end -->"
SEED = 20_240
N_DRAWS = 399  # of each bootstrap and permutation; 0.05 times one more is a whole number

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Layout:
    """Shape of a benchmark: tasks, prompts a task, images a prompt."""

    strata: int
    prompts: int
    images: int

    @property
    def clusters(self) -> list[int]:
        return np.repeat(np.arange(self.strata * self.prompts), self.images).tolist()

    @property
    def labels(self) -> list[int]:
        return np.repeat(np.arange(self.strata), self.prompts * self.images).tolist()

    def __str__(self) -> str:
        return f"{self.strata} x {self.prompts} x {self.images}"


MICRO_GENEVAL = Layout(6, 24, 4)
LAYOUTS = (MICRO_GENEVAL, Layout(1, 20, 4), Layout(1, 50, 4), Layout(1, 150, 1))
RATES = (0.05, 0.3, 0.6, 0.95)


def outcomes(layout: Layout, rates: Numbers, rng: np.random.Generator) -> Numbers:
    """0 or 1 per image; a prompt's rate is Beta with concentration 1, so images of a prompt correlate at 0.5."""
    per_prompt = rng.beta(rates[:, None], 1 - rates[:, None], size=(layout.strata, layout.prompts))
    drawn = rng.random((layout.strata, layout.prompts, layout.images)) < per_prompt[:, :, None]
    return drawn.ravel().astype(np.float64)


def task_rates(layout: Layout, rate: float) -> Numbers:
    """Tasks of different difficulty around one mean rate."""
    return (
        rate + np.linspace(-0.8, 0.8, layout.strata) * rate * (1 - rate)
        if layout.strata > 1
        else np.array([rate])
    )


def pair(layout: Layout, rate: float, other: float, rng: np.random.Generator) -> tuple[Numbers, Numbers]:
    """Outcomes of two variants: 70 % of the images agree by construction, the rest are drawn anew at `other`.

    The true difference is 0.3 (other - rate); where both are equal, either could be the first.
    """
    first = outcomes(layout, task_rates(layout, rate), rng)
    anew = outcomes(layout, task_rates(layout, other), rng)
    return first, np.where(rng.random(len(first)) < 0.7, first, anew)


def coverage_of_rates(layout: Layout, rate: float, n: int) -> tuple[float, float]:
    """Share of 95 % intervals that hold the true rate: bootstrap, t."""
    rng = np.random.default_rng((SEED, 1))
    hits = np.zeros(2)
    for simulation in range(n):
        rows = outcomes(layout, task_rates(layout, rate), rng), layout.clusters, layout.labels
        intervals = clustered_proportion(*rows, seed=simulation, n_draws=N_DRAWS), t_interval(*rows)
        hits += [interval.low - 1e-12 <= rate <= interval.high + 1e-12 for interval in intervals]
    return float(hits[0] / n), float(hits[1] / n)


def coverage_of_scores(layout: Layout, *, skewed: bool, n: int) -> tuple[float, float]:
    """As `coverage_of_rates` for real scores whose prompts vary as much as the images of one."""
    rng = np.random.default_rng((SEED, 2))
    hits = np.zeros(2)
    for simulation in range(n):
        of_prompts = (
            rng.exponential(size=layout.strata * layout.prompts) - 1
            if skewed
            else rng.normal(size=layout.strata * layout.prompts)
        )
        values = np.repeat(of_prompts, layout.images) + rng.normal(size=len(layout.clusters))
        rows = values, layout.clusters, layout.labels
        intervals = clustered_bootstrap(*rows, seed=simulation, n_draws=N_DRAWS), t_interval(*rows)
        hits += [interval.low <= 0 <= interval.high for interval in intervals]
    return float(hits[0] / n), float(hits[1] / n)


def paired_rates(layout: Layout, rate: float, other: float, n: int) -> tuple[float, float]:
    """Coverage of the paired difference, and share of p-values at most 0.05."""
    rng = np.random.default_rng((SEED, 3))
    hits = significant = 0
    for simulation in range(n):
        first, second = pair(layout, rate, other, rng)
        effect = compare_proportions(
            first, second, layout.clusters, layout.labels, seed=simulation, n_draws=N_DRAWS
        )
        hits += effect.low - 1e-12 <= 0.3 * (other - rate) <= effect.high + 1e-12
        significant += effect.p_value <= 0.05
    return hits / n, significant / n


def false_positives(p_value: Callable[[np.random.Generator, int], float], n: int) -> float:
    """Share of simulations without any effect whose p-value is at most 0.05."""
    rng = np.random.default_rng((SEED, 4))
    return sum(p_value(rng, simulation) <= 0.05 for simulation in range(n)) / n


def null_scores(rng: np.random.Generator, seed: int) -> float:
    layout = MICRO_GENEVAL
    values = [np.repeat(rng.exponential(size=144), 4) + rng.normal(size=576) for _ in range(2)]
    return compare_means(*values, layout.clusters, layout.labels, seed=seed, n_draws=N_DRAWS).p_value


def null_frechet(rng: np.random.Generator, seed: int) -> float:
    first, second = (
        np.repeat(rng.normal(size=(40, 4)), 2, axis=0) + rng.normal(size=(80, 4)) for _ in range(2)
    )
    reference = np.zeros(4), np.eye(4)
    return compare_frechet(first, second, reference, Layout(1, 40, 2).clusters, seed=seed, n_draws=99).p_value


def null_latency(rng: np.random.Generator, seed: int, *, slower: float = 0.0, minimum: float = 0.0) -> float:
    first, second = (
        100 * rng.lognormal(0, 0.03, size=40),
        100 * (1 + slower) * rng.lognormal(0, 0.03, size=40),
    )
    return compare_latency(first, second, minimum_effect=minimum, seed=seed, n_draws=1).p_value


NOISES: dict[str, Callable[[np.random.Generator, int], Numbers]] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "Student t, 3 degrees": lambda rng, n: rng.standard_t(3, size=n),
    "lognormal, sigma 0.5": lambda rng, n: rng.lognormal(0, 0.5, size=n),
    "normal, one run off by 20": lambda rng, n: rng.normal(size=n) + 20 * (np.arange(n) == rng.integers(n)),
    "two values, half each": lambda rng, n: (rng.random(n) < 0.5).astype(np.float64),
    "two values, one in four": lambda rng, n: (rng.random(n) < 0.25).astype(np.float64),
}


def alarms(kind: str, n_runs: int, level: float, n: int) -> float:
    """Share of series without a step in which one is reported."""
    rng = np.random.default_rng((SEED, 6))
    return sum(bool(detect_steps(NOISES[kind](rng, n_runs).tolist(), level=level)) for _ in range(n)) / n


def found_steps(height: float, n: int) -> float:
    """Share of series of 30 runs with one step of `height` standard deviations in which it alone is found, +-1."""
    rng = np.random.default_rng((SEED, 5))
    found = 0
    for _ in range(n):
        place = int(rng.integers(5, 26))
        series = rng.normal(size=30) + height * (np.arange(30) >= place)
        steps = detect_steps(series.tolist())
        found += len(steps) == 1 and abs(steps[0].index - place) <= 1
    return found / n


def tables(n: int) -> Iterator[str]:
    """Lines of Markdown."""
    error = 100 * sqrt(0.95 * 0.05 / n)
    yield (
        f"{n:,} simulations a row (Fréchet: {n // 4:,}), {N_DRAWS} draws each (99 for Fréchet). The "
        f"standard error of a share near 95 % or 5 % is {error:.1f} points ({2 * error:.1f} for Fréchet).\n"
    )
    yield "Coverage of 95 % intervals, in %. Shape: tasks x prompts a task x images a prompt.\n"
    yield "| shape | score | bootstrap | t |"
    yield "|---|---|---|---|"
    for layout in LAYOUTS:
        for rate in RATES:
            yield _row(str(layout), f"rate {rate}", *coverage_of_rates(layout, rate, n))
    for layout in LAYOUTS[:2]:
        yield _row(str(layout), "normal scores", *coverage_of_scores(layout, skewed=False, n=n))
        yield _row(str(layout), "skewed scores", *coverage_of_scores(layout, skewed=True, n=n))
    yield "\nPaired difference of rates: coverage, and share of p-values at most 0.05, in %.\n"
    yield "| shape | rate | true difference | covered | p at most 0.05 |"
    yield "|---|---|---|---|---|"
    for layout in LAYOUTS:
        for rate, other in ((0.05, 0.05), (0.3, 0.3), (0.6, 0.6), (0.6, 0.8)):
            result = paired_rates(layout, rate, other, n)
            yield _row(str(layout), str(rate), f"{0.3 * (other - rate):g}", *result)
    yield "\nOther tests without any effect: share of p-values at most 0.05, in %.\n"
    yield "| test | data | p at most 0.05 |"
    yield "|---|---|---|"
    yield _row("sign-flip permutation", f"skewed scores, {MICRO_GENEVAL}", false_positives(null_scores, n))
    yield _row("Fréchet distance", "40 prompts x 2 images, 4 features", false_positives(null_frechet, n // 4))
    yield _row("Mann-Whitney", "40 latencies each, equal", false_positives(null_latency, n))
    beyond = false_positives(lambda rng, seed: null_latency(rng, seed, slower=0.02, minimum=0.02), n)
    yield _row("Mann-Whitney beyond 2 %", "40 latencies each, b slower by 2 %", beyond)
    yield "\nSteps reported in series without one, in %.\n"
    yield "| noise | runs | at level 0.01 | at level 0.05 |"
    yield "|---|---|---|---|"
    for kind in NOISES:
        for n_runs in (8, 20):
            yield _row(kind, str(n_runs), alarms(kind, n_runs, 0.01, n), alarms(kind, n_runs, 0.05, n))
    yield "\nOne step at a random place of 30 runs: found alone and within one run of its place, level 0.01, in %.\n"
    yield "| height in standard deviations | found |"
    yield "|---|---|"
    for height in (2.0, 3.0, 5.0):
        yield _row(f"{height:g}", found_steps(height, n))


def _row(*cells: str | float) -> str:
    return "| " + " | ".join(f"{100 * c:.1f}" if isinstance(c, float) else c for c in cells) + " |"


def main() -> None:
    """Write the tables into the page, or print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=1000, help="simulations a row")
    parser.add_argument("--print", action="store_true", help="print instead of writing the page")
    arguments = parser.parse_args()
    text = "\n".join(tables(arguments.simulations))
    if arguments.print:
        print(text)
        return
    write_between(PAGE, (BEGIN, END), text)


def write_between(page: Path, marks: tuple[str, str], text: str) -> None:
    """Replace what a page has between two marks."""
    head, rest = page.read_text(encoding="utf-8").split(marks[0])
    _, tail = rest.split(marks[1])
    page.write_text(f"{head}{marks[0]}\n{text}\n{marks[1]}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
