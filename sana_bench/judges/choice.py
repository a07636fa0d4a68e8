"""The judge that a metric is told to ask by its parameters: its name for a protocol, and itself, which remembers what it said."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sana_bench import judges
from sana_bench.assets.locate import data_root
from sana_bench.core.errors import SuiteError
from sana_bench.core.registry import JUDGES
from sana_bench.judges.answers import RememberingJudge
from sana_bench.judges.base import ReadingJudge
from sana_bench.suites.schema import JudgeSpec

__all__ = ["PARAMETERS", "ChosenJudge", "choose", "model_label"]

#: The parameters by which a metric takes a judge, with their defaults.
PARAMETERS: Mapping[str, Any] = {"judge": "", "precision": "fp32"}


@dataclass(frozen=True)
class ChosenJudge:
    """A judge with the name that protocols carry, e.g. `qwen3-vl-8b-instruct`."""

    label: str
    judge: ReadingJudge


def choose(where: str, parameters: Mapping[str, Any], cache: Path, device: str) -> ChosenJudge:
    """The judge of a metric, not loaded yet.

    Args:
        where: how messages begin, e.g. `metric 'vqascore'`.
        parameters: `judge`, a name that `sana-bench list` shows or the hub id or folder of an image-text-to-text model (its path
            starts from the data root), and the others of `PARAMETERS`.
        cache: answers are kept below `answers` of this folder.
        device: where the network runs.

    Raises:
        SuiteError: no judge, one that answers no questions, or unfit settings.
        AssetError: its weights are missing; the message says how to get them.
    """
    name, precision = str(parameters["judge"]), parameters["precision"]
    if not name:
        raise SuiteError(f"{where} needs the parameter judge: {_WHAT}")
    if precision not in ("fp32", "bf16", "fp16"):
        raise SuiteError(f"{where}: precision is {precision!r}; one of fp32, bf16, fp16")
    if name in JUDGES:
        spec, label = JudgeSpec(name=name, precision=precision), model_label(name)
    else:
        spec = JudgeSpec(name="vision_language", weights=name, precision=precision)
        try:
            label = model_label(name)
        except ValueError as error:
            raise SuiteError(f"{where}: judge {error}") from None
    judge = judges.build_reading(spec, data_root(), device)
    identity = judges.identity(spec, judge)
    return ChosenJudge(label, RememberingJudge(judge, cache / "answers", identity))


_WHAT = "a hub id or folder of an image-text-to-text model, or a name that `sana-bench list` shows"


def model_label(model: str) -> str:
    """What a protocol calls a model, e.g. `qwen3-vl-8b-instruct`; raises ValueError for no name."""
    plain = re.sub(r"[^a-z0-9.]+", "-", model.rsplit("/", 1)[-1].lower()).strip("-.")
    if not plain:
        raise ValueError(f"{model!r} names no model")
    return plain
