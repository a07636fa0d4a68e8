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
from sana_bench.suites.load import list_variants, load_suite, load_variant
from sana_bench.suites.schema import Suite, Variant

__all__ = ["fetch", "fetch_suite"]

_MICRO = "the micro tier fetches nothing"


def fetch(what: str, say: Say, mirror: str | None = None) -> None:
    """Fetch what a suite file, a variant file or a variant of `suites/variants` needs on the full tier.

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
    _fetch(judge_needs([variant]), [], [variant], path.parent, say, mirror)
    if unpublished := _missing_folders([variant], path.parent):
        raise AssetError(unpublished[0])


def fetch_suite(suite: Suite, say: Say, mirror: str | None = None) -> None:
    """Fetch the evaluators and the variants' weights of a suite of the full tier; of the micro tier, nothing."""
    if suite.tier != "full":
        say(_MICRO)
        return
    names, unlisted = metric_needs(suite)
    if unlisted:
        say(f"not fetched: whatever {', '.join(unlisted)} may need; see the metric's page in docs/")
    for line in _missing_folders(suite.variants, suite.variants_dir):
        say(f"not fetched: {line}")
    judges = [Repository(name) for name in judge_ids(suite, data_root())]
    needs = [*names, *judge_needs(suite.variants)]
    _fetch(needs, judges, suite.variants, suite.variants_dir, say, mirror)


def _fetch(
    assets: Sequence[str],
    judges: Sequence[Repository],
    variants: Sequence[Variant],
    variants_dir: Path,
    say: Say,
    mirror: str | None,
) -> None:
    root = data_root()
    carry_out(
        [
            *planned_files(files_for(assets), root, say, mirror),
            *planned_repositories(judges, root, say),
            *planned_repositories(repositories_of(variants, variants_dir), variants_dir, say),
        ],
        say,
    )


def _missing_folders(variants: Sequence[Variant], variants_dir: Path) -> list[str]:
    """A line for each variant whose weights are a folder that nobody publishes, and are not there."""
    lines = []
    for name, weights in local_weights(variants, variants_dir).items():
        try:
            resolve_folder(weights, variants_dir)
        except AssetError as error:
            lines.append(
                f"variant {name}: {error}; it is not published; the variant's file says how to make it"
            )
    return lines


def _find(what: str) -> Path:
    path = Path(what)
    if path.is_file():
        return path
    from sana_bench.suites.load import suites_dir

    suites = suites_dir()
    for candidate in (suites / f"{what}.yaml", suites / "variants" / f"{what}.yaml"):
        if candidate.is_file():
            return candidate
    names = [*(suite.stem for suite in suites.glob("*.yaml")), *list_variants(suites / "variants")]
    raise SuiteError(f"{what}: no such suite or variant{nearest(what, names)}")
