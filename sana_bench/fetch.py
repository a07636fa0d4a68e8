"""From a suite or a variant to the files it needs on this machine."""

from collections.abc import Callable, Sequence
from pathlib import Path

from sana_bench.assets import data_root, is_offline, resolve_folder
from sana_bench.catalogue import catalogue
from sana_bench.errors import AssetError, SuiteError, nearest
from sana_bench.fetching import fetch_files
from sana_bench.homes import files_for, hub_ids, judge_ids, metric_needs
from sana_bench.suite import Suite, list_variants, load_suite, load_variant
from sana_bench.yaml_files import read_yaml

__all__ = ["fetch", "fetch_suite"]

Say = Callable[[str], None]


def fetch(what: str, say: Say, mirror: str | None = None) -> None:
    """Fetch what a suite file, a variant file or a variant of `suites/variants` needs on the full tier.

    Raises:
        SuiteError: there is no such file or name.
        AssetError: as `sana_bench.fetching.fetch_files`.
    """
    path = _find(what)
    if "benchmarks" in read_yaml(path).data:
        fetch_suite(load_suite(path, "full", catalogue()), say, mirror)
        return
    variant = load_variant(path, catalogue())
    _fetch_repositories(hub_ids([variant], path.parent), path.parent, say)


def fetch_suite(suite: Suite, say: Say, mirror: str | None = None) -> None:
    """Fetch the evaluators and the variants' weights of a suite of the full tier; of the micro tier, nothing."""
    if suite.tier != "full":
        say("the micro tier fetches nothing")
        return
    names, unlisted = metric_needs(suite)
    if unlisted:
        say(f"not fetched: what {', '.join(unlisted)} may need; docs/ has a page for each metric")
    fetch_files(files_for(names), data_root(), say, mirror)
    _fetch_repositories(judge_ids(suite, data_root()), data_root(), say)
    _fetch_repositories(hub_ids(suite.variants, suite.variants_dir), suite.variants_dir, say)


def _fetch_repositories(names: Sequence[str], relative_to: Path, say: Say) -> None:
    from sana_models.hub import locate
    from sana_models.weight_files import CheckpointError

    for name in names:
        try:
            say(f"{name}: is there, {resolve_folder(name, relative_to)}")
            continue
        except AssetError as error:
            if is_offline():
                raise AssetError(f"HF_HUB_OFFLINE is set, nothing is fetched; {error}") from None
        say(f"{name}: {_repository_size(name)}, from the hub")
        try:
            say(f"{name}: fetched, {locate(name)}")
        except CheckpointError as error:
            raise AssetError(str(error)) from None


def _repository_size(name: str) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    repository, _, revision = name.partition("@")
    try:
        info = HfApi().model_info(repository, revision=revision or None, files_metadata=True)
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise AssetError(f"{name}: the hub cannot be asked ({' '.join(str(error).split())[:160]})") from None
    kinds = (".safetensors", ".json", ".txt", ".model")
    sizes = [file.size or 0 for file in info.siblings or () if file.rfilename.endswith(kinds)]
    return f"up to {sum(sizes) / 1e6:,.0f} MB"


def _find(what: str) -> Path:
    path = Path(what)
    if path.is_file():
        return path
    from sana_bench.listing import suites_dir

    suites = suites_dir()
    for candidate in (suites / f"{what}.yaml", suites / "variants" / f"{what}.yaml"):
        if candidate.is_file():
            return candidate
    names = [*(suite.stem for suite in suites.glob("*.yaml")), *list_variants(suites / "variants")]
    raise SuiteError(f"{what}: no such suite or variant{nearest(what, names)}")
