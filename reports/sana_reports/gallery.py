"""The samples as the page's script reads them: one entry per prompt and seed, one cell per variant."""

import base64
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from sana_reports.data import ReportData, SampleCell

__all__ = ["gallery_json", "image_source", "total_image_bytes"]

_SIGNATURES = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"))


def total_image_bytes(samples: Sequence[SampleCell]) -> int:
    """Bytes of all image files that exist."""
    return sum(sample.image_path.stat().st_size for sample in samples if sample.image_path.is_file())


def gallery_json(data: ReportData, out_dir: Path, *, inline: bool) -> Markup:
    """JSON for a `<script type="application/json">` element, with nothing in it that can end the element.

    Raises `ValueError` for two samples in one place, an unknown variant, or a malformed detection, answer or reward.
    """
    columns = {variant.name: index for index, variant in enumerate(data.variants)}
    groups: dict[tuple[str, str, int], dict[str, Any]] = {}
    for sample in data.samples:
        if sample.variant not in columns:
            raise ValueError(f"sample of unknown variant {sample.variant!r}")
        group = groups.setdefault(
            (sample.benchmark, sample.prompt_id, sample.index),
            {
                "benchmark": sample.benchmark,
                "prompt_id": sample.prompt_id,
                "index": sample.index,
                "tag": sample.tag,
                "prompt": sample.prompt,
                "cells": [None] * len(columns),
            },
        )
        if group["cells"][columns[sample.variant]] is not None:
            raise ValueError(f"two samples {sample.prompt_id}/{sample.index} of variant {sample.variant!r}")
        group["cells"][columns[sample.variant]] = _cell(sample, out_dir, inline=inline)
    ordered = [groups[key] for key in sorted(groups)]
    return _script_json({"variants": list(columns), "colors": list(data.colors.values()), "groups": ordered})


def _cell(sample: SampleCell, out_dir: Path, *, inline: bool) -> dict[str, Any]:
    return {
        "src": image_source(sample.image_path, out_dir, inline=inline),
        "given": sample.given if sample.given != sample.prompt else "",
        "correct": sample.correct,
        "reasons": list(sample.reasons),
        "detections": [_detection(sample, found) for found in sample.detections],
        "scores": _finite(sample.scores),
        "rewards": _finite(
            {name: _number(sample, "reward", value) for name, value in sample.rewards.items()}
        ),
        "answers": [_answer(sample, found) for found in sample.answers],
    }


def image_source(path: Path, out_dir: Path, *, inline: bool) -> str | None:
    """A data URI or a relative URL; None for a file that is absent or is neither PNG nor JPEG."""
    if not path.is_file():
        return None
    if not inline:
        return quote(Path(os.path.relpath(path.resolve(), out_dir.resolve())).as_posix())
    content = path.read_bytes()
    media_type = next((kind for signature, kind in _SIGNATURES if content.startswith(signature)), None)
    return media_type and f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items() if math.isfinite(value)}


def _number(sample: SampleCell, what: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{_place(sample)}: {what} {value!r} is not a number")
    return float(value)


def _place(sample: SampleCell) -> str:
    return f"sample {sample.prompt_id}/{sample.index} of variant {sample.variant!r}"


def _answer(sample: SampleCell, found: Mapping[str, Any]) -> list[Any]:
    """[question, answer, score]."""
    if not isinstance(found, Mapping) or not found.keys() >= {"question", "answer", "score"}:
        raise ValueError(f"{_place(sample)}: an answer is a question, an answer and a score, not {found!r}")
    score = _number(sample, "the score of an answer", found["score"])
    return [str(found["question"]), str(found["answer"]), round(score, 3) if math.isfinite(score) else None]


def _detection(sample: SampleCell, found: Mapping[str, Any]) -> list[Any]:
    """[label, score, [x1, y1, x2, y2], color], short because a page holds thousands of them."""
    box = [float(value) for value in found["box"]]
    score = float(found["score"])
    if len(box) != 4 or not all(map(math.isfinite, [*box, score])):
        raise ValueError(f"{_place(sample)}: bad detection {found!r}")
    color = found.get("color")
    return [str(found["label"]), round(score, 3), [round(value, 1) for value in box], color and str(color)]


def _script_json(value: Any) -> Markup:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)
