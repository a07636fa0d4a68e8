"""From a path or a hub id to a folder on this machine."""

import re
from pathlib import Path

from sana_models.shared_parts import part_folder
from sana_models.weight_files import CheckpointError, first_line

__all__ = ["locate"]

_HUB_ID = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")


def locate(source: str | Path, *, part: str | None = None) -> Path:
    """Return the folder or file that `source` names, downloading a hub id `org/name[@revision]` when needed.

    `part` is a sub-folder of a pipeline (`transformer`, `vae`, ...): it is taken when `source` is a whole pipeline (from
    a neighbour that shares it, see `shared_parts`), and only its files are downloaded. What exists on disk is never
    looked up on the hub, and a `Path` never is. The hub client honours HF_HOME, HF_HUB_OFFLINE and HF_TOKEN.
    Raises CheckpointError, one line.
    """
    path = Path(source)
    if not path.exists():
        match = _HUB_ID.fullmatch(source) if isinstance(source, str) else None
        if match is None:
            raise CheckpointError(f"{source}: no such file or folder")
        path = _download(match["repository"], match["revision"], part)
    if part is not None and (path / "model_index.json").is_file():
        try:
            path = part_folder(path, part)
        except ValueError as error:
            raise CheckpointError(str(error)) from None
        if not path.is_dir():
            raise CheckpointError(f"{source}: this pipeline has no folder {part!r}")
    return path


def _download(repository: str, revision: str | None, part: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    # A part may live in a repository of its own, then at the top.
    folders = ["*"] if part is None else ["", f"{part}/"]
    kinds = ("*.json", "*.safetensors", "tokenizer.model", "*.txt")
    patterns = ["*.json", *(f"{folder}{kind}" for folder in folders for kind in kinds)]
    if part is None:
        patterns = [f"**/{kind}" for kind in kinds] + list(kinds)
    name = repository if revision is None else f"{repository}@{revision}"
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{name}: no such folder here, not in the hub's cache, and the hub cannot be reached"
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{name}: no such folder here, and the hub says: {first_line(error)}"
        ) from error
