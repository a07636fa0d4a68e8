"""Repositories of the hub that a fetch brings: what is whole on this machine, and what is still to be loaded.

A download that was cut leaves the files that were whole by then in the hub's cache, and the next goes on with the others.
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from sana_bench.assets.checks import check_pipeline_directory, check_safetensors_files
from sana_bench.assets.download import Download, Say, Size
from sana_bench.assets.locate import data_root, hub_cache, hub_repository, resolve_folder
from sana_bench.assets.table import Repository
from sana_bench.core.errors import AssetError
from sana_bench.core.text import read_text

__all__ = ["planned_repositories"]

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
            _check(folder, repository.reader)
            say(f"{name}: already here, in {folder}")
        except AssetError as error:
            if folder == data_root() / "models" / name:
                how = f"finish it with `hf download {name} --local-dir {folder}`, or move it away to have it fetched"
                raise AssetError(f"{error}; {how}") from None
            planned.append(_download(repository, str(error), say))
    return planned


def _download(repository: Repository, problem: str, say: Say) -> Download:
    return Download(
        name=repository.name,
        source="the hub",
        folder=hub_cache(),
        is_remote=True,
        lacking=problem,
        measure=partial(_measure, repository.name),
        load=partial(_load, repository, say),
    )


def _measure(name: str) -> Size:
    from sana_models.hub import hub_files
    from sana_models.weight_files import CheckpointError

    try:
        files = hub_files(name)
    except CheckpointError as error:
        raise AssetError(str(error)) from None
    snapshot = hub_repository(name.partition("@")[0]) / "snapshots" / files.commit
    here = sum(size for path, size in files.sizes.items() if _is_whole(snapshot / path, size))
    return Size(sum(files.sizes.values()), here)


def _is_whole(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _load(repository: Repository, say: Say) -> None:
    from sana_models.hub import download
    from sana_models.weight_files import CheckpointError

    try:
        folder = download(repository.name)
    except CheckpointError as error:
        raise AssetError(str(error)) from None
    try:
        if repository.reader == "sana":
            check_pipeline_directory(folder)
        check_safetensors_files(folder)
    except AssetError as error:
        # Everything that the hub has is here, so a file was damaged on this machine or there is none at the source.
        raise AssetError(f"{error}; delete what is damaged and run the command again") from None
    say(f"{repository.name}: fetched, {folder}")


def _check(folder: Path, reader: str) -> None:
    """Raise `AssetError` for a folder that its reader cannot read, as far as names and lengths of files say."""
    if reader == "sana":
        check_pipeline_directory(folder)
        return
    parts = _PARTS.get(reader) or _named_parts(folder)
    missing = [part for part in parts if not _has_weights(folder / part)]
    if missing or not any(folder.rglob("*.safetensors")):
        raise AssetError(f"{folder}: missing {', '.join(missing) or 'weights, *.safetensors'}")
    check_safetensors_files(folder)


def _named_parts(folder: Path) -> list[str]:
    """The parts of a pipeline that has an index of them, otherwise the folders that are there."""
    index = folder / "model_index.json"
    if not index.is_file():
        return [path.name for path in folder.iterdir() if path.is_dir()]
    try:
        entries = json.loads(read_text(index))
        return [name for name, entry in entries.items() if isinstance(entry, list) and any(entry)]
    except (ValueError, AttributeError):
        raise AssetError(f"{index}: not valid JSON") from None


def _has_weights(part: Path) -> bool:
    """Whether a part is there, and has weights if it is a network; tokenizers and schedulers have no config.json."""
    is_network = (part / "config.json").is_file()
    return part.is_dir() and (not is_network or any(part.glob("*.safetensors")))
