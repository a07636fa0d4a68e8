"""Which image of a folder is which sample of a prompt set: by what the folder says, a column of file names, or the names.

In this order: a manifest or GenEval's layout (see `image_folder`), files that the prompt file names, and names of files. By
name, the image of prompt `0001` is `0001.png`, `prompt_0001.png` (image_, img_, sample_), or a prompt's text; `0001_02.png`
and `0001/02.png` are one of several images of it, counted from 0 where any is 0 and from 1 otherwise; `CLASS/0001.png` and
OneIG's `CLASS/MODEL/0001.png` are prompt `CLASS_0001`. Numbers are compared as numbers.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sana_bench.assets.reference_set import images_below
from sana_bench.core.errors import AssetError, UsageError
from sana_bench.core.images import IMAGE_SUFFIXES
from sana_bench.core.samples import FoundImages, Prompt
from sana_bench.generators.image_folder import MANIFEST, ImageName, bounded, is_geneval_layout, read_folder
from sana_models.files import is_there

__all__ = ["Match", "image_files", "match_images", "number_images"]

_PREFIX = re.compile(r"^(?:prompt|image|img|sample)s?[_-]?(?=[0-9])", re.IGNORECASE)
_INDEXED = re.compile(r"^(?P<name>.+)[_-](?P<index>[0-9]+)$")
_DIGITS = re.compile(r"[0-9]+")
# Folders of OneIG-Bench by the category of its prompt file.
_ONEIG = {
    "anime_stylization": "anime",
    "portrait": "human",
    "general_object": "object",
    "text_rendering": "text",
    "knowledge_reasoning": "reasoning",
}

Place = tuple[str, int]


@dataclass(frozen=True)
class Match:
    """The images of a folder as samples of a prompt set, and how they were found, in words."""

    found: FoundImages
    how: str


def image_files(folder: Path) -> list[Path]:
    """The images below a folder, by their path; raises `UsageError` where there is no such folder or no image in it."""
    if not is_there(folder, Path.is_dir):
        raise UsageError(f"{folder}: there is no such folder")
    files = images_below(folder)
    if not files:
        raise UsageError(f"{folder}: no images ({', '.join(IMAGE_SUFFIXES)})")
    return sorted(files, key=lambda path: (_natural(path.relative_to(folder).as_posix()), path))


def number_images(folder: Path) -> FoundImages:
    """The images of a folder in the order of their names, each that of a prompt of its own: `00000`, `00001`, .."""
    return FoundImages({(f"{place:05d}", 0): path for place, path in enumerate(image_files(folder))})


def match_images(
    folder: Path,
    prompts: Sequence[Prompt],
    named: Mapping[Place, str] | None = None,
    *,
    numbered: bool = False,
    images_per_prompt: int | None = None,
) -> Match:
    """Find the images of prompts in a folder.

    `named` has the files that the prompt file names, `numbered` says that ids are row numbers. Images beyond `images_per_prompt`
    are surplus. Raises `UsageError` where there is no image, nothing matches, or numbers of files and of rows could be matched in
    two ways, and `AssetError` where two files would be one sample.
    """
    files = image_files(folder)
    if (folder / MANIFEST).is_file():
        pairs, how = list(_as_told(read_folder(folder), prompts)), f"by {MANIFEST}"
    elif is_geneval_layout(folder):
        pairs, how = list(_as_told(read_folder(folder), prompts)), "by GenEval's layout"
    else:
        pairs = list(_by_column(folder, files, named or {}))
        taken = {path for _, path in pairs}
        rest = [path for path in files if path not in taken]
        how = "by the file column" if pairs else "by name"
        if not pairs:
            pairs = _by_name(folder, rest, prompts, numbered)
    matched = _unique(folder, pairs)
    if not matched:
        raise UsageError(_nothing(folder, files, prompts))
    if images_per_prompt is not None:
        matched = {place: path for place, path in matched.items() if place[1] < images_per_prompt}
    used = set(matched.values())
    left = [path.relative_to(folder).as_posix() for path in files if path not in used]
    return Match(FoundImages(matched, tuple(left)), how)


def _as_told(files: Mapping[ImageName, Path], prompts: Sequence[Prompt]) -> Iterator[tuple[Place, Path]]:
    """By id and text where both agree, and by a text that one prompt alone has."""
    known = {(prompt.id, prompt.text) for prompt in prompts}
    by_text: dict[str, list[str]] = {}
    for prompt in prompts:
        by_text.setdefault(prompt.text, []).append(prompt.id)
    for name, path in files.items():
        if name.prompt_id is not None and (name.prompt_id, name.text) in known:
            yield (name.prompt_id, name.index), path
        elif len(ids := by_text.get(name.text, [])) == 1:
            yield (ids[0], name.index), path


def _by_column(
    folder: Path, files: Sequence[Path], named: Mapping[Place, str]
) -> Iterator[tuple[Place, Path]]:
    """By path below the folder, by name alone, and by name without its suffix."""
    keys: dict[str, list[Path]] = {}
    for path in files:
        relative = path.relative_to(folder)
        for key in dict.fromkeys(
            (relative.as_posix(), path.name, relative.with_suffix("").as_posix(), path.stem)
        ):
            keys.setdefault(key, []).append(path)
    for place, file in named.items():
        name = Path(file)
        for key in (name.as_posix(), name.name, name.with_suffix("").as_posix(), name.stem):
            if len(found := keys.get(key, [])) == 1:
                yield place, found[0]
                break


def _by_name(
    folder: Path, files: Sequence[Path], prompts: Sequence[Prompt], numbered: bool
) -> list[tuple[Place, Path]]:
    ids = _ids(prompts) if not numbered else {}
    ids = {**_texts(prompts), **ids}
    if numbered:
        ids |= _rows(folder, files, prompts)
    found = [(path, _lookup(path.relative_to(folder), ids)) for path in files]
    counted = [place[1] for _, place in found if place is not None and place[1] is not None]
    first = 0 if 0 in counted else 1
    return [
        ((place[0], 0 if place[1] is None else place[1] - first), path)
        for path, place in found
        if place is not None
    ]


def _lookup(relative: Path, ids: Mapping[str, str]) -> tuple[str, int | None] | None:
    """The prompt of a file and the number in its name, None for none."""
    stem = relative.stem
    if len(relative.parts) > 1 and _DIGITS.fullmatch(stem):
        parent = ids.get(_loose(relative.parts[-2]))
        if parent is not None:
            return parent, int(stem)
    names = [stem] if len(relative.parts) == 1 else [*_joined(relative), stem]
    for name in names:
        if (whole := ids.get(_loose(name))) is not None:
            return whole, None
    for name in names:
        split = _INDEXED.match(name)
        if split is not None and (part := ids.get(_loose(split["name"]))) is not None:
            return part, int(split["index"])
    return None


def _joined(relative: Path) -> list[str]:
    """Names of a file in folders: all of them, and OneIG's class with the file, its folder of the model left out."""
    parts = [*relative.parts[:-1], relative.stem]
    return ["_".join(parts), f"{parts[0]}_{parts[-1]}"]


def _loose(name: str) -> str:
    """What names are compared by: numbers without leading zeros, words in small letters without signs between them."""
    words = re.sub(r"[^0-9a-z]+", "_", _PREFIX.sub("", name).casefold()).strip("_")
    return "_".join(
        str(int(word)) if word.isdecimal() and word.isascii() else word for word in words.split("_")
    )


def _ids(prompts: Sequence[Prompt]) -> dict[str, str]:
    names = [(_loose(prompt.id), prompt.id) for prompt in prompts]
    for category, folder in _ONEIG.items():
        names += [
            (name.replace(category, folder, 1), prompt_id)
            for name, prompt_id in names
            if name.startswith(f"{category}_")
        ]
    return _without_doubt(names)


def _texts(prompts: Sequence[Prompt]) -> dict[str, str]:
    return _without_doubt([(_loose(prompt.text), prompt.id) for prompt in prompts])


def _without_doubt(names: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Names of one prompt alone."""
    owners: dict[str, set[str]] = {}
    for name, prompt_id in names:
        if name:
            owners.setdefault(name, set()).add(prompt_id)
    return {name: next(iter(found)) for name, found in owners.items() if len(found) == 1}


def _rows(folder: Path, files: Sequence[Path], prompts: Sequence[Prompt]) -> dict[str, str]:
    """Prompts by the numbers that files have, which count rows from 0 or from 1: told by the first or the last of them."""
    numbers = [number for path in files if (number := _row_number(path.relative_to(folder))) is not None]
    if not numbers:
        return {}
    if 0 in numbers:
        first = 0
    elif max(numbers) == len(prompts):
        first = 1
    else:
        raise UsageError(
            f"{folder}: files are numbered {min(numbers)} to {max(numbers)} and the {len(prompts)} prompts have no ids: "
            "whether 1 is the first or the second prompt is not clear; give them a column id or file"
        )
    return {str(place + first): prompt.id for place, prompt in enumerate(prompts)}


def _row_number(relative: Path) -> int | None:
    """The number of a prompt in the name of a file."""
    stem = relative.stem
    if len(relative.parts) > 1 and _DIGITS.fullmatch(stem) and _DIGITS.fullmatch(relative.parts[-2]):
        return int(relative.parts[-2])
    words = _loose(stem).split("_")
    return int(words[0]) if words[0].isdecimal() and len(words) <= 2 else None


def _unique(folder: Path, pairs: Sequence[tuple[Place, Path]]) -> dict[Place, Path]:
    found: dict[Place, Path] = {}
    # By the path as it is written: in the hub's cache equal images are links to one file.
    owners: dict[Path, Place] = {}
    problems = []
    for place, path in pairs:
        first = found.setdefault(place, path)
        owner = owners.setdefault(path, place)
        shown = path.relative_to(folder).as_posix()
        if first != path:
            other = first.relative_to(folder).as_posix()
            problems.append(f"{other} and {shown} would both be image {place[1]} of prompt {place[0]}")
        elif owner != place:
            problems.append(f"{shown} would be the image of the prompts {owner[0]} and {place[0]}")
    if problems:
        raise AssetError(f"{folder}: {bounded(problems)}")
    return found


def _nothing(folder: Path, files: Sequence[Path], prompts: Sequence[Prompt]) -> str:
    names = ", ".join(path.relative_to(folder).as_posix() for path in files[:3])
    ids = ", ".join(prompt.id for prompt in prompts[:3])
    return (
        f"{folder}: none of its {len(files)} images ({names}, ..) is named after a prompt ({ids}, ..); "
        "name them ID.png, or name the files in a column file of the prompts"
    )


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Order by numbers as numbers."""
    parts = re.split(r"([0-9]+)", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]
