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

import yaml

from sana_bench.core import atomic
from sana_bench.core.errors import IncomparableError, UsageError, nearest
from sana_bench.core.samples import OVERALL, Prompt, Sample
from sana_bench.metrics.base import ScoreRow, Summary, with_task_counts
from sana_bench.metrics.geneval.metric import PROTOCOLS, Rules, judge, rules_of, summarise
from sana_bench.results.run_folder import RunFiles, locate_run, open_store
from sana_bench.results.schema import SummaryRecord
from sana_bench.results.store import Store

__all__ = ["Rescored", "StoredCell", "rescore", "stored_cells"]

_METRIC = "geneval"


# Protocols that read the same detections.
_SAME_DETECTOR = (frozenset({"geneval/official@1", "geneval/sana@1"}),)


# The lowest threshold that stored detections can answer for.
_STORED_FROM = 0.05


@dataclass(frozen=True)
class StoredCell:
    """One variant's GenEval rows of a run, with the images they judge and their hashes, in the order of prompts.

    `expected` holds the tag of every sample that the suite asks for by the sample's id; `complete` is what the run says of its
    own score.
    """

    variant: str
    benchmark: str
    protocol: str
    identity: dict[str, Any]
    samples: tuple[Sample, ...]
    rows: tuple[ScoreRow, ...]
    image_sha256s: tuple[str, ...]
    expected: Mapping[str, str]
    complete: bool


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


def stored_cells(store: Store, files: RunFiles) -> list[StoredCell]:
    """The GenEval scores of a run; raises `UsageError` when it has none."""
    run_id = files.directory.resolve().name
    described = yaml.safe_load(files.suite.read_text(encoding="utf-8"))
    per_prompt = {entry["name"]: entry["images_per_prompt"] for entry in described["benchmarks"]}
    cells = []
    for summary in store.summaries(run_id):
        if summary.metric == _METRIC and summary.key == OVERALL:
            prompts = files.read_prompts(summary.benchmark)
            cells.append(_stored_cell(store, summary, prompts, per_prompt[summary.benchmark]))
    if not cells:
        raise UsageError(f"{files.directory}: the run has no {_METRIC} scores")
    return cells


def _stored_cell(
    store: Store, summary: SummaryRecord, prompts: Mapping[str, Prompt], per_prompt: int
) -> StoredCell:
    images = [
        image
        for image in store.images(summary.image_key).values()
        if image.status == "ok" and image.prompt_id in prompts and image.index < per_prompt
    ]
    scores = store.scores(summary.metric_key, (str(image.sha256) for image in images))
    samples, rows, hashes = [], [], []
    for image in sorted(images, key=lambda image: (image.prompt_id, image.index)):
        prompt = prompts[image.prompt_id]
        score = scores.get((str(image.sha256), prompt.judged_sha256))
        if score is None:
            continue
        # An imported run may have no file of an image.
        path = store.output / image.path if image.path is not None else Path()
        sample = Sample(summary.variant, summary.benchmark, prompt, image.index, path)
        samples.append(sample)
        rows.append(ScoreRow(sample.id, prompt.id, prompt.tag, score.value, score.details))
        hashes.append(str(image.sha256))
    expected = {
        f"{prompt.id}/{index:05d}": prompt.tag for prompt in prompts.values() for index in range(per_prompt)
    }
    return StoredCell(
        summary.variant, summary.benchmark, summary.protocol, store.metric_identity(summary.metric_key),
        tuple(samples), tuple(rows), tuple(hashes), expected, summary.complete,
    )  # fmt: skip


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
        cells = stored_cells(store, files)
        seed = yaml.safe_load(files.suite.read_text(encoding="utf-8"))["seed"]
    done = [_rescored(cell, protocol or cell.protocol, changes, seed) for cell in cells]
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


def _rescored(cell: StoredCell, protocol: str, changes: Mapping[str, Any], seed: int) -> Rescored:
    _check_protocol(cell, protocol)
    rules = replace(rules_of(protocol), **changes)
    rows = tuple(
        judge(sample, row.details["detections"], rules)
        for sample, row in zip(cell.samples, cell.rows, strict=True)
    )
    label = protocol + "".join(f"+{name}={value}" for name, value in _differing(rules, rules_of(protocol)))
    found = summarise(label, rows, len(cell.expected), seed)
    summaries = with_task_counts(found, Counter(cell.expected.values()))
    complete = cell.complete and all(summary.complete for summary in summaries)
    return Rescored(cell.variant, cell.benchmark, label, cell.protocol, rows, tuple(summaries), complete)


def _differing(rules: Rules, base: Rules) -> Iterator[tuple[str, Any]]:
    for name, value in asdict(rules).items():
        if value != getattr(base, name):
            yield name, value


def _check_protocol(cell: StoredCell, protocol: str) -> None:
    known = sorted({name for names in PROTOCOLS.values() for name in names})
    if protocol not in known:
        raise UsageError(
            f"--protocol {protocol}: unknown{nearest(protocol, known)}; one of {', '.join(known)}"
        )
    if protocol != cell.protocol and not any({protocol, cell.protocol} <= group for group in _SAME_DETECTOR):
        raise IncomparableError(
            f"{cell.variant}: detections of {cell.protocol} cannot be judged as {protocol}, which has another detector"
        )


def _check_thresholds(changes: Mapping[str, float | int]) -> None:
    for name in ("threshold", "counting_threshold"):
        value = changes.get(name)
        if value is not None and not _STORED_FROM <= value <= 1:
            raise UsageError(
                f"--{name.replace('_', '-')} {value}: detections are stored from a score of {_STORED_FROM} on, up to 1"
            )
