"""What a variant costs beside what it gains over the one it was made from: the numbers of the scaling tables and plots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isclose, nan
from typing import Any

from sana_bench.core.samples import Prompt
from sana_bench.profiling.identity import PROTOCOLS
from sana_bench.results.schema import ImageRow, SummaryRecord
from sana_bench.results.statistics.paired import compare_means, compare_proportions
from sana_bench.results.store import Store
from sana_reports import Gain, ImageCost

__all__ = ["ImageScore", "image_cost", "image_scores", "paired_gain", "run_gains"]

OVERALL = "overall"
_TEXT = "text encoder"
_SEARCH = ("images", "generation_seconds", "judge_seconds", "generation_flops", "judge_flops")


@dataclass(frozen=True)
class ImageScore:
    """A metric's value of one image; `is_verdict` for right or wrong."""

    tag: str
    value: float
    is_verdict: bool


#: Scores by prompt id and sample index.
Scores = Mapping[tuple[str, int], ImageScore]


def image_cost(
    described: Mapping[str, Any], rows: Sequence[ImageRow], flops: Mapping[str, int] | None
) -> ImageCost | None:
    """What one delivered image of a variant costs on one benchmark, from its images as recorded; None without any.

    `flops` are those of one image by stage, of one candidate for a search. A search encodes its prompt once. Searches of before
    their cost was stored count as not recorded.
    """
    done = {(row.prompt_id, row.index): row for row in rows if row.status == "ok"}
    if not done:
        return None
    devices = ", ".join(sorted({row.device for row in done.values() if row.device}))
    if described.get("best_of_n"):
        return _search_cost(done, int(described["best_of_n"]["keep"]), flops, devices)
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


def image_scores(
    store: Store, row: SummaryRecord, prompts: Mapping[str, Prompt], images_per_prompt: int
) -> dict[tuple[str, int], ImageScore]:
    """The stored scores behind a summary; empty for a metric that has none of single images."""
    images = [
        image
        for image in store.images(row.image_key).values()
        if image.status == "ok" and image.prompt_id in prompts and image.index < images_per_prompt
    ]
    judged = {prompt.id: prompt.judged_sha256 for prompt in prompts.values()}
    records = store.scores(row.metric_key, (str(image.sha256) for image in images))
    found = {}
    for image in images:
        record = records.get((str(image.sha256), judged[image.prompt_id]))
        if record is not None:
            is_verdict = record.value in (0, 1) and "correct" in record.details
            tag = prompts[image.prompt_id].tag
            found[image.prompt_id, image.index] = ImageScore(tag, record.value, is_verdict)
    return found


def paired_gain(over: str, base: Scores, own: Scores, difference: float) -> Gain:
    """The gain `difference` of a summary with its paired bootstrap interval over prompts.

    Without bounds where the scores of single images are not of the same samples, or do not average to the summary.
    """
    bare = Gain(over=over, difference=difference, low=nan, high=nan)
    if not own or base.keys() != own.keys():
        return bare
    keys = sorted(own)
    verdicts = all(score.is_verdict for scores in (base, own) for score in scores.values())
    # As `sana-bench compare` does: pass rates are means of task rates, scores plain means. Some scores are means of tasks too.
    compare = compare_proportions if verdicts else compare_means
    tags = [own[key].tag for key in keys]
    for strata in (tags, None) if verdicts else (None, tags):
        effect = compare(
            [base[key].value for key in keys],
            [own[key].value for key in keys],
            [prompt for prompt, _ in keys],
            strata,
            seed=0,
        )
        # Both sides are float64 means of the same few thousand values.
        if isclose(effect.difference, difference, rel_tol=1e-9, abs_tol=1e-9):
            return Gain(over=over, difference=difference, low=effect.low, high=effect.high)
    return bare


def run_gains(
    store: Store,
    resolved: Mapping[str, Any],
    prompts: Mapping[str, Mapping[str, Prompt]],
    summaries: Sequence[SummaryRecord],
) -> dict[tuple[str, str, str], Gain]:
    """Gains of a run by (variant, benchmark, metric), for every complete number whose base is in the run and complete."""
    overall = {
        (row.variant, row.benchmark, row.metric): row
        for row in summaries
        if row.key == OVERALL and row.complete and row.metric not in PROTOCOLS
    }
    bases = {described["name"]: described.get("derived_from") for described in resolved["variants"]}
    counts = {bench["name"]: bench["images_per_prompt"] for bench in resolved["benchmarks"]}
    gains = {}
    for (variant, benchmark, metric), row in overall.items():
        base = overall.get((bases.get(variant) or "", benchmark, metric))
        if base is None or base.metric_key != row.metric_key:
            continue
        before, after = (
            image_scores(store, one, prompts[benchmark], counts[benchmark]) for one in (base, row)
        )
        gains[variant, benchmark, metric] = paired_gain(base.variant, before, after, row.value - base.value)
    return gains
