"""The judge of a metric: the one whose scores are published, or one that the suite names, and the protocol that says which."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sana_bench.assets.locate import data_root, resolve_folder
from sana_bench.assets.table import published_judges
from sana_bench.core.errors import AssetError, SuiteError
from sana_bench.core.registry import JUDGES
from sana_bench.judges.base import ReadingJudge
from sana_bench.judges.choice import PARAMETERS, choose, judge_label
from sana_bench.metrics.base import MetricAssets, missing_micro_weights
from sana_bench.suites.schema import MetricSpec

__all__ = ["NamedJudge", "named_judge", "names_judge", "reading_judge"]

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


def named_judge(choice: MetricSpec) -> NamedJudge:
    """The judge of the parameter `judge`, a hub id or a folder, in `precision`, fp32 by default.

    Raises:
        SuiteError: no judge, another parameter or precision, or a protocol that belongs to another judge.
        AssetError: the judge is not on this machine; the message says how to get it.
    """
    parameters = choice.parameters_among({"judge": "", "precision": "fp32"})
    judge, precision = parameters["judge"], parameters["precision"]
    protocol = _named_protocol(choice, parameters)
    if precision not in ("fp32", "bf16"):
        raise SuiteError(f"metric {choice.name!r}: precision is {precision!r}; one of fp32, bf16")
    try:
        return NamedJudge(protocol, resolve_folder(judge, data_root()), precision)
    except AssetError:
        raise AssetError(
            f"metric {choice.name!r}: the judge {judge!r} is neither a folder nor below {data_root() / 'models'} nor in "
            f"the hub cache; get it with `sana-bench fetch` of the suite or `hf download {judge}`"
        ) from None


def reading_judge(
    tier: str, choice: MetricSpec, assets: MetricAssets, official: tuple[str, ...]
) -> tuple[str, ReadingJudge]:
    """Protocol and judge of a metric whose judge reads.

    Without a judge in the suite it is the published one, by one of the `official` protocols, where there are any; on the
    micro tier the micro world's, by `NAME/micro@1`. Another model on this machine computes in bf16 as in the published scripts,
    unless the suite says otherwise. Metrics of a run that have the same judge share it.

    Raises:
        SuiteError: as `named_judge`.
        AssetError: the judge is not on this machine; the message says how to get it.
    """
    is_named = names_judge(choice) or "server" in choice.parameters or not official
    if tier == "micro" and not is_named:
        return _micro_reader(choice, assets)
    here = "server" not in choice.parameters and choice.parameters.get("judge") not in JUDGES
    parameters = choice.parameters_among({**PARAMETERS, **({"precision": "bf16"} if here else {})})
    if is_named:
        protocol = _named_protocol(choice, parameters)
    else:
        protocol = choice.pick(official)
        parameters["judge"] = published_judges()[choice.name]
    key = tuple(sorted(parameters.items()))
    if key not in assets.judges:
        where = f"metric {choice.name!r}{f' on the {tier} tier' if official else ''}"
        try:
            assets.judges[key] = choose(where, parameters, assets.cache_dir, assets.device).judge
        except AssetError as error:
            raise AssetError(f"{where}: {error}") from None
    return protocol, assets.judges[key]


def _micro_reader(choice: MetricSpec, assets: MetricAssets) -> tuple[str, ReadingJudge]:
    from sana_bench.judges.mplug.reading import ReadingMPlug

    choice.parameters_among({})
    protocol, folder = choice.pick([f"{choice.name}/micro@1"]), assets.weights_dir / "reading"
    if not folder.is_dir():
        raise missing_micro_weights(folder, choice.name, "configs/train/reading_micro.yaml")
    if folder not in assets.judges:
        assets.judges[folder] = ReadingMPlug(folder)
    return protocol, assets.judges[folder]


def _named_protocol(choice: MetricSpec, parameters: Mapping[str, Any]) -> str:
    if not parameters["judge"]:
        asked = choice.protocol or "it"
        raise SuiteError(f"metric {choice.name!r}: {asked} needs the parameter judge, a hub id or a folder")
    try:
        return choice.pick([f"{choice.name}/{_VLM}{judge_label(parameters)}@1"])
    except ValueError as error:
        raise SuiteError(f"metric {choice.name!r}: judge {error}") from None
