"""Where the full tier's files come from, and which of them a suite needs: `assets.yaml`, read."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from sana_bench.assets.locate import data_root, is_hub_id
from sana_bench.core.errors import UsageError, nearest
from sana_bench.suites.config_files import read_yaml
from sana_bench.suites.schema import (
    NAMED_REFERENCES,
    OWN_METRICS,
    BenchmarkSpec,
    JudgeSpec,
    MetricSpec,
    Suite,
    Variant,
)

__all__ = [
    "VERIFIER",
    "Asset",
    "RemoteFile",
    "Repository",
    "RepositoryFacts",
    "files_for",
    "find_asset",
    "judge_ids",
    "judge_needs",
    "local_weights",
    "metric_needs",
    "prompt_count",
    "prompt_licences",
    "published_judges",
    "read_assets",
    "repositories_of",
    "repository_facts",
]

#: Where the published weights are.
VERIFIER = "Efficient-Large-Model/NVILA-Lite-2B-Verifier"

_TABLE = Path(__file__).with_name("assets.yaml")

_HUB_FILE = re.compile(r"hf://(?P<dataset>datasets/)?(?P<repository>[^/]+/[^/]+)/(?P<file>.+)")

# The parameters by which a metric takes another judge: a model on this machine, or on a server.
_JUDGE, _SERVER = "judge", "server"
# What a distance is held against where no reference of one's own is named.
_REFERENCES = ("mjhq30k_images",)


@dataclass(frozen=True)
class RemoteFile:
    """A file below the data root and its public home, a URL or `hf://[datasets/]owner/name/FILE`.

    `sha256` may be the first digits only, or empty. Members of an archive go to the folder `unpack`, below the data root too;
    it is empty for other files.
    """

    path: str
    home: str
    sha256: str = ""
    unpack: str = ""
    licence: str = ""
    bytes: int | None = None

    @property
    def url(self) -> str:
        """Where to load the file; `HF_ENDPOINT` names another hub."""
        if (match := _HUB_FILE.fullmatch(self.home)) is None:
            return self.home
        from huggingface_hub import hf_hub_url

        kind = "dataset" if match["dataset"] else None
        return hf_hub_url(match["repository"], match["file"], repo_type=kind)


@dataclass(frozen=True)
class Asset:
    """Files that belong together, of which readers open the first, and how messages speak of them.

    `fetched_by` is the suite to name to `sana-bench fetch`, or which suite that is.
    """

    name: str
    files: tuple[RemoteFile, ...]
    needed_for: str = ""
    fetched_by: str = ""

    @property
    def licence(self) -> str:
        """As far as its publisher names one."""
        return self.files[0].licence

    @property
    def bytes(self) -> int | None:
        """What all files take together, unpacked ones included; None where one of them has no published size."""
        sizes = [file.bytes * (2 if file.unpack else 1) for file in self.files if file.bytes is not None]
        return sum(sizes) if len(sizes) == len(self.files) else None

    @property
    def command(self) -> str:
        """The command that fetches it."""
        suite = f" {self.fetched_by}" if " " not in self.fetched_by else f", of {self.fetched_by}"
        return f"sana-bench fetch{suite}"

    @property
    def path(self) -> Path:
        """Where the file that readers open is looked for now."""
        return data_root() / self.files[0].path

    @property
    def how(self) -> str:
        """How to get the files to where they are looked for now: the command, and the way without it."""
        suite = f" {self.fetched_by}`" if " " not in self.fetched_by else f"` of {self.fetched_by}"
        return f"`sana-bench fetch{suite} downloads it; by hand: {self._by_hand()}"

    def _by_hand(self) -> str:
        steps = []
        of_repository: dict[tuple[str, str], list[str]] = {}
        for file in self.files:
            match = _HUB_FILE.fullmatch(file.home)
            if match is not None and match["file"] == Path(file.path).name:
                kind = " --repo-type dataset" if match["dataset"] else ""
                of_repository.setdefault((match["repository"], kind), []).append(match["file"])
            else:
                steps.append(f"save under that name {file.url}")
        for (repository, kind), names in of_repository.items():
            steps.append(f"`hf download {repository} {' '.join(names)}{kind} --local-dir {self.path.parent}`")
        archives = [file for file in self.files if file.unpack]
        steps += [f"then unpack {Path(file.path).name} to {data_root() / file.unpack}" for file in archives]
        return ", ".join(steps)


@dataclass(frozen=True)
class Repository:
    """A repository of the hub, `owner/name[@revision]`, what reads it (`sana`, `vila` or `other`), and which weight files."""

    name: str
    reader: str = "other"
    weights_variant: str | None = None

    @property
    def label(self) -> str:
        """How messages call it."""
        return self.name if self.weights_variant is None else f"{self.name} ({self.weights_variant})"


@dataclass(frozen=True)
class RepositoryFacts:
    """What is known of a repository of the hub without asking it.

    `bytes` are those of all files that are read, by weight variant, `plain` for none; `parameters` are those of the denoising
    network.
    """

    licence: str = ""
    terms: str = ""
    gated: bool = False
    parameters: int | None = None
    bytes: Mapping[str, int] = field(default_factory=dict)


@cache
def _table(path: Path) -> Mapping[str, Any]:
    return read_yaml(path).data


def repository_facts(name: str) -> RepositoryFacts:
    """What the table knows of `owner/name[@revision]`, maybe nothing."""
    known = _table(_TABLE).get("repositories", {})
    return RepositoryFacts(**known.get(name.removeprefix("hf://").partition("@")[0], {}))


def prompt_count(benchmark: str) -> int | None:
    """How many prompts a benchmark has whose prompts are a file; None where that is not known."""
    found = _table(_TABLE).get("prompt_counts", {}).get(benchmark)
    return None if found is None else int(found)


def read_assets() -> dict[str, Asset]:
    """All assets of the full tier by name, in the order of the table."""
    return {name: _asset(name, entry) for name, entry in _table(_TABLE)["assets"].items()}


def find_asset(name: str) -> Asset:
    """One asset by name; raises `UsageError` with the nearest name."""
    known = read_assets()
    if name not in known:
        raise UsageError(f"unknown asset {name!r}{nearest(name, known)}; known: {', '.join(known)}")
    return known[name]


def files_for(assets: Iterable[str]) -> list[RemoteFile]:
    """The files of assets by name, each once; raises `UsageError` with the nearest name."""
    files = {file.path: file for name in assets for file in find_asset(name).files}
    return list(files.values())


def _asset(name: str, entry: Mapping[str, Any]) -> Asset:
    files = tuple(
        RemoteFile(
            path=file["path"],
            home=file["from"],
            sha256=str(file.get("sha256", "")),
            unpack=file.get("unpack", ""),
            licence=entry.get("licence", ""),
            bytes=file.get("bytes"),
        )
        for file in entry["files"]
    )
    return Asset(name, files, entry.get("needed_for", ""), entry.get("fetched_by", ""))


def metric_needs(suite: Suite) -> tuple[list[str], list[str]]:
    """Names of the assets that the suite's prompts and metrics need, and the metrics of which no needs are listed.

    A judge that a metric is given as a parameter is none of them: see `judge_ids`.
    """
    table = _table(_TABLE)
    needs: Mapping[str, list[str]] = table["needs"]
    assets: dict[str, None] = {}
    unlisted: dict[str, None] = {}
    for spec in suite.file.benchmarks:
        assets.update(dict.fromkeys(() if spec.prompt_file else table["prompts"].get(spec.source, ())))
        for metric in _metrics(spec):
            if _JUDGE in metric.parameters or metric.function is not None:
                continue
            listed = needs.get(metric.protocol or metric.name, needs.get(metric.name))
            if listed is None:
                unlisted[metric.name] = None
            # A reference of one's own takes the place of the published one.
            unread = _REFERENCES if metric.reference not in (None, *NAMED_REFERENCES) else ()
            assets.update(dict.fromkeys(name for name in listed or () if name not in unread))
    return list(assets), list(unlisted)


def judge_ids(suite: Suite, relative_to: Path) -> list[str]:
    """The hub repositories that metrics of the suite take their judges from, each once."""
    published = published_judges()
    chosen = [metric for spec in suite.file.benchmarks for metric in _metrics(spec)]
    here = [metric for metric in chosen if not metric.parameters.get(_SERVER)]
    named = (str(metric.parameters.get(_JUDGE, published.get(metric.name, ""))) for metric in here)
    judges = (name.removeprefix("hf://") for name in named)
    return list(dict.fromkeys(name for name in judges if is_hub_id(name, relative_to)))


def published_judges() -> Mapping[str, str]:
    """By metric, the hub repository of the judge whose scores its authors publish."""
    judges: Mapping[str, str] = _table(_TABLE)["metric_judges"]
    return judges


def prompt_licences(benchmark: str) -> list[str]:
    """The licences of a benchmark's published prompts, as far as their publishers name one."""
    names = _table(_TABLE)["prompts"].get(benchmark, ())
    return list(dict.fromkeys(file.licence for file in files_for(names) if file.licence))


def _metrics(spec: BenchmarkSpec) -> list[MetricSpec]:
    """The metrics that a benchmark of a suite is scored with."""
    from sana_bench.core.registry import BENCHMARKS

    if spec.metric_specs:
        return list(spec.metric_specs)
    default = OWN_METRICS if spec.prompt_file is not None else BENCHMARKS.build(spec.source).metric_names
    return [MetricSpec(name=name) for name in default]


def judge_needs(variants: Iterable[Variant]) -> list[str]:
    """Names of the assets that the judges of variants' searches read below the data root."""
    table: Mapping[str, list[str]] = _table(_TABLE)["judges"]
    judges = [judge for variant in variants if (judge := _judge(variant)) is not None]
    return list(
        dict.fromkeys(name for judge in judges for name in table.get(judge.weights or judge.name, ()))
    )


def repositories_of(variants: Iterable[Variant], relative_to: Path) -> list[Repository]:
    """The hub repositories of variants' weights and of their judges', each once for each kind of weight files."""
    found: dict[Repository, None] = {}
    for variant in variants:
        model = variant.model
        reader = "sana" if variant.image_source == "sana" else "other"
        read = [(model.weights, reader, model.weights_variant)]
        also = (model.autoencoder, variant.lora.weights if variant.lora is not None else None)
        read += [(one, "other", None) for one in also if one is not None]
        judge = _judge(variant)
        if judge is not None and judge.name == "vila":
            read.append((judge.weights or VERIFIER, "vila", None))
        # mPLUG is published as a pickle, of which the hub's client is asked for none; see `judge_needs`.
        elif judge is not None and judge.weights is not None and judge.name not in ("vqa", "served"):
            read.append((judge.weights, "other", None))
        for weights, reader, files in read:
            name = weights.removeprefix("hf://")
            if is_hub_id(name, relative_to):
                found.setdefault(Repository(name, reader, files))
    return list(found)


def local_weights(variants: Iterable[Variant], relative_to: Path) -> dict[str, str]:
    """The variants' weights that are a folder of this machine and nowhere published, by the variant's name."""
    return {
        variant.name: variant.model.weights
        for variant in variants
        if variant.model.weights.startswith((".", "/", "~"))
        and not is_hub_id(variant.model.weights, relative_to)
    }


def _judge(variant: Variant) -> JudgeSpec | None:
    return variant.best_of_n.judge if variant.best_of_n is not None else None
