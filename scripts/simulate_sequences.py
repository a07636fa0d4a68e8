"""Measure sequences of looks on simulated suites and write the tables into docs/statistics.md.

Usage: python scripts/simulate_sequences.py [--simulations 1000] [--print]
       python scripts/simulate_sequences.py --results results    read the pairs of micro variants anew, then simulate

`results` is an output folder with these variants of the suites `geneval` and `sana15_micro` on the micro tier, the latter run
with `--set benchmarks.0.images_per_prompt=4`. What is read is kept in reports/micro/paired_differences.json. Every draw comes
from one fixed seed, so the same command writes the same tables.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import log
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from simulate_statistics import PAGE, Layout, write_between

from sana_bench.results.statistics.intervals import t_interval, wilson_interval
from sana_bench.results.statistics.sequential import (
    ConfidenceSequence,
    e_holm,
    prompts_per_round,
    replay,
)

MARKS = "<!-- sequences: begin -->", "<!-- sequences: end -->"
PAIRS = Path(__file__).resolve().parents[1] / "reports" / "micro" / "paired_differences.json"
# Suite, and the variants whose paired differences are kept: B minus A.
READ = (
    ("geneval", "sana-micro", "sana-micro-8-steps"),
    ("sana15_micro", "sana15-micro-grown", "sana15-micro-pruned75-unrecovered"),
    ("sana15_micro", "sana15-micro-grown", "sana15-micro-grown-best-of-4"),
)
SEED, EFFECT, ERROR = 20_241, 0.02, 0.05
DIFFERENCES = (0.0, 0.01, 0.02, 0.05, 0.10)
# Prompts of GenEval's tasks.
GENEVAL = (80, 99, 80, 94, 100, 100)

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """Prompts whose images pass or fail together, and two variants that share a part of their luck.

    Half of the images show how hard their prompt is, which both variants find alike in `alike_prompts` of the prompts; the other
    half depend on the noise, which does the same to both in `alike_noise` of the images. `rates` are those of the first variant.
    """

    alike_prompts: float
    alike_noise: float
    rates: tuple[float, ...] = (0.95, 0.80, 0.62, 0.85, 0.45, 0.50)

    def draw(
        self, n_runs: int, n_prompts: int, images: int, difference: float, rng: np.random.Generator
    ) -> Numbers:
        """Differences by prompt, shape (n_runs, tasks, n_prompts); the mean of the task means is `difference` exactly."""
        rates = np.array(self.rates)
        room = rates * (1 - rates)
        other = (rates + difference * room / room.mean())[:, None, None]
        shape = (n_runs, len(rates), n_prompts, images)
        of_prompt = np.where(rng.random(shape) < 0.5, True, False)
        ease, noise = rng.random((*shape[:3], 1)), rng.random(shape)
        new_ease, new_noise = rng.random((*shape[:3], 1)), rng.random(shape)
        other_ease = np.where(rng.random((*shape[:3], 1)) < self.alike_prompts, ease, new_ease)
        other_noise = np.where(rng.random(shape) < self.alike_noise, noise, new_noise)
        first = np.where(of_prompt, ease, noise) < rates[:, None, None]
        second = np.where(of_prompt, other_ease, other_noise) < other
        return (second.astype(np.float64) - first).mean(axis=3)


# Differences of a prompt's images correlate at 0.1 in each.
WORLDS = {"5 %": World(0.94, 0.78), "12 %": World(0.85, 0.48), "22 %": World(0.75, 0.0)}
# Two tasks that vary, four that hardly do.
UNEVEN = World(0.75, 0.0, (0.99, 0.985, 0.90, 0.97, 0.50, 0.30))


def resampled(
    pair: dict[str, Any], n_runs: int, n_prompts: int, difference: float, rng: np.random.Generator
) -> Numbers:
    """Prompts of a pair of micro variants, drawn with replacement within their tasks, shape (n_runs, tasks, n_prompts).

    Each prompt has the two variants exchanged with the chance that makes the true difference `difference`.
    """
    tasks = [np.array(found) / pair["images_per_prompt"] for found in pair["tasks"].values()]
    own = float(np.mean([task.mean() for task in tasks]))
    drawn = np.stack([rng.choice(task, size=(n_runs, n_prompts)) for task in tasks], axis=1)
    kept = rng.random(drawn.shape) < (1 + difference / own) / 2
    return np.where(kept, drawn, -drawn)


def bound(values: Numbers, difference: float, missed: float) -> float:
    """Least mean number of prompts of any test that takes whole prompts and misses as seldom (Wald, 1945; normal differences).

    The best shares of the tasks are taken for known, and so is what the variants differ by if they do.
    """
    spread = values.std(axis=(0, 2)).mean()
    side, missed = ERROR / 2, max(missed, 1 / len(values))
    apart = (1 - missed) * log((1 - missed) / side) + missed * log(missed / (1 - side))
    return float(2 * (spread / difference) ** 2 * apart)


def fixed_decides(values: Numbers, sizes: Sequence[int]) -> float:
    """Share of runs that a two-sided test at 5 % over all prompts, normal as these are hundreds, tells from 0."""
    means = np.stack([values[:, task, :size].mean(axis=1) for task, size in enumerate(sizes)])
    errors = np.stack([values[:, task, :size].var(axis=1, ddof=1) / size for task, size in enumerate(sizes)])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.abs(means.mean(axis=0)) * len(sizes) / np.sqrt(errors.sum(axis=0))
    return float(np.mean(ratio > 1.96))


def stopped(label: str, values: Numbers, sizes: Sequence[int], images: int, difference: float) -> str:
    """One row of the main table."""
    n, total = len(values), sum(sizes)
    found = replay(values, sizes, effect=EFFECT, error=ERROR, per_round=prompts_per_round(len(sizes), images))
    share = {name: float(np.mean(found.verdict == name)) for name in ("better", "worse", "equivalent")}
    wrong = share["worse"] + (share["better"] if difference == 0 else 0)
    wrong += share["equivalent"] if difference >= EFFECT else 0
    range_ = wilson_interval(min(wrong, 1.0), n)
    covered = float(np.mean((found.low <= difference) & (difference <= found.high)))
    used = found.prompts / total
    tells = fixed_decides(values, sizes)
    least = bound(values, difference, 1 - tells) / total if difference and tells >= 0.8 else None
    return row(
        label, f"{100 * difference:g}", f"{percent(wrong)} [{percent(range_.low)}, {percent(range_.high)}]",
        percent(covered), percent(share["better"]) if difference else "-", percent(share["equivalent"]),
        percent(tells), f"**{100 * used.mean():.0f}**", f"{100 * np.quantile(used, 0.9):.0f}",
        "-" if least is None else f"{100 * min(least, 1):.0f}",
    )  # fmt: skip


def allocated(label: str, n_prompts: int, images: int, difference: float, n: int) -> str:
    """One row that holds Neyman's shares against even ones on the same prompts."""
    rng = np.random.default_rng((SEED, 2))
    sizes = [n_prompts] * len(UNEVEN.rates)
    values = UNEVEN.draw(n, n_prompts, images, difference, rng)
    per_round = prompts_per_round(len(sizes), images)
    even, planned = (
        replay(values, sizes, effect=EFFECT, error=ERROR, per_round=per_round, even=even)
        for even in (True, False)
    )
    bias = []
    for even_ in (True, False):
        sequence = ConfidenceSequence(sizes, effect=EFFECT, per_round=per_round, even=even_, n_runs=n)
        for _ in range(16):
            counts = sequence.next_round()
            places = np.minimum(sequence.used[:, :, None] + np.arange(counts.max()), n_prompts - 1)
            sequence.add(np.take_along_axis(values, places, axis=2))
        off = 100 * (sequence.estimate - difference)
        bias.append(f"{off.mean():+.2f} ± {1.96 * off.std() / np.sqrt(n):.2f}")
    shares = [f"{100 * found.prompts.mean() / sum(sizes):.0f}" for found in (even, planned)]
    return row(label, f"{100 * difference:g}", *shares, *bias)


def fooled(n: int) -> tuple[float, float]:
    """Share of runs without a difference in which some look claims one: at a t interval, and at the sequence."""
    rng = np.random.default_rng((SEED, 3))
    values = WORLDS["12 %"].draw(n, 80, 4, 0.0, rng)
    found = replay(values, [80] * 6, effect=EFFECT)
    wrong = 0
    for run in values:
        looks = (
            t_interval(run[:, :seen].ravel(), range(6 * seen), np.repeat(range(6), seen))
            for seen in range(4, 81, 2)
        )
        wrong += any(look.low > 0 or look.high < 0 for look in looks)
    return wrong / n, float(np.mean((found.low > 0) | (found.high < 0)))


def family(n: int) -> float:
    """Share of runs without any difference in which e-Holm claims a task, at the look where the best one looks best."""
    rng = np.random.default_rng((SEED, 4))
    values = WORLDS["12 %"].draw(n, 80, 4, 0.0, rng)
    sequence = ConfidenceSequence([80] * 6, effect=EFFECT, n_runs=n)
    best = np.zeros((n, 6))
    while (counts := sequence.next_round()).any():
        places = np.minimum(sequence.used[:, :, None] + np.arange(counts.max()), 79)
        sequence.add(np.take_along_axis(values, places, axis=2))
        now = sequence.task_e_values
        best = np.where((now.max(axis=1) > best.max(axis=1))[:, None], now, best)
    return float(np.mean([min(e_holm(row.tolist())) <= ERROR for row in best]))


def tables(n: int) -> Iterator[str]:
    """Lines of Markdown."""
    yield (
        f"{n:,} simulations a row; error {100 * ERROR:g} %, effect {100 * EFFECT:g} points, a look after every round. "
        "Images are in % of the fixed design, which is the whole suite.\n"
    )
    yield row(
        "variants", "true difference, points", "false decisions, % [95 %]", "covered, %", "better, %", "equivalent, %",
        "the fixed design tells them apart, %", "images, %", "nine runs in ten, %", "bound, %",
    )  # fmt: skip
    yield row(*["---"] * 10)
    for name, world in WORLDS.items():
        rng = np.random.default_rng((SEED, 0))
        for difference in DIFFERENCES:
            values = world.draw(n, max(GENEVAL), 4, difference, rng)
            yield stopped(f"synthetic, disagree on {name}", values, GENEVAL, 4, difference)
    for pair in json.loads(PAIRS.read_text(encoding="utf-8"))["pairs"]:
        rng, images = np.random.default_rng((SEED, 1)), pair["images_per_prompt"]
        own = abs(np.mean([np.mean(task) for task in pair["tasks"].values()]) / images)
        for difference in (each for each in DIFFERENCES if each <= own):
            values = resampled(pair, n, max(GENEVAL), difference, rng)
            yield stopped(f"{pair['b']} and {pair['a']}", values, GENEVAL, images, difference)
    yield (
        "\nWhere to look next: tasks that vary unevenly; images used, and how far the estimate is off after 16 rounds, "
        "in points.\n"
    )
    yield row(
        "prompts", "true difference, points", "images, even shares, %", "images, Neyman's shares, %",
        "off by, even shares", "off by, Neyman's shares",
    )  # fmt: skip
    yield row(*["---"] * 6)
    yield allocated(str(Layout(6, 100, 4)), 100, 4, 0.03, n)
    yield allocated(str(Layout(6, 500, 4)), 500, 4, 0.02, n // 2)
    yield allocated(str(Layout(6, 1000, 2)), 1000, 2, 0.02, n // 4)
    few = n // 4
    once, always = fooled(few)
    yield f"\nNo difference, {Layout(6, 80, 4)}, {few:,} simulations: some look claims one.\n"
    yield row("looked at", "of the runs, %")
    yield row(*["---"] * 2)
    yield row("the 95 % t interval, made for one look, at 39 looks", percent(once))
    yield row("the sequence, at every round", percent(always))
    yield row("e-Holm on the six tasks, at the look that suits it best", percent(family(few)))


def percent(share: float) -> str:
    """A share with one digit after the point, in %."""
    return f"{100 * share:.1f}"


def row(*cells: str) -> str:
    """A row of a table."""
    return f"| {' | '.join(cells)} |"


def read_pairs(output: Path) -> dict[str, Any]:
    """Sums over images of the paired differences of GenEval, by task and prompt, from complete runs."""
    from sana_bench.core.errors import IncompleteError
    from sana_bench.results.reader import load_run

    pairs = []
    for suite, a, b in READ:
        run = load_run(output, suite)
        sides = []
        for name in (a, b):
            variant = run.variant(name)
            number = variant.overall("geneval").get("geneval")
            if number is None or not number.complete:
                raise IncompleteError(f"{suite}: {name} has no complete number of geneval")
            sides.append({one.key: one for one in variant.samples_of("geneval")})
        tasks: dict[str, dict[str, int]] = {}
        for key, one in sides[0].items():
            values = [int(side[key].scores["geneval"].value) for side in sides]
            by_prompt = tasks.setdefault(one.prompt.tag, {})
            by_prompt[one.prompt.id] = by_prompt.get(one.prompt.id, 0) + values[1] - values[0]
        images = run.benchmarks["geneval"].images_per_prompt
        found = {
            task: [by_prompt[key] for key in sorted(by_prompt)] for task, by_prompt in sorted(tasks.items())
        }
        pairs.append({"a": a, "b": b, "suite": suite, "images_per_prompt": images, "tasks": found})
    return {"metric": "geneval/micro@1", "pairs": pairs}


def main() -> None:
    """Write the tables into the page, or print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=1000, help="simulations a row")
    parser.add_argument(
        "--results", type=Path, help="output folder to read the micro variants' differences from"
    )
    parser.add_argument("--print", action="store_true", help="print instead of writing the page")
    arguments = parser.parse_args()
    if arguments.results is not None:
        PAIRS.write_text(json.dumps(read_pairs(arguments.results)) + "\n", encoding="utf-8")
    text = "\n".join(tables(arguments.simulations))
    (print if arguments.print else partial(write_between, PAGE, MARKS))(text)


if __name__ == "__main__":
    main()
