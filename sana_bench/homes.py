"""Where the full tier's files come from, and which of them a suite needs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sana_bench.assets import is_hub_id
from sana_bench.errors import UsageError, nearest
from sana_bench.suite import MetricSpec, Suite, Variant
from sana_bench.yaml_files import read_yaml

__all__ = ["RemoteFile", "files_for", "hub_ids", "judge_ids", "metric_needs"]

_TABLE = Path(__file__).with_name("assets.yaml")
# The parameter by which a metric takes another judge.
_JUDGE = "judge"


@dataclass(frozen=True)
class RemoteFile:
    """A file below the data root with its public home; `sha256` may be the first digits only, or empty."""

    path: str
    url: str
    sha256: str = ""


def files_for(assets: Iterable[str]) -> list[RemoteFile]:
    """The files of assets by name, each once; raises `UsageError` with the nearest name."""
    known = read_yaml(_TABLE).data["files"]
    files: dict[str, RemoteFile] = {}
    for name in assets:
        if name not in known:
            raise UsageError(f"unknown asset {name!r}{nearest(name, known)}; known: {', '.join(known)}")
        for entry in known[name]:
            files[entry["path"]] = RemoteFile(entry["path"], _url(entry), str(entry.get("sha256", "")))
    return list(files.values())


def metric_needs(suite: Suite) -> tuple[list[str], list[str]]:
    """Names of the assets that the suite's prompts and metrics need, and the metrics of which no needs are listed.

    A judge that a metric is given as a parameter is none of them: see `judge_ids`.
    """
    from sana_bench import benchmarks

    table = read_yaml(_TABLE).data
    needs: Mapping[str, list[str]] = table["needs"]
    assets: dict[str, None] = {}
    unlisted: dict[str, None] = {}
    for spec in suite.file.benchmarks:
        assets.update(dict.fromkeys(table["prompts"].get(spec.name, ())))
        chosen = spec.metric_specs or [
            MetricSpec(name=name) for name in benchmarks.get(spec.name).metric_names
        ]
        for metric in chosen:
            if _JUDGE in metric.parameters:
                continue
            listed = needs.get(metric.protocol or metric.name, needs.get(metric.name))
            if listed is None:
                unlisted[metric.name] = None
            assets.update(dict.fromkeys(listed or ()))
    return list(assets), list(unlisted)


def judge_ids(suite: Suite, relative_to: Path) -> list[str]:
    """The hub repositories that metrics of the suite take their judges from, each once."""
    chosen = [metric for spec in suite.file.benchmarks for metric in spec.metric_specs]
    named = (str(metric.parameters[_JUDGE]) for metric in chosen if _JUDGE in metric.parameters)
    judges = (name.removeprefix("hf://") for name in named)
    return list(dict.fromkeys(name for name in judges if is_hub_id(name, relative_to)))


def hub_ids(variants: Iterable[Variant], relative_to: Path) -> list[str]:
    """The hub repositories `owner/name[@revision]` of variants' weights and of their judges', each once."""
    weights: list[str] = []
    for variant in variants:
        weights.append(variant.model.weights)
        judge = variant.best_of_n.judge if variant.best_of_n is not None else None
        # mPLUG is published as a pickle, of which `fetch` brings none.
        if judge is not None and judge.weights is not None and judge.name != "vqa":
            weights.append(judge.weights)
    names = [name.removeprefix("hf://") for name in weights]
    return list(dict.fromkeys(name for name in names if is_hub_id(name, relative_to)))


def _url(entry: Mapping[str, Any]) -> str:
    if "url" in entry:
        return str(entry["url"])
    from huggingface_hub import hf_hub_url

    return hf_hub_url(entry["hub"], entry["file"], revision=entry.get("revision"))
