"""Training images with captions, found in folders, shards and tables of the usual kinds, and indexed without reading pixels.

- SANA's own: `meta_data.json` (`"__kind__": "Sana-ImgDataset"`, `img_names`) beside images, and `wids-meta.json` (`"__kind__":
  "SANA-WebDataset"`, `shardlist`) beside tar shards.
- Any other folder by what is in it, at any depth: lists of files called `metadata`, tar shards, images with captions of the same
  name, Parquet files with a column of images. A path may also be one of these files.

`.npy` files are latents, already scaled as the diffusion model sees them.
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sana_models.files import is_there, parse_json, read_text
from sana_models.training.captions import CaptionReader
from sana_models.training.records import BadRecords, Record, is_inside, make_record
from sana_models.training.tables import FILE_LISTS, ImageTable, image_table, read_file_list
from sana_models.training.tar_shards import CAPTION_SUFFIXES, IMAGE_SUFFIXES, read_shard

__all__ = ["read_index"]


def read_index(
    paths: Sequence[Path],
    suffixes: Sequence[str],
    bad: BadRecords,
    *,
    keys: Sequence[str] = (),
    image_key: str | None = None,
) -> list[Record]:
    """Return all usable records of data sets, in a fixed order.

    `suffixes` name further caption files, `keys` the places of captions in JSON and tables (see `CaptionReader`), `image_key` the
    column of images in Parquet files. Records that cannot be used go to `bad`, whose total is set. Raises ValueError for a path
    without images, a damaged index file, or too large a share of bad records.
    """
    captions = CaptionReader(suffixes, keys)
    records = [record for path in paths for record in _read(path, captions, bad, image_key)]
    bad.total = len({record.key for record in records} | bad.reasons.keys())
    bad.check()
    if not records:
        raise ValueError(f"no usable training record in {', '.join(map(str, paths))}{bad.first()}")
    return records


def _read(path: Path, captions: CaptionReader, bad: BadRecords, image_key: str | None) -> Iterator[Record]:
    if is_there(path / "meta_data.json", Path.is_file):
        return _read_listed(path, captions, bad)
    if (path / "wids-meta.json").is_file():
        return _read_listed_shards(path, captions, bad)
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder")
    return _read_contents(path, _contents(path), captions, bad, image_key)


def _read_contents(
    path: Path, found: "_Contents", captions: CaptionReader, bad: BadRecords, image_key: str | None
) -> Iterator[Record]:
    tables = _image_tables(found.tables, image_key)
    kinds = {"lists of files": found.lists, "tar shards": found.shards, "Parquet files of images": tables}
    # A list of files speaks for the images below it; loose ones beside shards could be anything.
    kinds |= {} if found.lists else {"images": found.images}
    several = [name for name, entries in kinds.items() if entries]
    if not several:
        raise ValueError(
            f"{path}: holds no images (with .txt, .json or .caption), metadata.jsonl, tar shards or Parquet files"
        )
    if len(several) > 1:
        raise ValueError(f"{path}: holds {' and '.join(several)}; name the folder of each in data.paths")
    for table in found.lists:
        yield from read_file_list(table, captions, bad)
    for shard in found.shards:
        yield from read_shard(shard, captions, bad, None)
    for image in () if found.lists else found.images:
        yield from _read_image(image, found.beside[image.parent / image.stem], captions, bad)
    for images in tables:
        yield from images.read(captions, bad)


@dataclass(slots=True)
class _Contents:
    """What lies in a folder: data by kind, and caption files by the images' paths without ending."""

    lists: list[Path] = field(default_factory=list)
    shards: list[Path] = field(default_factory=list)
    images: list[Path] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)
    beside: dict[Path, dict[str, Path]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, path: Path, *, named: bool = False) -> None:
        """Sort a file in; one that is `named` by the user may be a list of files of any name."""
        ending = path.suffix.lower()
        if ending in FILE_LISTS and (path.stem.lower() == "metadata" or (named and ending != ".parquet")):
            self.lists.append(path)
        elif ending == ".parquet":
            self.tables.append(path)
        elif ending in (".tar", ".tgz") or path.name.lower().endswith((".tar.gz", ".tar.xz", ".tar.zst")):
            self.shards.append(path)
        elif ending in IMAGE_SUFFIXES:
            self.images.append(path)
        elif ending in (".json", *CAPTION_SUFFIXES):
            self.beside[path.parent / path.stem][ending] = path


def _contents(path: Path) -> _Contents:
    found = _Contents()
    if not path.is_dir():
        found.add(path, named=True)
        if found.images:
            raise ValueError(f"{path}: is one image; name its folder")
        return found

    def refuse(error: OSError) -> None:
        raise ValueError(f"{error.filename}: cannot be listed: {error.strerror}") from error

    for folder, folders, names in os.walk(path, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            found.add(Path(folder, name))
    return found


def _image_tables(paths: Sequence[Path], image_key: str | None) -> list[ImageTable]:
    """Those with images; img2dataset leaves Parquet files without them beside its shards."""
    tables = [image_table(path, image_key) for path in paths]
    return [table for table in tables if table is not None]


def _read_image(
    path: Path, beside: dict[str, Path], captions: CaptionReader, bad: BadRecords, label: str | None = None
) -> Iterator[Record]:
    """Yield an image with its own text and JSON files and its further files."""

    def record() -> Record:
        found = captions.beside(path.with_suffix(""), path.name.removesuffix(path.suffix))
        for ending in CAPTION_SUFFIXES:
            if ending in beside:
                found = captions.of_text(read_text(beside[ending])) | found
        if ".json" in beside:
            found = captions.of_facts(parse_json(read_text(beside[".json"]))) | found
        return make_record(label or str(path), path, path.suffix, found)

    yield from bad.attempt(label or str(path), record)


def _read_listed(folder: Path, captions: CaptionReader, bad: BadRecords) -> Iterator[Record]:
    names = _index(folder / "meta_data.json", "Sana-ImgDataset").get("img_names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{folder / 'meta_data.json'}: img_names is not a list of names")
    for name in names:
        label = f"{folder}/{name}"
        try:
            path = _image_path(folder, name)
        except (OSError, ValueError) as error:
            bad.add(label, error)
            continue
        texts = [path.with_suffix(ending) for ending in _spellings(*CAPTION_SUFFIXES)]
        beside = {text.suffix.lower(): text for text in texts if text.is_file()}
        yield from _read_image(path, beside, captions, bad, label)


def _read_listed_shards(folder: Path, captions: CaptionReader, bad: BadRecords) -> Iterator[Record]:
    shards = _index(folder / "wids-meta.json", "SANA-WebDataset").get("shardlist")
    if not isinstance(shards, list):
        raise ValueError(f"{folder / 'wids-meta.json'}: shardlist is not a list")
    for entry in shards:
        url = entry.get("url") if isinstance(entry, dict) else None
        if not isinstance(url, str) or not is_inside(url):
            raise ValueError(f"{folder / 'wids-meta.json'}: shard {url!r} is not a file in this folder")
        promised = entry.get("nsamples")
        if promised is not None and (isinstance(promised, bool) or not isinstance(promised, int)):
            raise ValueError(f"{folder / 'wids-meta.json'}: nsamples of {url} is {promised!r}, not a number")
        yield from read_shard(folder / url, captions, bad, promised)


def _index(path: Path, kind: str) -> dict[str, Any]:
    try:
        data = parse_json(read_text(path))
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(data, dict) or data.get("__kind__") != kind:
        found = data.get("__kind__") if isinstance(data, dict) else type(data).__name__
        raise ValueError(f"{path}: __kind__ is {found!r}, expected {kind!r}")
    return data


def _image_path(folder: Path, name: str) -> Path:
    if not is_inside(name):
        raise ValueError("its name leaves the folder")
    if name.lower().endswith(IMAGE_SUFFIXES):
        candidates = [folder / name]
    else:
        candidates = [folder / f"{name}{ending}" for ending in _spellings(*IMAGE_SUFFIXES)]
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        raise ValueError("no such image")
    return path


def _spellings(*endings: str) -> list[str]:
    return [spelt for ending in endings for spelt in (ending, ending.upper())]
