"""Two variants side by side: what differs, by how much, how surely, and what that means."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sana_bench.analysis.comparison import Comparison, Flip, MetricComparison, Verdict
from sana_bench.analysis.contributions import contributions
from sana_bench.core.registry import MEASURED
from sana_bench.core.samples import OVERALL
from sana_bench.metrics.fid.compare import NotMeasuredError, compare_sets
from sana_bench.profiling.identity import comparable
from sana_bench.results.reader import RunResults, SampleResult, VariantResults
from sana_bench.results.schema import SummaryRecord
from sana_bench.results.statistics import holm
from sana_bench.results.statistics.effect import Effect
from sana_bench.results.statistics.latency import compare_latency
from sana_bench.results.statistics.paired import compare_means, compare_proportions
from sana_bench.results.statistics.power import cluster_differences, minimum_detectable_effect, prompts_needed

__all__ = ["Selected", "about", "compare_variants", "compare_with_first", "configuration_difference"]

Selected = tuple[RunResults, VariantResults]


def compare_variants(
    a: Selected,
    b: Selected,
    *,
    alpha: float = 0.05,
    seed: int = 0,
    minimum_latency_effect: float = 0.02,
    sizes: Mapping[str, float] | None = None,
) -> Comparison:
    """Compare two variants metric by metric, paired by benchmark, prompt and sample index.

    `sizes` are the differences that matter, by metric and in its units: rows say how many prompts would show them.
    """
    sizes = sizes or {}
    names = dict.fromkeys(
        (row.benchmark, row.metric)
        for row in (*a[1].summaries, *b[1].summaries)
        if row.key == OVERALL and row.metric not in MEASURED
    )
    looked = [one.last for one in a[0].sequences if {a[1].name, b[1].name} <= set(one.variants)]
    names |= dict.fromkeys((look.benchmark, look.metric) for look in looked)
    rows: list[MetricComparison] = []
    flips: list[Flip] = []
    for benchmark, metric in names:
        compared = _compare_metric(_Question((a, b), benchmark, metric, alpha, seed, sizes.get(metric)))
        rows += compared
        if compared[0].effect is not None:
            flips += _flips(_pairs(a[1], b[1], benchmark), metric)
    rows.append(_compare_latency(a[1], b[1], alpha, seed, minimum_latency_effect))
    marks = [" (rewritten prompts)" if variant.described.rewritten else "" for _, variant in (a, b)]
    labels = [
        f"{run.run_id}:{variant.name}{mark}" for (run, variant), mark in zip((a, b), marks, strict=True)
    ]
    flips.sort(key=lambda flip: (not flip.lost, flip.benchmark, flip.prompt_id, flip.index))
    return Comparison(
        labels[0],
        labels[1],
        configuration_difference(a[1].described.settings, b[1].described.settings),
        rows,
        flips,
    )


def compare_with_first(run: RunResults, *, sizes: Mapping[str, float] | None = None) -> list[Comparison]:
    """Compare every other variant of a run with its first, in the order of the suite; `sizes` as for `compare_variants`."""
    first, *others = run.variants.values()
    return [compare_variants((run, first), (run, other), sizes=sizes) for other in others]


def configuration_difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the dotted keys whose values differ; None stands for a key that is absent."""
    first, second = dict(_flat(a)), dict(_flat(b))
    keys = dict.fromkeys((*first, *second))
    return {key: (first.get(key), second.get(key)) for key in keys if first.get(key) != second.get(key)}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in settings.items():
        nested = isinstance(value, Mapping)
        found += _flat(value, f"{prefix}{key}.") if nested else [(f"{prefix}{key}", value)]
    return found


@dataclass(frozen=True)
class _Question:
    """One metric of one benchmark on two sides, and how a difference is to be judged."""

    sides: tuple[Selected, Selected]
    benchmark: str
    metric: str
    alpha: float
    seed: int
    matters: float | None

    @property
    def summaries(self) -> tuple[SummaryRecord | None, SummaryRecord | None]:
        """The overall numbers of both sides."""
        first, second = (variant.overall(self.benchmark).get(self.metric) for _, variant in self.sides)
        return first, second

    @property
    def labels(self) -> tuple[str, str]:
        """What the sides are called in a reason."""
        return _labels(*(variant for _, variant in self.sides))

    @property
    def higher_is_better(self) -> bool:
        """The direction of better, by whichever side has the metric."""
        return next((row.higher_is_better for row in self.summaries if row is not None), True)

    def unanswered(self, verdict: Verdict, reason: str) -> MetricComparison:
        """The row where no difference can be told."""
        a, b = (None if row is None else row.value for row in self.summaries)
        return MetricComparison(
            self.benchmark, self.metric, OVERALL, a, b, self.higher_is_better, verdict, reason
        )

    def answered(self, values: tuple[float, float], effect: Effect, p_value: float) -> MetricComparison:
        """The row of a difference, judged by its corrected p value."""
        verdict = _verdict(effect.difference, p_value, self.higher_is_better, self.alpha)
        return MetricComparison(
            self.benchmark, self.metric, OVERALL, *values, self.higher_is_better, verdict, "", effect, p_value
        )


def _stopped_early(asked: _Question) -> str:
    """What a sequence of the two variants says, if that is why one of them has no number."""
    (run, a), (_, b) = asked.sides
    found = [
        one.finding
        for one in run.sequences
        if one.answered and {a.name, b.name} == set(one.variants) and one.last.metric == asked.metric
    ]
    return found[-1] if found else ""


def _labels(a: VariantResults, b: VariantResults) -> tuple[str, str]:
    """The names of two variants, or A and B where one variant is compared in two runs."""
    return (a.name, b.name) if a.name != b.name else ("A", "B")


def _pairs(a: VariantResults, b: VariantResults, benchmark: str) -> list[tuple[SampleResult, SampleResult]]:
    second = {sample.key: sample for sample in b.samples_of(benchmark)}
    return [(s, second[s.key]) for s in a.samples_of(benchmark) if s.key in second]


def _obstacle(asked: _Question, first: SummaryRecord, second: SummaryRecord) -> str:
    """Say why two summaries must not be compared; empty when they may be."""
    a, b = asked.sides
    benchmark = first.benchmark
    if a[0].suite.tier != b[0].suite.tier:
        return f"different tiers: {a[0].suite.tier} and {b[0].suite.tier}"
    if first.protocol != second.protocol:
        return f"different protocols: {first.protocol} and {second.protocol}"
    if first.metric_key != second.metric_key:
        identities = [side[1].identities.get(row.metric_key, {}) for side, row in ((a, first), (b, second))]
        differing = ", ".join(configuration_difference(*identities)) or "unknown"
        return f"different metric identities: {differing}"
    for label, row in zip(asked.labels, (first, second), strict=True):
        if not row.complete:
            return f"incomplete: {label} has {row.n_samples}/{row.n_expected} images"
    if a[0].suite.seed != b[0].suite.seed:
        return f"not paired by seed: suite seeds {a[0].suite.seed} and {b[0].suite.seed}"
    described = [run.benchmarks[benchmark] for run, _ in (a, b)]
    if described[0].prompts_sha256 != described[1].prompts_sha256:
        return "different prompts"
    if described[0].images_per_prompt != described[1].images_per_prompt:
        return "different numbers of images per prompt"
    return ""


def _compare_metric(asked: _Question) -> list[MetricComparison]:
    benchmark, metric = asked.benchmark, asked.metric
    first, second = asked.summaries
    stopped = _stopped_early(asked)
    if stopped and (first is None or second is None):
        return [asked.unanswered("not measured", f"stopped early: {stopped}")]
    if first is None or second is None:
        return [asked.unanswered("not measured", f"{asked.labels[first is not None]} has no score")]
    if reason := _obstacle(asked, first, second):
        return [asked.unanswered("not comparable", reason)]
    pairs = _pairs(asked.sides[0][1], asked.sides[1][1], benchmark)
    if not any(metric in x.scores or metric in y.scores for x, y in pairs):
        return [_compare_set(asked, first, second, pairs)]
    pairs = [(x, y) for x, y in pairs if metric in x.scores and metric in y.scores]
    needed = max(first.n_samples, second.n_samples)
    if len(pairs) < needed:
        reason = f"only {len(pairs)} of {needed} images have scores on both sides"
        return [asked.unanswered("not measured", reason)]
    tags = list(dict.fromkeys(x.prompt.tag for x, _ in pairs))
    groups = [(OVERALL, pairs), *((tag, [p for p in pairs if p[0].prompt.tag == tag]) for tag in tags)]
    if len(tags) < 2:
        groups = groups[:1]
    effects = [_paired_effect(group, metric, asked.seed) for _, group in groups]
    adjusted = [effects[0][0].p_value, *holm([effect.p_value for effect, _ in effects[1:]])]
    rows = [
        replace(
            asked.answered(_means(group, metric), effect, p_value), key=key, detectable=_detectable(spread)
        )
        for (key, group), (effect, spread), p_value in zip(groups, effects, adjusted, strict=True)
    ]
    return [_with_prompts_needed(rows[0], effects[0][1], asked.matters), *rows[1:]]


def _paired_effect(
    pairs: list[tuple[SampleResult, SampleResult]], metric: str, seed: int
) -> tuple[Effect, NDArray[np.float64]]:
    """The effect, and the differences by prompt that it is the mean of."""
    a, b = (np.array(contributions(metric, [pair[side] for pair in pairs])) for side in (0, 1))
    clusters = [x.prompt.id for x, _ in pairs]
    binary = _is_verdict(pairs, metric)
    # Pass rates are means of task rates, as the official GenEval aggregates them; scores are plain means.
    strata = [x.prompt.tag for x, _ in pairs] if binary else None
    compare = compare_proportions if binary else compare_means
    effect = compare(a, b, clusters, strata, seed=seed)
    return effect, cluster_differences(a, b, clusters, strata)


def _detectable(differences: NDArray[np.float64]) -> float | None:
    return minimum_detectable_effect(differences) if len(differences) > 1 else None


def _with_prompts_needed(
    row: MetricComparison, differences: NDArray[np.float64], matters: float | None
) -> MetricComparison:
    if matters is None or len(differences) < 2:
        return row
    needed = prompts_needed(differences, matters)
    reason = row.reason
    if row.verdict == "no evidence" and needed is not None and needed > len(differences):
        reason = f"{about(needed)} prompts would show a change of {matters:g}"
    return replace(row, matters=matters, prompts_needed=needed, reason=reason)


def about(number: int) -> str:
    """A number of prompts in words, rounded up to two digits: it is an estimate."""
    step = 10 ** max(len(str(number)) - 2, 0)
    return f"about {-(-number // step) * step:,}"


def _is_verdict(pairs: list[tuple[SampleResult, SampleResult]], metric: str) -> bool:
    return all(
        s.scores[metric].value in (0, 1) and "correct" in s.scores[metric].details for p in pairs for s in p
    )


def _means(pairs: list[tuple[SampleResult, SampleResult]], metric: str) -> tuple[float, float]:
    """A metric's number on either side: pass rates are means over tasks, scores are plain means."""
    by_task = _is_verdict(pairs[:1], metric)
    means = []
    for side in (0, 1):
        by_tag: dict[str, list[float]] = {}
        for pair, value in zip(pairs, contributions(metric, [pair[side] for pair in pairs]), strict=True):
            tag = pair[0].prompt.tag if by_task else ""
            by_tag.setdefault(tag, []).append(value)
        means.append(float(np.mean([np.mean(values) for values in by_tag.values()])))
    return means[0], means[1]


def _verdict(difference: float, p_value: float, higher_is_better: bool, alpha: float) -> Verdict:
    if p_value >= alpha or difference == 0:
        return "no evidence"
    return "better" if (difference > 0) == higher_is_better else "worse"


def _compare_set(
    asked: _Question,
    first: SummaryRecord,
    second: SummaryRecord,
    pairs: list[tuple[SampleResult, SampleResult]],
) -> MetricComparison:
    """Compare distances between sets of images."""
    (run_a, a), (run_b, b) = asked.sides
    identity = a.identities[first.metric_key]
    given = [variant.evidence.get((asked.benchmark, asked.metric)) for variant in (a, b)]
    try:
        effect = compare_sets(
            (run_a, run_b), identity, (first, second), pairs, asked.seed, (given[0], given[1])
        )
    except NotMeasuredError as reason:
        return asked.unanswered("not measured", str(reason))
    return asked.answered((first.value, second.value), effect, effect.p_value)


def _compare_latency(
    a: VariantResults, b: VariantResults, alpha: float, seed: int, minimum_effect: float
) -> MetricComparison:
    first, second = _measured(a), _measured(b)
    if first is not None and second is not None:
        return _compare_measured((a, first), (b, second), alpha, seed, minimum_effect)
    times = [variant.batch_ms for variant in (a, b)]
    medians = [float(np.median(found)) if found else None for found in times]
    judged = partial(MetricComparison, "", "latency", OVERALL, medians[0], medians[1], False)
    if not times[0] or not times[1]:
        sides = zip(_labels(a, b), (a, b), strict=True)
        existing = [label for label, variant in sides if not variant.described.generates]
        why = f"the images of {' and '.join(existing)} existed already" if existing else "no times per image"
        return judged("not measured", why)
    for what in ("device", "batch_size"):
        found = [sorted({str(getattr(s.image, what)) for s in v.samples if s.image.seconds}) for v in (a, b)]
        if found[0] != found[1]:
            reason = f"different {what.replace('_', ' ')}: {', '.join(found[0])} and {', '.join(found[1])}"
            return judged("not comparable", reason)
    # One variant after the other: what the machine did meanwhile would be taken for a difference between them.
    return judged("not measured", "these times were not taken in turns; the latency benchmark takes them so")


def _measured(variant: VariantResults) -> SummaryRecord | None:
    """The summary of times that the latency benchmark took."""
    return next((row for row in variant.summaries if row.metric == "latency"), None)


def _compare_measured(
    a: tuple[VariantResults, SummaryRecord],
    b: tuple[VariantResults, SummaryRecord],
    alpha: float,
    seed: int,
    minimum_effect: float,
) -> MetricComparison:
    """Compare times of the latency benchmark: one image at a time, warm, variants in turns where they share a run."""
    times = [
        [s.scores["latency"].value for s in variant.samples if "latency" in s.scores] for variant, _ in (a, b)
    ]
    medians = [float(np.median(found)) if found else None for found in times]
    judged = partial(MetricComparison, "latency", "latency", OVERALL, medians[0], medians[1], False)
    if not times[0] or not times[1]:
        return judged("not measured", "no timed images")
    identities = [comparable(variant.identities[row.metric_key]) for variant, row in (a, b)]
    for key in dict.fromkeys(name for identity in identities for name in identity):
        found = [str(identity.get(key)) for identity in identities]
        if found[0] != found[1]:
            return judged("not comparable", f"different {key.replace('_', ' ')}: {found[0]} and {found[1]}")
    for _, row in (a, b):
        if not row.complete:
            return judged("not comparable", f"incomplete: {row.n_samples}/{row.n_expected} images timed")
    effect = compare_latency(times[0], times[1], minimum_effect=minimum_effect, seed=seed)
    verdict = _verdict(effect.difference, effect.p_value, False, alpha)
    return judged(verdict, "one image at a time, warm", effect, effect.p_value)


def _flips(pairs: list[tuple[SampleResult, SampleResult]], metric: str) -> list[Flip]:
    found = []
    for x, y in pairs:
        if metric not in x.scores or metric not in y.scores:
            continue
        passed = [side.scores[metric].details.get("correct") for side in (x, y)]
        if None in passed or passed[0] == passed[1]:
            continue
        found.append(
            Flip(
                x.benchmark, metric, x.prompt.id, x.index, x.prompt.text, bool(passed[0]),
                x.sample.image_path, y.sample.image_path,
            )
        )  # fmt: skip
    return found
