"""Pipeline folders that take their autoencoder from a neighbouring one, so that a family stores it once.

`shared_parts.json` in a pipeline folder names the folder beside it that holds the part, `{"vae": "sana-micro"}`. It stands in
for the part's files: everything else, hashes included, is as if they lay in the folder itself.
"""

import json
from pathlib import Path

from sana_models.files import plain, read_text

__all__ = ["SHARED_PARTS", "files_below", "part_folder", "pipeline_files", "shared_parts"]

SHARED_PARTS = "shared_parts.json"
#: Transformer, text encoder and scheduler make a pipeline what it is; the autoencoder is the family's.
_SHAREABLE = "vae"


def shared_parts(pipeline: Path) -> dict[str, Path]:
    """Return the folders of the parts that lie in a neighbour; none for a folder that says nothing about it.

    Raises ValueError, one line, for anything but the name of a neighbour that has the part.
    """
    path = pipeline / SHARED_PARTS
    if not path.is_file():
        return {}
    try:
        entries = json.loads(read_text(path))
    except ValueError:
        raise ValueError(f"{path}: not valid JSON") from None
    name = entries.get(_SHAREABLE) if isinstance(entries, dict) and len(entries) == 1 else None
    # A name only: a folder that somebody sends must not point anywhere on this machine.
    if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\\" in name:
        raise ValueError(
            f'{path}: expected {{"{_SHAREABLE}": NAME}} with the name of a folder beside this one'
        )
    place = pipeline.parent / name / _SHAREABLE
    if not place.is_dir():
        raise ValueError(f"{path}: {_SHAREABLE!r} lies in {place}, which is not there")
    if (pipeline / _SHAREABLE).exists():
        raise ValueError(f"{path}: {_SHAREABLE!r} is in this folder and shared as well")
    return {_SHAREABLE: place}


def part_folder(pipeline: Path, part: str) -> Path:
    """Return where a part of a pipeline lies: its own sub-folder, or a neighbour's. Raises as `shared_parts`."""
    return shared_parts(pipeline).get(part, pipeline / part)


def pipeline_files(folder: Path) -> dict[str, Path]:
    """Return all files below a folder, shared parts' included, by the relative names they have in a complete folder.

    Raises as `shared_parts`.
    """
    roots = {"": folder} | {f"{part}/": place for part, place in shared_parts(folder).items()}
    found = {
        prefix + name: path for prefix, root in roots.items() for name, path in files_below(root).items()
    }
    found.pop(SHARED_PARTS, None)
    return dict(sorted(found.items()))


def files_below(folder: Path) -> dict[str, Path]:
    """Return all files below a folder by relative name, those in linked folders too, as the hub's cache and others make them.

    A link to a folder that it lies in is not followed. Raises `OSError` for what is neither a file nor a folder, such as a
    named pipe, which a library would wait for.
    """
    found = {}
    open_ = [(folder, frozenset({folder.resolve()}))]
    while open_:
        place, above = open_.pop()
        for path in place.iterdir():
            if path.is_file():
                found[path.relative_to(folder).as_posix()] = path
            elif not path.is_dir():
                if path.exists():
                    plain(path)
            elif (real := path.resolve()) not in above:
                open_.append((path, above | {real}))
    return dict(sorted(found.items()))
