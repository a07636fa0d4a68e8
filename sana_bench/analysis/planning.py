"""How many images a question takes: in a fixed design, and in rounds that stop once it is answered."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from sana_bench.analysis.compare import about
from sana_bench.core.errors import UsageError
from sana_bench.core.progress import format_seconds
from sana_bench.core.registry import METRICS, Limits
from sana_bench.core.samples import OVERALL, Prompt
from sana_bench.results.reader import RunResults, batch_seconds, read_run
from sana_bench.results.run_folder import RunFiles, open_store
from sana_bench.results.statistics.power import minimum_detectable_effect, prompts_needed
from sana_bench.results.statistics.sequential import prompts_per_round, replay
from sana_bench.results.stored_suite import StoredBenchmark
from sana_bench.suites.stop import StopSpec, chosen_question

__all__ = ["Design", "Expected", "design_lines", "plan_design"]

_RUNS, _FEWER_RUNS, _MANY_PROMPTS = 400, 100, 3000
_SEED = 0


@dataclass(frozen=True)
class Expected:
    """Images of each variant that a run in rounds takes on average, and at most in nine runs of ten; the share with a verdict."""

    images: float
    most: float
    decided: float


@dataclass(frozen=True)
class Design:
    """What it takes to tell variant `b` from `a` by a metric.

    `seen` are the prompts in the store that have all images of both variants, `spread` is the standard deviation of a prompt's
    difference within tasks, `detectable` what the suite's `n_prompts` show. `needed` prompts show `effect` in a fixed design,
    None where that is out of reach. `in_rounds` is what to expect if the variants differ by `effect`, `without` if they do not
    differ. `seconds` are those of an image of `a` and one of `b` on `device`; None where none was timed.
    """

    run: str
    benchmark: str
    metric: str
    a: str
    b: str
    images_per_prompt: int
    n_prompts: int
    seen: int
    spread: float
    detectable: float
    effect: float
    error: float
    power: float
    needed: int | None
    in_rounds: Expected
    without: Expected
    seconds: tuple[float, float] | None
    device: str


def plan_design(output: Path, suite: str, stop: StopSpec, *, power: float = 0.8) -> Design:
    """Plan the question of `stop`, of two variants, by the newest run of a suite in the store that has images of both.

    Raises `UsageError` where the store has no such run, or too few prompts of a task with all their images, and as
    `chosen_question`.
    """
    a, b = stop.compare or ("", "")
    asked = _newest(output, suite, (a, b), stop)
    images, sizes = asked.described.images_per_prompt, list(asked.sizes.values())
    centred = np.concatenate([values - values.mean() for values in asked.tasks])
    differences = centred + np.mean([values.mean() for values in asked.tasks])
    effect, range_ = stop.size(asked.limits), asked.limits.high - asked.limits.low
    in_rounds, without = (
        _expected(
            [values / range_ for values in asked.tasks],
            sizes,
            images,
            true / range_,
            effect / range_,
            stop.error,
        )
        for true in (effect, 0.0)
    )
    sides = [[one.image for one in asked.run.variant(name).samples_of(asked.benchmark)] for name in (a, b)]
    seconds = [batch_seconds(rows) for rows in sides]
    seen = minimum_detectable_effect(differences, power=power, alpha=stop.error)
    return Design(
        run=asked.run.run_id,
        benchmark=asked.benchmark,
        metric=asked.metric,
        a=a,
        b=b,
        images_per_prompt=images,
        n_prompts=sum(sizes),
        seen=len(differences),
        spread=float(centred.std(ddof=len(asked.tasks))),
        detectable=seen * sqrt(len(differences) / sum(sizes)),
        effect=effect,
        error=stop.error,
        power=power,
        needed=prompts_needed(differences, effect, power=power, alpha=stop.error),
        in_rounds=in_rounds,
        without=without,
        seconds=(median(seconds[0]), median(seconds[1])) if all(seconds) else None,
        device=" and ".join(sorted({row.device for rows in sides for row in rows if row.device})),
    )


def design_lines(design: Design) -> list[str]:
    """A design in lines for people."""
    images, total = design.images_per_prompt, design.n_prompts * design.images_per_prompt
    rate, error = f"{100 * design.power:g} % power", f"error {100 * design.error:g} %"
    fixed = "more prompts than there could be"
    if design.needed is not None:
        few = design.needed <= design.n_prompts
        more = "" if few else f"; the suite has {design.n_prompts:,}, which show {design.detectable:.3g}"
        count = design.needed * images
        fixed = f"{about(design.needed)} prompts, {count:,} images of each variant{_duration(design, count)}{more}"
    return [
        f"{design.benchmark}, {design.metric}: {design.b} against {design.a}, by {design.seen} prompts of {images} "
        f"image{'' if images == 1 else 's'} in {design.run}",
        f"a prompt's difference spreads by {design.spread:.3g} (standard deviation within tasks)",
        f"fixed design, to show {design.effect:g} with {rate}, {error}: {fixed}",
        f"in rounds (--until decided), {error}, of {total:,} images of each at most:",
        f"  if they differ by {design.effect:g}: {_told(design, design.in_rounds)}",
        f"  if they do not differ: {_told(design, design.without)}",
    ]


def _told(design: Design, found: Expected) -> str:
    return (
        f"about {found.images:,.0f} images of each on average{_duration(design, found.images)}, at most {found.most:,.0f} in "
        f"nine runs of ten; a verdict in {100 * found.decided:.0f} %"
    )


def _duration(design: Design, images: float) -> str:
    """How long so many images of both variants take, in brackets."""
    if design.seconds is None:
        return ""
    return f" (about {format_seconds(images * sum(design.seconds))} on {design.device})"


@dataclass(frozen=True)
class _Asked:
    """A question to a stored run: prompts of each task that the metric scores, and differences b - a of those that are there."""

    run: RunResults
    benchmark: str
    metric: str
    pair: tuple[str, str]

    @property
    def described(self) -> StoredBenchmark:
        return self.run.benchmarks[self.benchmark]

    @property
    def limits(self) -> Limits:
        return METRICS.entry(self.metric).find_limits() or Limits(0, 1)

    @cached_property
    def sizes(self) -> dict[str, int]:
        concerned = map(METRICS.entry(self.metric).concerns, (p.metadata for p in self._prompts))
        return dict(
            sorted(
                Counter(self._task(p) for p, yes in zip(self._prompts, concerned, strict=True) if yes).items()
            )
        )

    @cached_property
    def tasks(self) -> list[NDArray[np.float64]]:
        """The mean difference of each prompt with all its images, task by task."""
        first, second = (
            {
                one.key: one
                for one in self.run.variant(name).samples_of(self.benchmark)
                if self.metric in one.scores
            }
            for name in self.pair
        )
        by_prompt: dict[str, list[float]] = {}
        for key in first.keys() & second.keys():
            values = [side[key].scores[self.metric].value for side in (first, second)]
            by_prompt.setdefault(first[key].prompt.id, []).append(values[1] - values[0])
        found: dict[str, list[float]] = {task: [] for task in self.sizes}
        for prompt in self._prompts:
            if len(values := by_prompt.get(prompt.id, [])) == self.described.images_per_prompt:
                found[self._task(prompt)].append(float(np.mean(values)))
        return [np.array(values) for values in found.values()]

    @property
    def _prompts(self) -> list[Prompt]:
        return list(self.run.prompts[self.benchmark].values())

    def _task(self, prompt: Prompt) -> str:
        return prompt.tag if self.limits.by_task else OVERALL


def _newest(output: Path, suite: str, pair: tuple[str, str], stop: StopSpec) -> _Asked:
    """The newest run of a suite that can be planned by."""
    with open_store(output) as store:
        for run_id in reversed(store.run_ids()):
            row = store.run(run_id)
            if row is None or row["suite"] != suite:
                continue
            run = read_run(store, RunFiles(output / row["directory"]))
            if set(pair) <= set(run.variants):
                question = chosen_question(
                    stop, {name: found.metrics for name, found in run.benchmarks.items()}
                )
                asked = _Asked(run, *question, pair)
                if all(len(values) > 1 for values in asked.tasks):
                    return asked
    raise UsageError(
        f"{output}: no run of {suite} has two prompts of each task with all images of {pair[0]} and {pair[1]}, and their "
        "scores; make some first, such as with --until decided"
    )


def _expected(
    tasks: Sequence[NDArray[np.float64]],
    sizes: Sequence[int],
    images: int,
    true: float,
    effect: float,
    error: float,
) -> Expected:
    """What runs in rounds take on prompts like these, drawn with replacement and moved to a true difference."""
    rng = np.random.default_rng(_SEED)
    n_runs = _RUNS if sum(sizes) <= _MANY_PROMPTS else _FEWER_RUNS
    moved = _moved(tasks, true)
    values = np.zeros((n_runs, len(sizes), max(sizes)))
    for place, (task, size) in enumerate(zip(moved, sizes, strict=True)):
        values[:, place, :size] = rng.choice(task, size=(n_runs, size))
    per_round = prompts_per_round(len(sizes), images)
    found = replay(values, sizes, effect=effect, error=error, per_round=per_round)
    used = found.prompts * images
    return Expected(
        float(used.mean()), float(np.quantile(used, 0.9)), float(np.mean(found.verdict != "undecided"))
    )


def _moved(tasks: Sequence[NDArray[np.float64]], true: float) -> list[NDArray[np.float64]]:
    """Values moved by one step, within -1 and 1, so that the mean of the task means is `true`."""

    def mean(step: float) -> float:
        return float(np.mean([np.clip(task + step, -1, 1).mean() for task in tasks]))

    low, high = -2.0, 2.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if mean(middle) < true else (low, middle)
    return [np.clip(task + high, -1, 1) for task in tasks]
