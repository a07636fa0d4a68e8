"""From a path or a hub id to a folder on this machine."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from glob import escape
from pathlib import Path

from sana_models.files import first_line, is_there
from sana_models.shared_parts import part_folder
from sana_models.weight_files import CheckpointError
from sana_models.weight_names import files_to_read, refuse_variant

__all__ = ["HubFiles", "download", "hub_files", "locate"]

_HUB_ID = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_KINDS = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")


@dataclass(frozen=True)
class HubFiles:
    """The files of a repository that `download` would bring: its commit, and bytes (0 where unknown) by path."""

    commit: str
    sizes: dict[str, int]


def locate(
    source: str | Path, *, part: str | None = None, variant: str | None = None, weights: bool = True
) -> Path:
    """Return the folder or file that `source` names, downloading a hub id `org/name[@revision]` when needed.

    `part` is a sub-folder of a pipeline (`transformer`, `vae`, ...): it is taken when `source` is a whole pipeline (from
    a neighbour that shares it, see `shared_parts`), and only its files are downloaded. Of weights, only those that are read for
    `variant` are downloaded (see `weight_names`), and none without `weights`. What exists on disk is never looked up on the hub,
    and a `Path` never is. The hub client honours HF_HOME, HF_HUB_OFFLINE and HF_TOKEN. Raises CheckpointError, one line.
    """
    path = Path(source)
    if not is_there(path):
        match = _HUB_ID.fullmatch(source) if isinstance(source, str) else None
        if match is None:
            raise CheckpointError(f"{source}: no such file or folder")
        path = _download(match["repository"], match["revision"], part, variant, weights=weights)
    if part is not None and (path / "model_index.json").is_file():
        try:
            path = part_folder(path, part)
        except ValueError as error:
            raise CheckpointError(str(error)) from None
        if not path.is_dir():
            raise CheckpointError(f"{source}: this pipeline has no folder {part!r}")
    return path


def download(hub_id: str, variant: str | None = None) -> Path:
    """Bring what is missing of the repository `org/name[@revision]` into the hub's cache, and return its folder there.

    Of weights, only those that are read for `variant` come. Files that are whole in the cache are kept. Raises CheckpointError,
    one line.
    """
    return _download(*_parse(hub_id), None, variant)


def hub_files(hub_id: str, variant: str | None = None) -> HubFiles:
    """Ask the hub what `download` would bring of `org/name[@revision]`; raises CheckpointError, one line."""
    repository, revision = _parse(hub_id)
    with _one_line(hub_id):
        commit, sizes = _listing(repository, revision, sizes=True)
        return HubFiles(commit, {name: sizes[name] for name in _select(sizes, None, variant)})


def _parse(hub_id: str) -> tuple[str, str | None]:
    match = _HUB_ID.fullmatch(hub_id)
    if match is None:
        raise CheckpointError(f"{hub_id}: not the name of a repository, org/name or org/name@revision")
    return match["repository"], match["revision"]


def _download(
    repository: str, revision: str | None, part: str | None, variant: str | None, *, weights: bool = True
) -> Path:
    from huggingface_hub import snapshot_download

    with _one_line(repository if revision is None else f"{repository}@{revision}"):
        wanted = _wanted(repository, revision, part, variant)
        if not weights:
            wanted = [name for name in wanted if not name.endswith(".safetensors")]
        return Path(snapshot_download(repository, revision=revision, allow_patterns=wanted))


def _wanted(repository: str, revision: str | None, part: str | None, variant: str | None) -> list[str]:
    from huggingface_hub.errors import HTTPError

    try:
        _, sizes = _listing(repository, revision)
    except (HTTPError, OSError):
        # Out of reach: the cache is taken as it is, and whoever reads a part of it says what it lacks.
        return ["model_index.json", "config.json"]
    return [escape(name) for name in _select(sizes, part, variant)]


def _listing(repository: str, revision: str | None, *, sizes: bool = False) -> tuple[str, dict[str, int]]:
    """The commit of a repository's revision, and its files with their sizes in bytes, 0 where not asked for or unknown."""
    from huggingface_hub import HfApi

    info = HfApi().model_info(repository, revision=revision, files_metadata=sizes)
    return info.sha or "", {file.rfilename: file.size or 0 for file in info.siblings or ()}


def _select(names: Iterable[str], part: str | None, variant: str | None) -> list[str]:
    """The files that are read; raises ValueError, one line, where a whole pipeline has no weights of the variant."""
    kinds = [name for name in names if any(fnmatch(name.rpartition("/")[2], kind) for kind in _KINDS)]
    if part is not None and any(name.startswith(f"{part}/") for name in kinds):
        # A part may also live in a repository of its own, then at the top.
        kinds = [name for name in kinds if name.startswith(f"{part}/") or name == "model_index.json"]
    if part is None:
        refuse_variant(kinds, variant)
    return files_to_read(kinds, variant)


@contextmanager
def _one_line(name: str) -> Iterator[None]:
    # The HTTP client's own errors, connections that fail among them, are no OSErrors; which client it is depends on
    # the version of the hub's, which names the base of its errors.
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        HTTPError,
        LocalEntryNotFoundError,
    )

    missing = f"{name}: no such folder here"
    try:
        yield
    except LocalEntryNotFoundError as error:
        # Newer versions of the client say where there is a part of it.
        part = getattr(error, "snapshot_path", None)
        found = f"{name}: {part} is not complete" if part else f"{missing}, not in the hub's cache"
        reason = f": {first_line(error.__cause__)}" if error.__cause__ is not None else ""
        raise CheckpointError(f"{found}, and the hub cannot be reached{reason}") from error
    except GatedRepoError as error:
        page = f"{constants.ENDPOINT}/{name.partition('@')[0]}"
        raise CheckpointError(
            f"{missing}, and its publisher asks for a licence to be accepted: at {page}, then log in with `hf auth login`"
        ) from error
    except HfHubHTTPError as error:
        raise CheckpointError(f"{missing}, and the hub says: {first_line(error)}") from error
    except HTTPError as error:
        raise CheckpointError(f"{missing}, and the hub cannot be reached: {first_line(error)}") from error
    except (HFValidationError, OSError, ValueError) as error:
        raise CheckpointError(f"{missing}; {first_line(error)}") from error
