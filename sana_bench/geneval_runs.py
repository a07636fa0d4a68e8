"""GenEval's stored detections of a run: judged again by other rules, or written as the official scripts write them.

No network runs here: a score row keeps every detection of at least `MIN_SCORE` with its colour.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from sana_bench import atomic
from sana_bench.completeness import listed
from sana_bench.errors import IncomparableError, IncompleteError, UsageError, nearest
from sana_bench.execution.scoring import with_task_counts
from sana_bench.fingerprint import judged_sha256, sha256_bytes
from sana_bench.metrics.base import OVERALL, Prompt, Sample, ScoreRow, Summary
from sana_bench.metrics.geneval import PROTOCOLS, Rules, judge, rules_of, summarise
from sana_bench.progress import say
from sana_bench.results.schema import SummaryRecord
from sana_bench.results.store import Store
from sana_bench.run_files import RunFiles, locate_run, open_store

__all__ = ["Rescored", "StoredCell", "export_official", "official_record", "rescore", "stored_cells"]

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
        score = scores.get((str(image.sha256), judged_sha256(prompt.text, prompt.tag, prompt.metadata)))
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


def official_record(sample: Sample, row: ScoreRow, filename: str, rules: Rules) -> dict[str, str | bool]:
    """One line of the official `results.jsonl`; its `details` hold the detections that the verdict looked at."""
    kept = rules.kept(sample.prompt.metadata, row.details["detections"])
    boxes = {
        label: [[*found["box"], found["score"]] for found in detections] for label, detections in kept.items()
    }
    return {
        "filename": filename,
        "tag": row.tag,
        "prompt": sample.prompt.text,
        "correct": bool(row.details["correct"]),
        "reason": "\n".join(row.details["reasons"]),
        "metadata": json.dumps(sample.prompt.metadata),
        "details": json.dumps(boxes),
    }


def export_official(run: str, output: Path | None, to: Path) -> list[Path]:
    """Write each variant of a run to `to/VARIANT` as GenEval's own scripts lay it out; return the folders.

    `NNNNN/metadata.jsonl` and `NNNNN/samples/NNNNN.png` can be scored by the original evaluator; `results.jsonl` holds our
    verdicts for its `summary_scores.py`. That script knows no marks, so nothing is written of an incomplete run.

    Raises:
        UsageError: an unknown run, one without GenEval scores, or a folder that exists.
        IncompleteError: an image of the run was not scored, is gone or is not intact, after a list of them; the run marks
            its score as incomplete for another reason; or, when the others are written, a variant has no score at all.
    """
    files, output = locate_run(run, output)
    with open_store(output) as store:
        cells = stored_cells(store, files)
    _refuse_incomplete(cells)
    folders = [to / cell.variant for cell in cells]
    for folder in folders:
        if folder.exists():
            raise UsageError(f"{folder}: exists already; choose another folder")
    for cell, folder in zip(cells, folders, strict=True):
        _write_official(cell, folder)
    scored = {cell.variant for cell in cells}
    described = yaml.safe_load(files.suite.read_text(encoding="utf-8")).get("variants", ())
    if left_out := [variant["name"] for variant in described if variant["name"] not in scored]:
        raise IncompleteError(
            f"no score of {', '.join(left_out)}; {to} has {', '.join(sorted(scored))} alone"
        )
    return folders


def _write_official(cell: StoredCell, folder: Path) -> None:
    records = []
    rules = _stored_rules(cell)
    with atomic.new_folder(folder) as filled:
        for sample, row in zip(cell.samples, cell.rows, strict=True):
            place = Path(sample.prompt.id)
            image = place / "samples" / f"{sample.index:05d}.png"
            (filled / image).parent.mkdir(parents=True, exist_ok=True)
            (filled / place / "metadata.jsonl").write_text(
                json.dumps(sample.prompt.metadata), encoding="utf-8"
            )
            (filled / image).write_bytes(sample.image_path.read_bytes())
            records.append(official_record(sample, row, str(folder / image), rules))
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (filled / "results.jsonl").write_text(lines, encoding="utf-8")


def _refuse_incomplete(cells: Sequence[StoredCell]) -> None:
    found = {f"{cell.benchmark} / {cell.variant} cannot be exported:": _lacking(cell) for cell in cells}
    problems = [line for lines in found.values() for line in lines]
    if not problems:
        return
    for line in listed({heading: lines for heading, lines in found.items() if lines}):
        say(line)
    more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
    raise IncompleteError(f"{problems[0]}{more}; run the suite again")


def _lacking(cell: StoredCell) -> list[str]:
    """What keeps a cell from being whole: samples without a score, and image files that are not what was scored."""
    scored = {sample.id for sample in cell.samples}
    problems = [f"sample {name} has no scored image" for name in cell.expected if name not in scored]
    for sample, sha256 in zip(cell.samples, cell.image_sha256s, strict=True):
        if not sample.image_path.is_file():
            where = sample.image_path if sample.image_path.name else f"the file of {sample.id}"
            problems.append(f"{where} is gone")
        elif sha256_bytes(sample.image_path.read_bytes()) != sha256:
            problems.append(f"{sample.image_path} is not the image that was scored")
    if not problems and not cell.complete:
        problems.append(f"the run marks the score of {cell.variant} as incomplete")
    return problems


def _stored_rules(cell: StoredCell) -> Rules:
    return replace(rules_of(cell.protocol), **cell.identity.get("rules", {}))


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
