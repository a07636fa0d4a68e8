"""What a variant costs beside what it gains over the one it was made from: the numbers of the scaling tables and plots."""

from collections.abc import Mapping
from math import isclose, nan

from sana_bench.analysis.contributions import contributions
from sana_bench.profiling.identity import PROTOCOLS
from sana_bench.results.reader import RunResults, SampleResult, VariantResults
from sana_bench.results.schema import ImageRow
from sana_bench.results.statistics.paired import compare_means, compare_proportions
from sana_reports import Gain, ImageCost

__all__ = ["Gains", "Scores", "image_cost", "metric_scores", "paired_gain", "run_gains"]

_TEXT = "text encoder"
_SEARCH = ("images", "generation_seconds", "judge_seconds", "generation_flops", "judge_flops")


#: Scored samples of one benchmark, by prompt id and sample index.
Scores = Mapping[tuple[str, int], SampleResult]
#: By variant, benchmark and metric.
Gains = Mapping[tuple[str, str, str], Gain]


def image_cost(variant: VariantResults, benchmark: str, flops: Mapping[str, int] | None) -> ImageCost | None:
    """What one delivered image of a variant costs on one benchmark, from its images as recorded; None without any.

    `flops` are those of one image by stage, of one candidate for a search. A search encodes its prompt once. The
    cost of searches made by older versions, which did not store it, counts as not recorded.
    """
    done = {one.sample.place: one.image for one in variant.samples_of(benchmark)}
    if not done:
        return None
    devices = ", ".join(sorted({row.device for row in done.values() if row.device}))
    if (keep := variant.described.winners_a_search) is not None:
        return _search_cost(done, keep, flops, devices)
    timed = [row.seconds for row in done.values() if row.seconds]
    return ImageCost(
        n_images=len(done),
        n_delivered=len(done),
        generated=1.0,
        generation_s=sum(timed) / len(timed) if timed else None,
        generation_flops=float(sum(flops.values())) if flops else None,
        device=devices,
    )


def _search_cost(
    done: Mapping[tuple[str, int], ImageRow], keep: int, flops: Mapping[str, int] | None, devices: str
) -> ImageCost | None:
    heads = [done.get((prompt, index - index % keep)) for prompt, index in done]
    n_images = sum(head is not None and head.search is not None for head in heads)
    searches = [row.search for row in done.values() if row.search is not None]
    if not n_images:
        return None
    total = {name: sum(search.get(name, 0.0) for search in searches) for name in _SEARCH}
    counted = total["generation_flops"]
    if flops:
        text = flops.get(_TEXT, 0)
        counted = text * len(searches) + (sum(flops.values()) - text) * total["images"]
    return ImageCost(
        n_images=n_images,
        n_delivered=len(done),
        generated=total["images"] / n_images,
        generation_s=total["generation_seconds"] / n_images,
        judge_s=total["judge_seconds"] / n_images,
        generation_flops=counted / n_images or None,
        judge_flops=total["judge_flops"] / n_images or None,
        device=devices,
    )


def metric_scores(variant: VariantResults, benchmark: str, metric: str) -> Scores:
    """The samples of a benchmark that a metric scored; empty for a metric that has no scores of single images."""
    return {one.sample.place: one for one in variant.samples_of(benchmark) if metric in one.scores}


def paired_gain(over: str, metric: str, scores: tuple[Scores, Scores], difference: float) -> Gain:
    """The gain `difference` of a summary with its paired bootstrap interval over prompts.

    `scores` are those of the variant `over` and of the one made from it. Without bounds where the scores of single images are
    not of the same samples, or do not average to the summary.
    """
    bare = Gain(over=over, difference=difference, low=nan, high=nan)
    base, own = scores
    if not own or base.keys() != own.keys():
        return bare
    keys = sorted(own)
    verdicts = all(_is_verdict(one, metric) for side in scores for one in side.values())
    # As `sana-bench compare` does: pass rates are means of task rates, scores plain means. Some scores are means of tasks too.
    compare = compare_proportions if verdicts else compare_means
    tags = [own[key].prompt.tag for key in keys]
    for strata in (tags, None) if verdicts else (None, tags):
        effect = compare(
            contributions(metric, [base[key] for key in keys]),
            contributions(metric, [own[key] for key in keys]),
            [prompt for prompt, _ in keys],
            strata,
            seed=0,
        )
        # Both sides are float64 means of the same few thousand values.
        if isclose(effect.difference, difference, rel_tol=1e-9, abs_tol=1e-9):
            return Gain(over=over, difference=difference, low=effect.low, high=effect.high)
    return bare


def _is_verdict(one: SampleResult, metric: str) -> bool:
    score = one.scores[metric]
    return score.value in (0, 1) and "correct" in score.details


def run_gains(run: RunResults) -> Gains:
    """Gains of a run by (variant, benchmark, metric), for every complete number whose base is in the run and complete."""
    gains = {}
    for variant in run.variants.values():
        base = run.variants.get(variant.described.derived_from)
        if base is None:
            continue
        for benchmark in run.benchmarks:
            before = base.overall(benchmark)
            for metric, row in variant.overall(benchmark).items():
                first = before.get(metric)
                if metric in PROTOCOLS or first is None or not (row.complete and first.complete):
                    continue
                if first.metric_key == row.metric_key:
                    scores = [metric_scores(side, benchmark, metric) for side in (base, variant)]
                    gains[variant.name, benchmark, metric] = paired_gain(
                        base.name, metric, (scores[0], scores[1]), row.value - first.value
                    )
    return gains
