"""Repositories of the hub that a fetch brings: what is whole on this machine, and what is still to be loaded.

A download that was cut leaves the files that were whole by then in the hub's cache, and the next goes on with the others.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from sana_bench.assets.checks import check_parts, check_pipeline_directory
from sana_bench.assets.download import Download, Say, Size
from sana_bench.assets.locate import data_root, hub_cache, hub_repository, is_offline, resolve_folder
from sana_bench.assets.table import Repository
from sana_bench.core.errors import AssetError
from sana_models.shared_parts import pipeline_files
from sana_models.weight_names import is_mixed

__all__ = ["check_repository", "planned_repositories"]

# Folders of a verifier, each with a configuration and weights of its own.
_PARTS = {"vila": ("llm", "vision_tower", "mm_projector")}


def planned_repositories(repositories: Sequence[Repository], relative_to: Path, say: Say) -> list[Download]:
    """What of `repositories` is still to be loaded; those that are here and whole are said.

    Raises `AssetError` for a folder below the data root that is not whole: the hub's client does not look there.
    """
    planned = []
    for repository in repositories:
        name = repository.name
        try:
            folder = resolve_folder(name, relative_to)
        except AssetError as error:
            planned.append(_download(repository, str(error), say))
            continue
        try:
            check_repository(folder, repository)
            if _may_be_cut(folder, repository):
                planned.append(_download(repository, f"{folder}: parts may be missing", say))
            else:
                say(f"{repository.label}: already here, in {folder}")
        except AssetError as error:
            if folder == data_root() / "models" / name:
                how = f"finish it with `hf download {name} --local-dir {folder}`, or move it away to have it fetched"
                raise AssetError(f"{error}; {how}") from None
            planned.append(_download(repository, str(error), say))
    return planned


def _may_be_cut(folder: Path, repository: Repository) -> bool:
    """Whether only the hub knows if all is here: a part with plain files alone may have no others, or they were not loaded."""
    variant = repository.weights_variant
    if variant is None or is_offline() or not folder.is_relative_to(hub_cache()):
        return False
    return is_mixed(pipeline_files(folder), variant)


def _download(repository: Repository, problem: str, say: Say) -> Download:
    return Download(
        name=repository.label,
        source="the hub",
        folder=hub_cache(),
        is_remote=True,
        lacking=problem,
        measure=partial(_measure, repository),
        load=partial(_load, repository, say),
    )


def _measure(repository: Repository) -> Size:
    from sana_models.hub import hub_files
    from sana_models.weight_files import CheckpointError

    try:
        files = hub_files(repository.name, repository.weights_variant)
    except CheckpointError as error:
        raise AssetError(str(error)) from None
    snapshot = hub_repository(repository.name.partition("@")[0]) / "snapshots" / files.commit
    here = sum(size for path, size in files.sizes.items() if _is_whole(snapshot / path, size))
    return Size(sum(files.sizes.values()), here)


def _is_whole(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _load(repository: Repository, say: Say) -> None:
    from sana_models.hub import download
    from sana_models.weight_files import CheckpointError

    try:
        folder = download(repository.name, repository.weights_variant)
    except CheckpointError as error:
        raise AssetError(str(error)) from None
    try:
        check_repository(folder, repository)
    except AssetError as error:
        # Everything that the hub has is here, so a file was damaged on this machine or there is none at the source.
        raise AssetError(f"{error}; delete what is damaged and run the command again") from None
    say(f"{repository.label}: fetched, {folder}")


def check_repository(folder: Path, repository: Repository) -> None:
    """Raise `AssetError` for a folder that its reader cannot read, as far as names and lengths of files say."""
    if repository.reader == "sana":
        check_pipeline_directory(folder, repository.weights_variant)
    elif (folder / "model_index.json").is_file():
        check_parts(folder, repository.weights_variant)
    else:
        parts = _PARTS.get(repository.reader) or [path.name for path in folder.iterdir() if path.is_dir()]
        check_parts(folder, repository.weights_variant, parts)
        if not any(folder.rglob("*.safetensors")):
            raise AssetError(f"{folder}: missing weights, *.safetensors")
