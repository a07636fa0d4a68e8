"""The judge of a metric: the one whose scores are published, or one that the suite names, and the protocol that says which."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sana_bench.assets.locate import data_root, resolve_folder
from sana_bench.assets.table import published_judges
from sana_bench.core.errors import AssetError, SuiteError
from sana_bench.metrics.base import MetricAssets
from sana_bench.suites.schema import MetricSpec

if TYPE_CHECKING:
    from sana_bench.judges.base import ReadingJudge

__all__ = ["NamedJudge", "named_judge", "names_judge", "reading_judge", "vlm_protocol"]

_VLM = "vlm-"


@dataclass(frozen=True)
class NamedJudge:
    """An image-text-to-text model that a suite names for a metric, found on this machine, and the protocol it makes."""

    protocol: str
    folder: Path
    precision: str


def names_judge(choice: MetricSpec) -> bool:
    """Whether a suite names a judge for the metric, or a protocol that belongs to one."""
    return "judge" in choice.parameters or (choice.protocol or "").startswith(f"{choice.name}/{_VLM}")


def named_judge(choice: MetricSpec, precision: str) -> NamedJudge:
    """The judge of the parameter `judge`, a hub id or a folder; `precision` holds where the suite says none.

    Raises:
        SuiteError: no judge, another parameter or precision, or a protocol that belongs to another judge.
        AssetError: the judge is not on this machine; the message says how to get it.
    """
    parameters = choice.parameters_among({"judge": "", "precision": precision})
    judge = parameters["judge"]
    if not judge:
        raise SuiteError(
            f"metric {choice.name!r}: {choice.protocol} needs the parameter judge, a hub id or a folder"
        )
    try:
        protocol = choice.pick([vlm_protocol(choice.name, judge)])
    except ValueError as error:
        raise SuiteError(f"metric {choice.name!r}: judge {error}") from None
    return _found(protocol, choice.name, judge, parameters["precision"])


def reading_judge(
    choice: MetricSpec, assets: MetricAssets, official: tuple[str, ...]
) -> tuple[str, "ReadingJudge"]:
    """Protocol and judge of a metric of the full tier whose judge reads.

    Without a judge in the suite it is the published one by one of the `official` protocols, in bf16 as in the published
    scripts. Metrics of a run that have the same judge share it.

    Raises:
        SuiteError: as `named_judge`.
        AssetError: the judge is not on this machine; the message says how to get it.
    """
    if names_judge(choice):
        found = named_judge(choice, "bf16")
    else:
        parameters = choice.parameters_among({"judge": "", "precision": "bf16"})
        protocol, judge = choice.pick(official), published_judges()[choice.name]
        found = _found(protocol, choice.name, judge, parameters["precision"])
    key = (found.folder, found.precision)
    if key not in assets.judges:
        from sana_bench.judges.vlm import VLMReader

        assets.judges[key] = VLMReader(found.folder, device=assets.device, precision=found.precision)
    return found.protocol, assets.judges[key]


def vlm_protocol(metric: str, model_name: str) -> str:
    """The protocol that carries the judge's name, e.g. `dpg/vlm-qwen3-vl-8b-instruct@1`; raises ValueError for none."""
    plain = re.sub(r"[^a-z0-9.]+", "-", model_name.rsplit("/", 1)[-1].lower()).strip("-.")
    if not plain:
        raise ValueError(f"{model_name!r} names no model")
    return f"{metric}/{_VLM}{plain}@1"


def _found(protocol: str, metric: str, judge: str, precision: str) -> NamedJudge:
    if precision not in ("fp32", "bf16"):
        raise SuiteError(f"metric {metric!r}: precision is {precision!r}; one of fp32, bf16")
    try:
        return NamedJudge(protocol, resolve_folder(judge, data_root()), precision)
    except AssetError:
        raise AssetError(
            f"metric {metric!r} on the full tier: the judge {judge!r} is neither a folder nor below "
            f"{data_root() / 'models'} nor in the hub cache; get it with `sana-bench fetch` of the suite or `hf download {judge}`"
        ) from None
