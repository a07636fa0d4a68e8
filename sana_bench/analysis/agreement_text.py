"""What metrics agree on, as the tables and images of a page."""

import math
from collections.abc import Sequence

from sana_bench.analysis.agreement import Agreement, Disagreement, MetricPair, TruthRate
from sana_bench.results.statistics.intervals import Interval
from sana_reports import AgreementData, Contrast, ContrastedImage
from sana_reports.labels import metric_label
from sana_reports.text_table import TextTable

__all__ = ["as_page"]

_KINDS = {"answers": "answers", "pairs": "as asked before one mistake"}
_NOTHING = "-"


def as_page(found: Agreement) -> AgreementData:
    """Tables and images, worded."""
    tables = [_pairs_table(found.pairs)] if found.pairs else []
    tables += [_truth_table(found.truth)] if found.truth else []
    contrasts: dict[tuple[str, str, str], list[Disagreement]] = {}
    for one in found.disagreements:
        contrasts.setdefault((one.benchmark, one.a, one.b), []).append(one)
    notes = list(found.left_out)
    if not found.truth:
        notes.append(
            "The truth of these images is not known; the micro tier's variant micro-rendered makes some of which it is."
        )
    return AgreementData(
        title=f"What metrics agree on: {found.run_id}",
        tier=found.tier,
        tables=tables,
        contrasts=[
            Contrast(title=_contrast_title(*names), images=[_image(one) for one in images])
            for names, images in contrasts.items()
        ],
        notes=notes,
    )


def _pairs_table(pairs: Sequence[MetricPair]) -> TextTable:
    several = len({pair.benchmark for pair in pairs}) > 1
    return TextTable(
        title="Do two metrics put prompts and variants in the same order?",
        header=(
            *("metrics", "prompts: Kendall's tau", "Spearman's rho", "n"),
            *("variants: Kendall's tau", "Spearman's rho", "n"),
        ),
        rows=[
            (
                _names(pair.benchmark if several else "", pair.a, pair.b),
                _interval(pair.prompts.kendall),
                _interval(pair.prompts.spearman),
                str(pair.n_prompts),
                _interval(pair.variants.kendall),
                _interval(pair.variants.spearman),
                str(pair.n_variants),
            )
            for pair in pairs
        ],
        notes=(
            "1: the same order, 0: none, -1: the opposite; better comes first for every metric. 95 % intervals are over prompts.",
            "Prompts: mean over variants of the correlation within each. Variants: of their means, from three variants on.",
        ),
    )


def _truth_table(rates: Sequence[TruthRate]) -> TextTable:
    several = len({rate.benchmark for rate in rates}) > 1
    return TextTable(
        title="How often is a metric right, where the renderer knows what the image shows?",
        header=("metric", "protocol", "what", "right", "n", "prompts"),
        rows=[
            (
                _names(rate.benchmark if several else "", rate.metric),
                rate.protocol,
                _KINDS[rate.kind],
                _interval(rate.rate, share=True),
                str(rate.n),
                str(rate.n_prompts),
            )
            for rate in rates
        ],
        notes=(
            "answers: what it says of an image is so. As asked before one mistake: of two images of a prompt the right one "
            "scores higher; ties count half, so 50 % is chance. 95 % intervals are over prompts.",
        ),
    )


def _contrast_title(benchmark: str, a: str, b: str) -> str:
    return f"{metric_label(benchmark)}: where {metric_label(a)} and {metric_label(b)} differ most"


def _image(one: Disagreement) -> ContrastedImage:
    return ContrastedImage(
        prompt=one.prompt,
        where=f"{one.variant} {one.prompt_id}/{one.index}",
        image_path=one.image,
        said=[_said(one.a, one.value_a, one.rank_a), _said(one.b, one.value_b, one.rank_b)],
    )


def _said(metric: str, value: float, rank: float) -> str:
    return f"{metric_label(metric)} {value:.3g}, rank {100 * rank:.0f} of 100"


def _names(benchmark: str, *metrics: str) -> str:
    label = ", ".join(map(metric_label, metrics))
    return f"{metric_label(benchmark)}: {label}" if benchmark else label


def _interval(interval: Interval, *, share: bool = False) -> str:
    def text(value: float) -> str:
        return f"{100 * value:.1f} %" if share else f"{value:.2f}"

    if math.isnan(interval.value):
        return _NOTHING
    if math.isnan(interval.low):
        return text(interval.value)
    return f"{text(interval.value)} [{text(interval.low)}, {text(interval.high)}]"
