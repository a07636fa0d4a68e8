"""The judge that a metric's parameters name, and what a protocol calls it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sana_bench import judges
from sana_bench.assets.locate import data_root
from sana_bench.core.errors import SuiteError
from sana_bench.core.registry import JUDGES
from sana_bench.judges.answers import RememberingJudge
from sana_bench.suites.judge_spec import JudgeSpec, ServerSpec

__all__ = ["PARAMETERS", "ChosenJudge", "choose", "judge_label", "model_label"]

#: The parameters by which a metric takes a judge, with their defaults; those from `server` on belong to a served one.
PARAMETERS: Mapping[str, Any] = {
    "judge": "",
    "precision": "fp32",
    "server": "",
    **{name: field.default for name, field in ServerSpec.model_fields.items() if name != "address"},
}
_PRECISIONS = ("fp32", "bf16", "fp16")
# What the label of a served judge begins with: its answers compare with none of the same model here.
_SERVED = "served-"


@dataclass(frozen=True)
class ChosenJudge:
    """A judge, not loaded yet, and what protocols call it, e.g. `qwen3-vl-8b-instruct` or `served-qwen3-vl-8b-instruct`."""

    label: str
    judge: RememberingJudge


def choose(where: str, parameters: Mapping[str, Any], cache: Path, device: str) -> ChosenJudge:
    """The judge of a metric. It remembers its answers.

    Args:
        where: how messages begin, e.g. `metric 'vqascore'`.
        parameters: those of `PARAMETERS`. `judge` is a name that `sana-bench list` shows, the hub id or folder of an
            image-text-to-text model (a path starts from the data root), or, with `server`, a model's name there.
        cache: answers are kept below `answers` of this folder.
        device: where a network on this machine runs.

    Raises:
        SuiteError: no judge, one that answers no questions, or unfit settings.
        AssetError: its weights are missing; the message says how to get them.
    """
    if not parameters["judge"]:
        raise SuiteError(
            f"{where} needs the parameter judge: a hub id or folder of an image-text-to-text model, or a judge's name"
        )
    if parameters["precision"] not in _PRECISIONS:
        raise SuiteError(
            f"{where}: precision is {parameters['precision']!r}; one of {', '.join(_PRECISIONS)}"
        )
    try:
        spec, label = _spec(parameters), judge_label(parameters)
    except ValidationError as error:
        wrong = error.errors()[0]
        reason = wrong["msg"].removeprefix("Value error, ")
        raise SuiteError(f"{where}: {wrong['loc'][-1] if wrong['loc'] else 'judge'}: {reason}") from None
    except ValueError as error:
        raise SuiteError(f"{where}: judge {error}") from None
    judge = judges.build_reading(spec, data_root(), device)
    return ChosenJudge(label, RememberingJudge(judge, cache / "answers", judges.identity(spec, judge)))


def judge_label(parameters: Mapping[str, Any]) -> str:
    """What a protocol calls a judge, e.g. `qwen3-vl-8b-instruct`, or `served-qwen3-vl-8b-instruct` for one behind a server.

    Raises ValueError for no name, and for a model on this machine with the name of a served one.
    """
    label = model_label(parameters["judge"])
    if parameters.get("server"):
        return f"{_SERVED}{label}"
    if label.startswith(_SERVED):
        raise ValueError(f"{parameters['judge']!r} has the name of a served one; call its folder otherwise")
    return label


def model_label(model: str) -> str:
    """What a protocol calls a model on this machine; raises ValueError for no name."""
    plain = re.sub(r"[^a-z0-9.]+", "-", model.rsplit("/", 1)[-1].lower()).strip("-.")
    if not plain:
        raise ValueError(f"{model!r} names no model")
    return plain


def _spec(parameters: Mapping[str, Any]) -> JudgeSpec:
    name, precision, address = (parameters[key] for key in ("judge", "precision", "server"))
    settings = {key: parameters[key] for key in ServerSpec.model_fields if key in parameters}
    if address:
        return JudgeSpec(
            name="served", weights=name, precision=precision, server=ServerSpec(address=address, **settings)
        )
    changed = [key for key, value in settings.items() if value != PARAMETERS[key]]
    if changed:
        raise ValueError(f"{name!r} is on this machine; {changed[0]} belongs to a server")
    if name in JUDGES:
        return JudgeSpec(name=name, precision=precision)
    return JudgeSpec(name="vision_language", weights=name, precision=precision)
