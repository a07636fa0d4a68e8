"""A run's GenEval folder as the official scripts read it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sana_bench.core import atomic
from sana_bench.core.errors import IncompleteError, UsageError
from sana_bench.core.fingerprint import sha256_bytes
from sana_bench.core.progress import refuse_listed
from sana_bench.core.samples import Sample
from sana_bench.metrics.geneval.metric import Rules
from sana_bench.metrics.geneval.rescore import JudgedCell, judged_cells
from sana_bench.results.reader import read_run
from sana_bench.results.run_folder import locate_run, open_store
from sana_models.files import read_bytes

__all__ = ["export_official", "official_record"]


def official_record(
    sample: Sample, details: Mapping[str, Any], filename: str, rules: Rules
) -> dict[str, str | bool]:
    """One line of the official `results.jsonl`; its `details` hold the detections that the verdict looked at."""
    kept = rules.kept(sample.prompt.metadata, details["detections"])
    boxes = {
        label: [[*found["box"], found["score"]] for found in detections] for label, detections in kept.items()
    }
    return {
        "filename": filename,
        "tag": sample.prompt.tag,
        "prompt": sample.prompt.text,
        "correct": bool(details["correct"]),
        "reason": "\n".join(details["reasons"]),
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
        found = read_run(store, files)
    cells = judged_cells(found)
    refuse_listed(
        {
            f"{cell.summary.benchmark} / {cell.variant.name} cannot be exported:": _lacking(cell)
            for cell in cells
        }
    )
    folders = [to / cell.variant.name for cell in cells]
    for folder in folders:
        if folder.exists():
            raise UsageError(f"{folder}: already exists; choose another folder")
    for cell, folder in zip(cells, folders, strict=True):
        _write_official(cell, folder)
    scored = {cell.variant.name for cell in cells}
    if left_out := [name for name in found.variants if name not in scored]:
        raise IncompleteError(
            f"no score of {', '.join(left_out)}; {to} has {', '.join(sorted(scored))} alone"
        )
    return folders


def _write_official(cell: JudgedCell, folder: Path) -> None:
    records = []
    with atomic.new_folder(folder) as filled:
        for one in cell.scored:
            sample = one.sample
            place = Path(sample.prompt.id)
            image = place / "samples" / f"{sample.index:05d}.png"
            (filled / image).parent.mkdir(parents=True, exist_ok=True)
            (filled / place / "metadata.jsonl").write_text(
                json.dumps(sample.prompt.metadata), encoding="utf-8"
            )
            (filled / image).write_bytes(read_bytes(sample.image_path))
            details = one.scores[cell.summary.metric].details
            records.append(official_record(sample, details, str(folder / image), cell.rules))
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (filled / "results.jsonl").write_text(lines, encoding="utf-8")


def _lacking(cell: JudgedCell) -> list[str]:
    """What keeps a cell from being whole: samples without a score, and image files that are not what was scored."""
    scored = {one.sample.id for one in cell.scored}
    problems = [f"sample {name} has no scored image" for name in cell.expected if name not in scored]
    for one in cell.scored:
        path = one.sample.image_path
        if not path.is_file():
            problems.append(f"{path} is missing")
        elif sha256_bytes(read_bytes(path)) != one.image.sha256:
            problems.append(f"{path} is not the image that was scored")
    if not problems and cell.reasons:
        problems.append(f"the run marks the score of {cell.variant.name} as incomplete")
    return problems
