"""Which variant is better, metric by metric, in plain words: what every report says first."""

from collections.abc import Sequence
from dataclasses import dataclass

from sana_reports.data import ReportData, Verdict
from sana_reports.labels import OVERALL, direction, format_gain, metric_label, task_label
from sana_reports.text_table import TextTable

__all__ = [
    "ComparedMetric",
    "ComparedRow",
    "comparison_table",
    "comparison_title",
    "metrics_compared",
    "overviews",
]

_SAID = {"better": "better", "worse": "worse", "no evidence": "no evidence of a difference"}
_NOT = "not compared"
# What matters most comes first in a sentence.
_ORDER = ("worse", "better", _SAID["no evidence"], _NOT)


@dataclass(frozen=True, slots=True)
class ComparedRow:
    """One line: what is said of a variant, or of several that could not be compared for one reason.

    `everyone` says that these are all the variants of the comparison. `tasks` are the tasks on which the variant differs with
    evidence.
    """

    variants: tuple[str, ...]
    verdict: Verdict
    everyone: bool = False
    tasks: tuple[Verdict, ...] = ()

    @property
    def who(self) -> str:
        """The variants by name, or `all variants`."""
        return "all variants" if self.everyone else ", ".join(self.variants)

    @property
    def said(self) -> str:
        """The verdict in words."""
        return _SAID.get(self.verdict.outcome, _NOT)

    @property
    def evidence(self) -> str:
        """The difference with its interval, and what there is to say of it."""
        gain, reason = self.verdict.gain, self.verdict.reason
        if gain is None:
            return reason
        return format_gain(gain, self.verdict.unit) + (f" ({reason})" if reason else "")

    @property
    def on_tasks(self) -> str:
        """The tasks that differ, as `worse on Counting (-0.120 [-0.210, -0.030])`; empty without any."""
        return "; ".join(
            f"{task.outcome} on {task_label(task.key)} ({format_gain(task.gain, task.unit)})"
            for task in self.tasks
            if task.gain is not None
        )


@dataclass(frozen=True, slots=True)
class ComparedMetric:
    """All that is said of one metric on one benchmark; `title` names the benchmark where the metric is on several."""

    title: str
    benchmark: str
    metric: str
    higher_is_better: bool
    rows: tuple[ComparedRow, ...]


def metrics_compared(data: ReportData) -> list[ComparedMetric]:
    """The report's verdicts by metric, in the order given."""
    by_metric: dict[tuple[str, str], list[Verdict]] = {}
    for verdict in data.verdicts:
        by_metric.setdefault((verdict.benchmark, verdict.metric), []).append(verdict)
    names = [metric for _, metric in by_metric]
    return [
        ComparedMetric(
            title=metric_label(metric)
            + (f" on {metric_label(benchmark)}" if benchmark and names.count(metric) > 1 else ""),
            benchmark=benchmark,
            metric=metric,
            higher_is_better=found[0].higher_is_better,
            rows=tuple(_rows(found)),
        )
        for (benchmark, metric), found in by_metric.items()
    ]


def _rows(verdicts: Sequence[Verdict]) -> list[ComparedRow]:
    """One row a variant; those that could not be compared for the same reason share one."""
    tasks: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        if verdict.key != OVERALL and verdict.outcome in ("better", "worse"):
            tasks.setdefault(verdict.variant, []).append(verdict)
    overall = [verdict for verdict in verdicts if verdict.key == OVERALL]
    told: dict[tuple[str, ...], list[Verdict]] = {}
    for one in overall:
        told.setdefault((one.outcome, one.reason) if one.gain is None else (one.variant,), []).append(one)
    return [
        ComparedRow(
            variants=tuple(one.variant for one in same),
            verdict=same[0],
            everyone=1 < len(same) == len(overall),
            tasks=tuple(tasks.get(same[0].variant, ())),
        )
        for same in told.values()
    ]


def overviews(data: ReportData) -> list[tuple[list[str], list[tuple[str, str]]]]:
    """What is said of a variant, or of several alike, and on which metrics: `("better", "GenEval and CLIP score")`."""
    found: dict[str, dict[str, list[str]]] = {}
    for metric in metrics_compared(data):
        for row in metric.rows:
            for variant in row.variants:
                found.setdefault(variant, {}).setdefault(row.said, []).append(metric.title)
    alike: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for variant, by_said in found.items():
        sentence = tuple((said, _listed(by_said[said])) for said in _ORDER if said in by_said)
        alike.setdefault(sentence, []).append(variant)
    return [(variants, list(sentence)) for sentence, variants in alike.items()]


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def comparison_title(data: ReportData) -> str:
    """What the verdicts are about."""
    return f"Compared with {data.compared_with}, prompt by prompt"


def comparison_table(data: ReportData) -> list[TextTable]:
    """The verdicts as a table for terminals and Markdown; none where nothing was compared."""
    rows = []
    for metric in metrics_compared(data):
        title = f"{metric.title} ({direction(metric.higher_is_better)})"
        for row in metric.rows:
            verb = "is " if row.verdict.outcome in ("better", "worse") else ""
            said = f"{verb}{row.said}: {row.evidence}" + (f"; {row.on_tasks}" if row.tasks else "")
            rows.append((title, row.who, said))
            title = ""
    if not rows:
        return []
    return [TextTable(title=comparison_title(data), header=("metric", "variant", "verdict"), rows=rows)]
