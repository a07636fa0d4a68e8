"""From a suite or a variant to the files it needs on this machine."""

from collections.abc import Sequence
from pathlib import Path

from sana_bench.assets.download import Say, carry_out, planned_files
from sana_bench.assets.hub import planned_repositories
from sana_bench.assets.locate import data_root, resolve_folder
from sana_bench.assets.table import (
    Repository,
    files_for,
    judge_ids,
    judge_needs,
    local_weights,
    metric_needs,
    repositories_of,
)
from sana_bench.core.errors import AssetError, SuiteError, nearest
from sana_bench.suites.config_files import read_yaml
from sana_bench.suites.find import suite_files, variant_files
from sana_bench.suites.load import load_suite, load_variant
from sana_bench.suites.schema import Suite, Variant

__all__ = ["fetch", "fetch_suite"]

_MICRO = "the micro tier fetches nothing"

#: A variant and the folder that its relative paths start from.
_Place = tuple[Variant, Path]


def fetch(what: str, say: Say, mirror: str | None = None) -> None:
    """Fetch what a suite or a variant, named or as a file, needs on the full tier.

    All sizes are said, and the free space is checked, before anything is fetched.

    Raises:
        SuiteError: there is no such file or name.
        AssetError: a variant's weights are a local folder that is not there, or as `sana_bench.assets.download.carry_out`.
    """
    path = _find(what)
    if "benchmarks" in read_yaml(path).data:
        fetch_suite(load_suite(path, "full"), say, mirror)
        return
    variant = load_variant(path)
    if variant.tier != "full":
        say(_MICRO)
        return
    places = [(variant, path.parent)]
    _fetch(judge_needs([variant]), [], places, say, mirror)
    if unpublished := _missing_folders(places):
        raise AssetError(unpublished[0])


def fetch_suite(suite: Suite, say: Say, mirror: str | None = None) -> None:
    """Fetch the evaluators and the variants' weights of a suite of the full tier; of the micro tier, nothing."""
    if suite.tier != "full":
        say(_MICRO)
        return
    names, unlisted = metric_needs(suite)
    if unlisted:
        say(f"not fetched: what {', '.join(unlisted)} may need; docs/ has a page for each metric")
    places = [(variant, suite.folder(variant)) for variant in suite.variants]
    for line in _missing_folders(places):
        say(f"not fetched: {line}")
    judges = [Repository(name) for name in judge_ids(suite, data_root())]
    needs = [*names, *judge_needs(suite.variants)]
    _fetch(needs, judges, places, say, mirror)


def _fetch(
    assets: Sequence[str],
    judges: Sequence[Repository],
    places: Sequence[_Place],
    say: Say,
    mirror: str | None,
) -> None:
    root = data_root()
    published: dict[str, tuple[Repository, Path]] = {}
    for variant, folder in places:
        for repository in repositories_of([variant], folder):
            published.setdefault(repository.name, (repository, folder))
    carry_out(
        [
            *planned_files(files_for(assets), root, say, mirror),
            *planned_repositories(judges, root, say),
            *(
                download
                for repository, folder in published.values()
                for download in planned_repositories([repository], folder, say)
            ),
        ],
        say,
    )


def _missing_folders(places: Sequence[_Place]) -> list[str]:
    """A line for each variant whose weights are a folder that nobody publishes, and are not there."""
    lines = []
    for variant, folder in places:
        for name, weights in local_weights([variant], folder).items():
            try:
                resolve_folder(weights, folder)
            except AssetError as error:
                lines.append(f"variant {name}: {error}; nothing publishes it, its file says how it is made")
    return lines


def _find(what: str) -> Path:
    path = Path(what)
    if path.is_file():
        return path
    known = {**variant_files(), **suite_files()}
    if what not in known:
        raise SuiteError(f"{what}: no such suite or variant{nearest(what, known)}")
    return known[what]
