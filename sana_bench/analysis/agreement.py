"""What the metrics of a run agree on: over prompts, over variants, image by image, and with the truth where it is known."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sana_bench.analysis.known_truth import drawn_images, right_answers
from sana_bench.core.errors import UsageError
from sana_bench.core.plain import plain
from sana_bench.core.samples import OVERALL
from sana_bench.micro.rendered import Drawn
from sana_bench.results.reader import RunResults, SampleResult
from sana_bench.results.statistics.intervals import Interval, clustered_proportion
from sana_bench.results.statistics.ranks import RankCorrelation, correlate_prompts, correlate_variants

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Agreement", "Disagreement", "MetricPair", "TruthRate", "find_agreement"]

Values = NDArray[np.float64]


@dataclass(frozen=True)
class MetricPair:
    """How far two metrics of a benchmark put prompts, and variants, in the same order; better first for both.

    `n_prompts` have an image with both scores in each of `n_variants` variants.
    """

    benchmark: str
    a: str
    b: str
    prompts: RankCorrelation
    variants: RankCorrelation
    n_prompts: int
    n_variants: int


@dataclass(frozen=True)
class Disagreement:
    """An image that one metric puts far higher than the other among all images of the benchmark.

    Ranks are shares: 0 is the worst image, 1 the best.
    """

    benchmark: str
    a: str
    b: str
    variant: str
    prompt_id: str
    index: int
    prompt: str
    image: Path
    value_a: float
    value_b: float
    rank_a: float
    rank_b: float


@dataclass(frozen=True)
class TruthRate:
    """How often a metric is right on images of the renderer, with the interval over prompts.

    `kind` is `answers`, the share of its answers that agree with what is shown, or `pairs`: of two images of a prompt, one as
    asked and one with a mistake, the share in which the first scores higher, ties counting half.
    """

    benchmark: str
    metric: str
    protocol: str
    kind: str
    rate: Interval
    n: int
    n_prompts: int


@dataclass(frozen=True)
class Agreement:
    """All that was found of a run; `left_out` are sentences on what could not be compared."""

    run_id: str
    tier: str
    pairs: list[MetricPair]
    disagreements: list[Disagreement]
    truth: list[TruthRate]
    left_out: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON holds it: paths as text, a number that does not exist as None."""
        found: dict[str, Any] = plain(self)
        return found

    def table(self) -> "pd.DataFrame":
        """Two rows a pair of metrics, over prompts and over variants.

        benchmark, a, b, over, for Kendall's tau and Spearman's rho the value and its 95 % interval, and the number of things.
        """
        import pandas as pd

        rows = [
            {"benchmark": pair.benchmark, "a": pair.a, "b": pair.b, "over": over}
            | {
                f"{name}{bound}": getattr(getattr(found, name), bound.removeprefix("_") or "value")
                for name in ("kendall", "spearman")
                for bound in ("", "_low", "_high")
            }
            | {"n": found.n}
            for pair in self.pairs
            for over, found in (("prompts", pair.prompts), ("variants", pair.variants))
        ]
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        from sana_bench.analysis.agreement_text import as_page
        from sana_reports import agreement_text

        return agreement_text(as_page(self))

    def _repr_html_(self) -> str:
        from sana_reports.notebook import section

        return section([f"What metrics agree on: {self.run_id}, {self.tier} tier"], self.table())


def find_agreement(run: RunResults, most: int = 8) -> Agreement:
    """Compare the metrics of a run that score single images, benchmark by benchmark, with up to `most` images a pair.

    Raises `UsageError` for a run without two such metrics on one benchmark and without images of known truth.
    """
    pairs: list[MetricPair] = []
    disagreements: list[Disagreement] = []
    truth: list[TruthRate] = []
    left_out: list[str] = []
    for benchmark in run.benchmarks:
        samples = [one for variant in run.variants.values() for one in variant.samples_of(benchmark)]
        drawn = list(drawn_images(run, benchmark))
        metrics = _metrics(run, benchmark)
        scored = {metric for one in samples for metric in one.scores}
        left_out += [f"{benchmark}: {name} scores no single images" for name in metrics if name not in scored]
        names = [metric for metric in metrics if metric in scored]
        for metric in names:
            truth += _truth_rates(metrics[metric], drawn, run.suite.seed)
        for a, b in combinations(names, 2):
            signs = metrics[a].sign, metrics[b].sign
            pair = _pair(run, benchmark, (a, b), signs)
            if pair is None:
                left_out.append(f"{benchmark}: no prompt has images with both {a} and {b}")
                continue
            pairs.append(pair)
            disagreements += _disagreements(samples, (a, b), signs, most)
    if not pairs and not truth:
        raise UsageError(
            f"{run.run_id}: nothing to compare: no benchmark has two metrics that score single images, and no variant is of "
            "the renderer"
        )
    return Agreement(run.run_id, run.suite.tier, pairs, disagreements, truth, left_out)


@dataclass(frozen=True)
class _Metric:
    name: str
    protocol: str
    sign: int


def _metrics(run: RunResults, benchmark: str) -> dict[str, _Metric]:
    """The metrics of a benchmark by name; `sign` is 1 where higher is better and -1 where lower is."""
    return {
        row.metric: _Metric(row.metric, row.protocol, 1 if row.higher_is_better else -1)
        for row in run.summaries
        if row.benchmark == benchmark and row.key == OVERALL
    }


def _pair(
    run: RunResults, benchmark: str, names: tuple[str, str], signs: tuple[int, int]
) -> MetricPair | None:
    """None where no prompt has images with both scores in each of the variants that have any."""
    means: list[dict[str, tuple[float, float]]] = []
    for variant in run.variants.values():
        found: dict[str, list[tuple[float, float]]] = {}
        for one in _with_both(variant.samples_of(benchmark), names):
            found.setdefault(one.prompt.id, []).append(_oriented(one, names, signs))
        if found:
            means.append(
                {prompt: tuple(np.mean(values, axis=0).tolist()) for prompt, values in found.items()}
            )
    shared = sorted(set.intersection(*(set(of_variant) for of_variant in means))) if means else []
    if not shared:
        return None
    a, b = ([[of_variant[prompt][side] for prompt in shared] for of_variant in means] for side in (0, 1))
    seed = run.suite.seed
    return MetricPair(
        benchmark,
        *names,
        correlate_prompts(a, b, seed=seed),
        correlate_variants(a, b, seed=seed),
        len(shared),
        len(means),
    )


def _with_both(samples: Sequence[SampleResult], names: tuple[str, str]) -> Iterator[SampleResult]:
    return (one for one in samples if all(name in one.scores for name in names))


def _oriented(one: SampleResult, names: tuple[str, str], signs: tuple[int, int]) -> tuple[float, float]:
    a, b = (sign * one.scores[name].value for name, sign in zip(names, signs, strict=True))
    return a, b


def _disagreements(
    samples: Sequence[SampleResult], names: tuple[str, str], signs: tuple[int, int], most: int
) -> list[Disagreement]:
    """The images with the largest difference of ranks, one a prompt."""
    both = list(_with_both(samples, names))
    if len(both) < 2:
        return []
    values = np.array([_oriented(one, names, signs) for one in both])
    ranks = np.stack([_rank_shares(values[:, side]) for side in (0, 1)], axis=1)
    found: dict[str, Disagreement] = {}
    for place in np.argsort(-np.abs(ranks[:, 0] - ranks[:, 1]), kind="stable"):
        one, (rank_a, rank_b) = both[place], ranks[place].tolist()
        if len(found) == most or rank_a == rank_b:
            break
        found.setdefault(
            one.prompt.id,
            Disagreement(
                one.benchmark,
                *names,
                one.sample.variant,
                one.prompt.id,
                one.index,
                one.prompt.text,
                one.sample.image_path,
                one.scores[names[0]].value,
                one.scores[names[1]].value,
                rank_a,
                rank_b,
            ),
        )
    return list(found.values())


def _rank_shares(values: Values) -> Values:
    """Mid-ranks from 0 to 1."""
    ordered = np.sort(values)
    below, up_to = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
    return (below + up_to - 1) / 2 / (len(values) - 1)


def _truth_rates(metric: _Metric, drawn: Sequence[tuple[SampleResult, Drawn]], seed: int) -> list[TruthRate]:
    answers: list[tuple[float, str]] = []
    scores: dict[str, tuple[list[float], list[float]]] = {}
    benchmark = ""
    for one, shown in drawn:
        if metric.name in one.scores:
            benchmark = one.benchmark
            answers += [(float(right), one.prompt.id) for right in right_answers(one, shown, metric.name)]
            wrong_right = scores.setdefault(one.prompt.id, ([], []))
            wrong_right[int(shown.as_asked)].append(metric.sign * one.scores[metric.name].value)
    compared = [
        (float(np.mean(_wins(np.array(wrong), np.array(right)))), prompt, len(wrong) * len(right))
        for prompt, (wrong, right) in sorted(scores.items())
        if wrong and right
    ]
    found = []
    if answers:
        found.append(("answers", [row[0] for row in answers], [row[1] for row in answers], len(answers)))
    if compared:
        n_pairs = sum(row[2] for row in compared)
        found.append(("pairs", [row[0] for row in compared], [row[1] for row in compared], n_pairs))
    return [
        TruthRate(
            benchmark,
            metric.name,
            metric.protocol,
            kind,
            clustered_proportion(outcomes, prompts, seed=seed),
            n,
            len(set(prompts)),
        )
        for kind, outcomes, prompts, n in found
    ]


def _wins(wrong: Values, right: Values) -> Values:
    difference = right[:, None] - wrong
    return (difference > 0) + 0.5 * (difference == 0)
