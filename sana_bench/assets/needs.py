"""What a suite or a variant of the full tier needs: files below the data root, repositories of the hub, folders made here."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sana_bench.assets.locate import data_root, resolve_folder
from sana_bench.assets.table import (
    Repository,
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
from sana_models.files import is_there

__all__ = ["Needs", "needs_named", "needs_of_suite", "needs_of_variants"]


@dataclass(frozen=True)
class Needs:
    """Names of assets; repositories, each with the folder that local names start from and who needs it; folders.

    `folders` has by variant the weights that nobody publishes, with the folder that they start from. `unlisted` are metrics of
    which no needs are known. `suite` is the name of the suite that needs all this; empty where it is a variant.
    """

    assets: tuple[str, ...]
    repositories: dict[Repository, tuple[Path, tuple[str, ...]]]
    folders: dict[str, tuple[str, Path]]
    unlisted: tuple[str, ...] = ()
    suite: str = ""

    @property
    def missing_folders(self) -> list[str]:
        """A line for each variant whose weights are a folder that nobody publishes, and are not there."""
        lines = []
        for name, (weights, folder) in self.folders.items():
            try:
                resolve_folder(weights, folder)
            except AssetError as error:
                lines.append(f"variant {name}: {error}; nothing publishes it, its file says how it is made")
        return lines


def needs_named(what: str) -> Needs | None:
    """The needs of a suite or a variant, named or as a file; None for one of the micro tier, which needs nothing.

    Raises `SuiteError` where there is no such file or name.
    """
    path = _find(what)
    if "benchmarks" in read_yaml(path).data:
        return needs_of_suite(load_suite(path, "full"))
    variant = load_variant(path)
    return needs_of_variants([(variant, path.parent)]) if variant.tier == "full" else None


def needs_of_suite(suite: Suite) -> Needs | None:
    """The evaluators, prompts and weights of a suite of the full tier; of the micro tier, None."""
    if suite.tier != "full":
        return None
    names, unlisted = metric_needs(suite)
    own = needs_of_variants([(variant, suite.folder(variant)) for variant in suite.variants])
    judges = {Repository(name): (data_root(), ()) for name in judge_ids(suite, data_root())}
    repositories: dict[Repository, tuple[Path, tuple[str, ...]]] = {**judges, **own.repositories}
    return Needs((*names, *own.assets), repositories, own.folders, tuple(unlisted), suite.file.name)


def needs_of_variants(places: Sequence[tuple[Variant, Path]]) -> Needs:
    """The weights of variants, each with the folder that its relative paths start from, and of their judges."""
    repositories: dict[Repository, tuple[Path, tuple[str, ...]]] = {}
    folders: dict[str, tuple[str, Path]] = {}
    for variant, folder in places:
        for repository in repositories_of([variant], folder):
            first, users = repositories.get(repository, (folder, ()))
            repositories[repository] = (first, (*users, variant.name))
        for name, weights in local_weights([variant], folder).items():
            folders[name] = (weights, folder)
    assets = judge_needs([variant for variant, _ in places])
    return Needs(tuple(assets), repositories, folders)


def _find(what: str) -> Path:
    path = Path(what)
    if is_there(path, Path.is_file):
        return path
    known = {**variant_files(), **suite_files()}
    if what not in known:
        raise SuiteError(f"{what}: no such suite or variant{nearest(what, known)}")
    return known[what]
