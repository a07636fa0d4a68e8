"""GenEval's stored detections of a run: judged again by other rules, or written as the official scripts write them.

No network runs here: a score row keeps every detection of at least `MIN_SCORE` with its colour.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sana_bench.core import atomic
from sana_bench.core.errors import IncomparableError, UsageError, nearest
from sana_bench.metrics.base import ScoreRow, Summary, with_task_counts
from sana_bench.metrics.geneval.metric import PROTOCOLS, GenEvalRates, Rules, judge, rules_of
from sana_bench.results.reader import RunResults, SampleResult, VariantResults, incomplete_reasons, read_run
from sana_bench.results.run_folder import locate_run, open_store
from sana_bench.results.schema import SummaryRecord

__all__ = ["JudgedCell", "Rescored", "judged_cells", "rescore"]

_METRIC = "geneval"


# Protocols that read the same detections.
_SAME_DETECTOR = (frozenset({"geneval/official@1", "geneval/sana@1"}),)


# The lowest threshold that stored detections can answer for.
_STORED_FROM = 0.05


@dataclass(frozen=True)
class JudgedCell:
    """One variant of a run on one benchmark that GenEval has judged; `scored` are its samples with a GenEval score."""

    run: RunResults
    variant: VariantResults
    summary: SummaryRecord
    scored: tuple[SampleResult, ...]

    @property
    def expected(self) -> dict[str, str]:
        """The tag of every sample that the suite asks for, by the sample's id."""
        benchmark = self.run.benchmarks[self.summary.benchmark]
        return {
            f"{prompt.id}/{index:05d}": prompt.tag
            for prompt in self.run.prompts[benchmark.name].values()
            for index in range(benchmark.images_per_prompt)
        }

    @property
    def reasons(self) -> list[str]:
        """Why the run's own GenEval score is incomplete."""
        variant, name = self.variant, self.summary.benchmark
        done, recorded = len(variant.samples_of(name)), len(variant.recorded[name])
        own = [row for row in variant.summaries if (row.benchmark, row.metric) == (name, _METRIC)]
        asked = replace(self.run.benchmarks[name], metrics=(_METRIC,))
        return incomplete_reasons(name, asked, done, recorded - done, own)

    @property
    def rules(self) -> Rules:
        """The rules that the run judged by."""
        identity = self.variant.identities[self.summary.metric_key]
        return replace(rules_of(self.summary.protocol), **identity.get("rules", {}))


@dataclass(frozen=True)
class Rescored:
    """New verdicts on one variant's stored detections; `complete` only where the run's own score is."""

    variant: str
    benchmark: str
    protocol: str
    source_protocol: str
    rows: tuple[ScoreRow, ...]
    summaries: tuple[Summary, ...]
    complete: bool


def judged_cells(run: RunResults) -> list[JudgedCell]:
    """The GenEval scores of a run; raises `UsageError` when it has none."""
    cells = []
    for variant in run.variants.values():
        for benchmark in run.benchmarks:
            if (summary := variant.overall(benchmark).get(_METRIC)) is not None:
                scored = tuple(one for one in variant.samples_of(benchmark) if _METRIC in one.scores)
                cells.append(JudgedCell(run, variant, summary, scored))
    if not cells:
        raise UsageError(f"{run.files.directory}: the run has no {_METRIC} scores")
    return cells


def rescore(
    run: str, output: Path | None, protocol: str | None, changes: Mapping[str, float | int]
) -> tuple[list[Rescored], Path]:
    """Judge the stored detections of a run again and write `RUN/rescored/LABEL.json`, beside what is there.

    Args:
        output: the folder of the result store; None for that of a run directory, or the default.
        protocol: of the same detector as the run's own, None for the run's own.
        changes: fields of `Rules` by name; a protocol with any of them changed has them in its label.

    Raises:
        UsageError: an unknown run or protocol, or a threshold below what is stored.
        IncomparableError: the protocol needs another detector's detections.
    """
    _check_thresholds(changes)
    files, output = locate_run(run, output)
    with open_store(output) as store:
        cells = judged_cells(read_run(store, files))
    done = [_rescored(cell, protocol or cell.summary.protocol, changes) for cell in cells]
    label = re.sub(r"[^\w.@=+-]+", "-", done[0].protocol)
    path = files.directory / "rescored" / f"{label}.json"
    content = [
        {
            "variant": one.variant,
            "benchmark": one.benchmark,
            "protocol": one.protocol,
            "detections_from": one.source_protocol,
            "complete": one.complete,
            "summaries": [asdict(summary) for summary in one.summaries],
            "images": {row.sample_id: {"correct": row.details["correct"], "reasons": row.details["reasons"]}
                       for row in one.rows},
        }
        for one in done
    ]  # fmt: skip
    atomic.write_text(path, json.dumps(content, indent=1) + "\n")
    return done, path


def _rescored(cell: JudgedCell, protocol: str, changes: Mapping[str, Any]) -> Rescored:
    _check_protocol(cell, protocol)
    rules = replace(rules_of(protocol), **changes)
    rows = tuple(judge(one.sample, one.scores[_METRIC].details["detections"], rules) for one in cell.scored)
    label = protocol + "".join(f"+{name}={value}" for name, value in _differing(rules, rules_of(protocol)))
    found = GenEvalRates(label).summarise(rows, len(cell.expected), cell.run.suite.seed)
    summaries = with_task_counts(found, Counter(cell.expected.values()))
    complete = not cell.reasons and all(summary.complete for summary in summaries)
    stored = cell.summary
    return Rescored(
        stored.variant, stored.benchmark, label, stored.protocol, rows, tuple(summaries), complete
    )


def _differing(rules: Rules, base: Rules) -> Iterator[tuple[str, Any]]:
    for name, value in asdict(rules).items():
        if value != getattr(base, name):
            yield name, value


def _check_protocol(cell: JudgedCell, protocol: str) -> None:
    known = sorted({name for names in PROTOCOLS.values() for name in names})
    if protocol not in known:
        raise UsageError(
            f"--protocol {protocol}: unknown{nearest(protocol, known)}; one of {', '.join(known)}"
        )
    own = cell.summary.protocol
    if protocol != own and not any({protocol, own} <= group for group in _SAME_DETECTOR):
        raise IncomparableError(
            f"{cell.variant.name}: detections of {own} cannot be judged as {protocol}, which has another detector"
        )


def _check_thresholds(changes: Mapping[str, float | int]) -> None:
    for name in ("threshold", "counting_threshold"):
        value = changes.get(name)
        if value is not None and not _STORED_FROM <= value <= 1:
            raise UsageError(
                f"--{name.replace('_', '-')} {value}: stored detections have scores of {_STORED_FROM} or more; choose up to 1"
            )
