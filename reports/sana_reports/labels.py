"""Names and numbers as people read them, the same in every output format."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sana_reports.data import Gain, Latency, ReportData, SummaryCell

__all__ = [
    "FID_BIASED_BELOW",
    "KINDS",
    "MICRO_NOTICE",
    "MISSING",
    "OVERALL",
    "approximation_notices",
    "direction",
    "few_images_notice",
    "flops_unit",
    "format_count",
    "format_gain",
    "format_interval",
    "format_latency_interval",
    "format_value",
    "licence_line",
    "made_from",
    "metric_label",
    "notices",
    "one_line",
    "task_label",
]

MISSING = "\u2013"
#: The key of a mean over all tasks.
OVERALL = "overall"
# How a variant came to be: reports and leaderboards group in this order.
KINDS = {
    "full": "Full-size models",
    "grown": "Grown models",
    "pruned": "Pruned models",
    "inference_scaled": "Inference-scaled models",
}
MICRO_NOTICE = (
    "Micro tier: these numbers come from a small world of coloured shapes and small models. "
    "They do not compare with published ones."
)

# Below this many images the distance is mostly bias, as sana_bench.metrics.fid.frechet says.
FID_BIASED_BELOW = 10_000

# Protocols whose numbers stand for those of another one.
_APPROXIMATIONS = {
    "geneval/hf-detector@1": "approximation of geneval/official@1: another training run of the detector",
}
_METRICS = {
    "aesthetic": "Aesthetic score",
    "clip_score": "CLIP score",
    "cmmd": "CMMD",
    "coverage": "Coverage",
    "density": "Density",
    "dpg": "DPG-Bench",
    "dpg_bench": "DPG-Bench",
    "fd_dinov2": "FD-DINOv2",
    "fid": "FID",
    "geneval": "GenEval",
    "geneval2": "GenEval 2",
    "hpdv2": "HPDv2",
    "hpsv2": "HPS v2",
    "hpsv2.1": "HPS v2.1",
    "hpsv3": "HPSv3",
    "image_reward": "ImageReward",
    "kid": "KID",
    "latency": "Latency",
    "longtext": "LongText-Bench",
    "longtext_zh": "LongText-Bench, Chinese",
    "mjhq30k": "MJHQ-30K",
    "oneig": "OneIG-Bench",
    "oneig_alignment": "OneIG alignment",
    "oneig_diversity": "OneIG diversity",
    "oneig_style": "OneIG style",
    "oneig_text": "OneIG text",
    "pickscore": "PickScore",
    "precision": "Precision",
    "recall": "Recall",
    "throughput": "Throughput",
    "vendi": "Vendi score",
}
_FLOPS = (("TFLOP", 1e12), ("GFLOP", 1e9), ("MFLOP", 1e6))
_MADE = {"full": "", "inference_scaled": "inference-scaled"}
_TASKS = {
    OVERALL: "Overall",
    "single_object": "Single object",
    "two_object": "Two objects",
    "counting": "Counting",
    "colors": "Colors",
    "position": "Position",
    "color_attr": "Color attribution",
}


def metric_label(name: str) -> str:
    """The usual spelling of a metric or benchmark, or its name as given."""
    return _METRICS.get(name, name)


def task_label(key: str) -> str:
    """A task tag in words."""
    return _TASKS.get(key) or key.replace("_", " ").strip().capitalize()


def made_from(kind: str, derived_from: str | None, *, rewritten: bool = False) -> str:
    """`pruned from NAME, rewritten prompts`; empty for a full-size variant made from no other and given the prompts."""
    made = _MADE.get(kind, kind)
    origin = f"{made or 'made'} from {derived_from}" if derived_from else made
    return ", ".join(part for part in (origin, "rewritten prompts" if rewritten else "") if part)


def direction(higher_is_better: bool) -> str:
    """Which way is better, in words."""
    return "higher is better" if higher_is_better else "lower is better"


def flops_unit(values: Sequence[float]) -> tuple[str, float]:
    """A unit in which the smallest of `values` is not below 0.1, and its size."""
    smallest = min(values, default=0.0)
    return next(((name, size) for name, size in _FLOPS if smallest >= size / 10), _FLOPS[-1])


def format_value(value: float, unit: str) -> str:
    """Three decimals for fractions, per cent for shares, else about three digits; a dash for what could not be computed."""
    if not math.isfinite(value):
        return MISSING
    if unit == "fraction":
        return f"{value:.3f}"
    if unit == "share":
        return f"{100 * value:.1f} %"
    if 0 < abs(value) < 0.1:
        return f"{value:.4f}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}"


def format_interval(cell: "SummaryCell") -> str:
    """The cell's 95 % interval in brackets, or why it has none; an empty string where there is no number."""
    if not (math.isfinite(cell.low) and math.isfinite(cell.high)):
        return f"({cell.no_interval})" if cell.no_interval else ""
    return f"[{format_value(cell.low, cell.unit)}, {format_value(cell.high, cell.unit)}]"


def format_gain(gain: "Gain", unit: str) -> str:
    """A difference with its sign and its interval in brackets: `-0.031 [-0.050, -0.010]`."""

    def text(value: float) -> str:
        shown = format_value(value, unit)
        if not any(digit in shown for digit in "123456789"):
            return shown.lstrip("-")  # what rounds to zero has no sign
        return f"+{shown}" if value > 0 else shown

    if not (math.isfinite(gain.low) and math.isfinite(gain.high)):
        return f"{text(gain.difference)} (no paired interval)"
    return f"{text(gain.difference)} [{text(gain.low)}, {text(gain.high)}]"


def format_latency_interval(latency: "Latency") -> str:
    """The interval of a time in brackets, or an empty string when it has none."""
    if not (math.isfinite(latency.low_ms) and math.isfinite(latency.high_ms)):
        return ""
    return f"[{latency.low_ms:.1f}, {latency.high_ms:.1f}]"


def format_count(cell: "SummaryCell") -> str:
    """`600`, or `598/600` when samples are missing."""
    if cell.n_samples == cell.n_expected:
        return str(cell.n_samples)
    return f"{cell.n_samples}/{cell.n_expected}"


def notices(data: "ReportData") -> Sequence[str]:
    """What must be read before the numbers. A micro report always says that it is one, a FID that it is of few images."""
    found = [MICRO_NOTICE] if data.tier == "micro" else []
    repeats_notice = data.tier == "micro" and (data.banner or "").lower().startswith("micro tier")
    if data.banner and not repeats_notice:
        found.append(data.banner)
    return [
        *found,
        *few_images_notice(data.summaries),
        *approximation_notices(data.summaries),
        *data.cut_texts,
        *(settings_notice(name, settings) for name, settings in data.benchmark_settings.items() if settings),
    ]


def settings_notice(benchmark: str, settings: Mapping[str, Any]) -> str:
    """What a benchmark changes of every model, in a sentence."""
    told = ", ".join(f"{key} {value}" for key, value in settings.items())
    return f"{metric_label(benchmark)}: images made with {told}, whatever a variant says."


def few_images_notice(cells: Iterable["SummaryCell"]) -> list[str]:
    """The warning that belongs beside overall Fréchet distances of few images; an empty list where there are none."""
    counts = [cell.n_samples for cell in cells if cell.metric == "fid" and cell.key == OVERALL]
    if min(counts, default=FID_BIASED_BELOW) >= FID_BIASED_BELOW:
        return []
    return [f"FID of fewer than {FID_BIASED_BELOW:,} images is biased upwards: compare only at equal n."]


def approximation_notices(cells: Iterable["SummaryCell"]) -> list[str]:
    """What must be known of the protocols that only come near another one, each once; an empty list without such numbers."""
    found = dict.fromkeys(cell.protocol for cell in cells if cell.protocol in _APPROXIMATIONS)
    return [f"{protocol}: {_APPROXIMATIONS[protocol]}." for protocol in found]


def licence_line(data: "ReportData") -> str:
    """Whose prompts come under which licence; empty where no publisher names one."""
    found = [f"{metric_label(name)} {', '.join(licences)}" for name, licences in data.prompt_licences.items()]
    return f"licence of the prompts: {'; '.join(found)}" if found else ""


def one_line(text: str) -> str:
    """`text` without control characters, so that it cannot break a table or drive a terminal."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
