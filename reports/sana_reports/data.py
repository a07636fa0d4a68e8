"""What a report is made of: plain, immutable data, with nothing of the harness in it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from sana_reports.colors import variant_colors
from sana_reports.labels import KINDS
from sana_reports.text_table import TextTable

__all__ = [
    "Gain",
    "ImageCost",
    "Latency",
    "LookCell",
    "ReportData",
    "ReportPaths",
    "SampleCell",
    "SequenceCell",
    "SequenceTask",
    "SummaryCell",
    "VariantInfo",
    "Verdict",
]

#: The task of prompts that name none.
UNTAGGED = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Time to make one image, in milliseconds, with its interval and the machine it was measured on."""

    value_ms: float
    low_ms: float
    high_ms: float
    n_images: int
    device: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageCost:
    """What a variant spends on one delivered image, means over `n_images` of its `n_delivered` images.

    `generated` counts images made for it; seconds are of `device`. FLOPs that were not counted are None.
    """

    n_images: int
    n_delivered: int
    generated: float
    generation_s: float | None = None
    judge_s: float = 0.0
    generation_flops: float | None = None
    judge_flops: float | None = None
    device: str = ""

    @property
    def flops(self) -> float | None:
        """All that was counted; None where generation was not."""
        return None if self.generation_flops is None else self.generation_flops + (self.judge_flops or 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """Paired difference of a number to that of the variant `over`, with its 95 % interval; a latency's is a share of `over`'s.

    Bounds that the data cannot give are NaN.
    """

    over: str
    difference: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantInfo:
    """A variant as reports and leaderboards show it: one column of the report.

    `settings` is the fully resolved configuration; nested mappings are shown with dotted keys.
    `kind` is a key of `KINDS`, `derived_from` the variant that this one was made from, if any. `parameters` and `depth` are of
    the denoising network; `cut_from` is what a pruned one was cut from, with its depth. `costs` are by benchmark.
    `rewritten` says that the model was given other texts than the prompts. `published` are the rows of published tables that it
    reproduces.
    A variant with `incomplete_reasons` is shown but never ranked.
    """

    name: str
    fingerprint: str
    description: str = ""
    kind: str = "full"
    derived_from: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    latency: Latency | None = None
    parameters: int | None = None
    depth: int | None = None
    cut_from: str = ""
    cut_from_depth: int | None = None
    rewritten: bool = False
    published: Sequence[str] = ()
    costs: Mapping[str, ImageCost] = field(default_factory=dict)
    incomplete_reasons: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryCell:
    """One number as a report shows it: a metric of one variant, over everything (`key == "overall"`) or over one task.

    `low` and `high` bound the 95 % interval. A value that could not be computed is NaN.
    `unit` is free text; `"fraction"` values lie in [0, 1] and get a fixed axis. `gain` compares with what the variant was made
    from, where both have the number. `device` and `batch_size` are those of a measured time.
    """

    variant: str
    benchmark: str
    metric: str
    protocol: str
    key: str
    value: float
    low: float
    high: float
    n_samples: int
    n_expected: int
    n_prompts: int
    unit: str
    higher_is_better: bool
    note: str = ""
    gain: Gain | None = None
    device: str = ""
    batch_size: int | None = None

    @property
    def no_interval(self) -> str:
        """Why the number has no interval; empty where it has one, and where there is no number."""
        if not math.isfinite(self.value) or (math.isfinite(self.low) and math.isfinite(self.high)):
            return ""
        return f"no interval: {'one prompt' if self.n_prompts == 1 else 'too few prompts'}"

    @property
    def is_complete(self) -> bool:
        """Whether every expected sample is in the number, and the number exists."""
        return self.n_samples == self.n_expected and self.n_samples > 0 and math.isfinite(self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the paired comparison of a variant with another one says of one number, overall or of one task (`key`).

    `outcome` is "better", "worse", "no evidence", "not comparable" or "not measured"; the last two have no `gain`, and `reason`
    says why. Incidental times belong to no benchmark: theirs is empty.
    """

    variant: str
    benchmark: str
    metric: str
    key: str
    unit: str
    higher_is_better: bool
    outcome: str
    reason: str = ""
    gain: Gain | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleCell:
    """One image as a report shows it, with what was found in it.

    `correct` is None where the benchmark gives no verdict. `detections` are mappings with `label`, `score`,
    `box` ([x1, y1, x2, y2] in image pixels) and, where known, `color`. `scores` are the per-image values of
    the other metrics by name. `answers` are what a visual question answering metric was told: mappings with
    `question`, `answer` and `score`. `rewards` are what reward models gave, by metric.
    `given` is the text that the model was given where that was not the prompt.
    A sample whose `image_path` does not exist is shown as missing.
    """

    variant: str
    benchmark: str
    prompt_id: str
    index: int
    prompt: str
    tag: str
    image_path: Path
    correct: bool | None = None
    reasons: Sequence[str] = ()
    detections: Sequence[Mapping[str, Any]] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    answers: Sequence[Mapping[str, Any]] = ()
    rewards: Mapping[str, float] = field(default_factory=dict)
    given: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LookCell:
    """What one look of a sequence found, after so many images of each variant."""

    n_images: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceTask:
    """What a sequence found of one task; the p-value holds at any look, and is NaN for a variant alone."""

    key: str
    n_prompts: int
    value: float
    p_value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceCell:
    """Looks at a difference, `variant` minus `against`, or at one variant's score (`against` empty), at least one.

    `rule` says when it was to stop, `verdict` how it ended; `answered` whether that was an answer. `n_expected` are the images of
    each variant that the suite has; a difference within `effect` is none.
    """

    benchmark: str
    metric: str
    variant: str
    against: str
    rule: str
    verdict: str
    finding: str
    answered: bool
    n_expected: int
    effect: float | None
    looks: Sequence[LookCell]
    tasks: Sequence[SequenceTask] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """Everything one report shows. Metrics and tasks appear in the order given here, variants grouped by kind.

    `created` is text ready to be shown. `banner` is an extra notice above the results; the notice that micro
    numbers do not compare with published ones appears by itself when `tier == "micro"`. `selfcheck` is one line that says
    whether the machine's numbers were checked, `devices` one that names them where there are several kinds. `cut_texts` are
    lines on who was given texts
    without their end. `prompt_licences` are by benchmark, and so is what it
    changes of every model (`benchmark_settings`). `speed_tables` are shown as they are. `palette` names variants in the
    order in which they are given colours. `verdicts` compare the other variants with `compared_with`. `sequences` were
    looked at while images were made, and are no numbers of the suite.
    Raises `ValueError` for a variant of unknown kind.
    """

    title: str
    suite_name: str
    tier: str
    tier_reason: str
    created: str
    fingerprint: str
    complete: bool
    variants: Sequence[VariantInfo]
    summaries: Sequence[SummaryCell]
    samples: Sequence[SampleCell]
    provenance: Mapping[str, Any]
    incomplete_reasons: Sequence[str] = ()
    banner: str | None = None
    selfcheck: str = ""
    devices: str = ""
    cut_texts: Sequence[str] = ()
    prompt_licences: Mapping[str, Sequence[str]] = field(default_factory=dict)
    speed_tables: Sequence[TextTable] = ()
    palette: Sequence[str] = ()
    benchmark_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    compared_with: str = ""
    verdicts: Sequence[Verdict] = ()
    sequences: Sequence[SequenceCell] = ()

    def __post_init__(self) -> None:
        for variant in self.variants:
            if variant.kind not in KINDS:
                raise ValueError(f"variant {variant.name!r} has the unknown kind {variant.kind!r}")
        order = list(KINDS)
        by_kind = sorted(self.variants, key=lambda variant: order.index(variant.kind))
        object.__setattr__(self, "variants", by_kind)

    @property
    def colors(self) -> dict[str, int]:
        """The series colour of each variant."""
        return variant_colors((variant.name for variant in self.variants), self.palette)

    @property
    def groups(self) -> list[tuple[str, Sequence[VariantInfo]]]:
        """Kinds with their variants, in the order of `KINDS`."""
        return [(kind, list(found)) for kind, found in groupby(self.variants, lambda variant: variant.kind)]

    def variant_is_complete(self, name: str) -> bool:
        """Whether `name` may be ranked: no stated reason against it, and all of its numbers complete."""
        info = next(variant for variant in self.variants if variant.name == name)
        cells = [cell for cell in self.summaries if cell.variant == name]
        return not info.incomplete_reasons and bool(cells) and all(cell.is_complete for cell in cells)


@dataclass(frozen=True, slots=True)
class ReportPaths:
    """The files of a written report."""

    html: Path
    markdown: Path
    csv: Path
