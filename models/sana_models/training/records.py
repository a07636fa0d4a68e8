"""Training images with captions, in the two formats of SANA's published training code, indexed without reading pixels.

- A folder: `meta_data.json` (`"__kind__": "Sana-ImgDataset"`, `img_names`) beside `KEY.png|jpg`, `KEY.txt`, and for every caption
  suffix optionally `KEY<SUFFIX>.json` and `KEY<SUFFIX>_clip_score.json`, both `{KEY: {type: ...}}`.
- Tar shards: `wids-meta.json` (`"__kind__": "SANA-WebDataset"`, `shardlist`), shards of `KEY.jpg|png|npy` and `KEY.json`
  (height, width, prompt), and per shard optionally `SHARD<SUFFIX>.json` and `SHARD<SUFFIX>_clip_score.json`.

`.npy` files are latents, already scaled as the diffusion model sees them.
"""

import csv
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from sana_models.files import open_plain, plain, read_text
from sana_models.training.caption_choice import DEFAULT_CAPTION

__all__ = ["BadRecords", "Record", "read_index"]

_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".npy")
_MAX_TEXT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Record:
    """One image or latent: where its bytes are, and its captions with CLIP scores by caption type.

    `key` is its identity, in messages and in all that is remembered of it: data set, path inside it, and name.
    """

    key: str
    path: Path
    suffix: str
    captions: Mapping[str, str]
    scores: Mapping[str, float] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    span: tuple[int, int] | None = None

    def read(self) -> bytes:
        """Return the bytes of the image or latent; raises OSError."""
        with open_plain(self.path) as stream:
            if self.span is None:
                return stream.read()
            stream.seek(self.span[0])
            content = stream.read(self.span[1])
        if len(content) != self.span[1]:
            raise OSError("the shard ends inside this record")
        return content


class BadRecords:
    """Counts records that cannot be used, each once; stops the run when they are too large a share.

    With `path`, a CSV file, they are remembered by later runs.
    """

    def __init__(self, *, max_share: float, path: Path | None = None) -> None:
        if not 0 <= max_share <= 1:
            raise ValueError(f"max_bad_share is {max_share}; expected a share from 0 to 1")
        self.max_share = max_share
        self.total = 0
        self.path = path
        self.reasons: dict[str, str] = {}
        if path is not None and path.is_file():
            rows = csv.reader(io.StringIO(read_text(path), newline=""))
            self.reasons = dict(row for row in rows if len(row) == 2)

    def add(self, key: str, reason: object) -> None:
        """Count a record; raises ValueError, one line, when more than the allowed share of all is bad."""
        if key not in self.reasons:
            self.reasons[key] = (str(reason).splitlines() or [type(reason).__name__])[0]
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("a", newline="", encoding="utf-8") as stream:
                    csv.writer(stream).writerow([key, self.reasons[key]])
        # While the index is being read the total is not known yet.
        if self.total:
            self.check()

    def check(self) -> None:
        """Raise ValueError when more than the allowed share of all records is bad."""
        if len(self.reasons) > self.max_share * self.total:
            key, reason = next(iter(self.reasons.items()))
            raise ValueError(
                f"{len(self.reasons)} of {self.total} training records are bad, more than the allowed share "
                f"{self.max_share:g}; the first: {key}: {reason}"
            )


def read_index(paths: Sequence[Path], suffixes: Sequence[str], bad: BadRecords) -> list[Record]:
    """Return all usable records of folders in either format, in a fixed order.

    `suffixes` name the further caption files. Records that cannot be used go to `bad`, whose total is set. Raises
    ValueError for a folder of neither format, a damaged index file, or too large a share of bad records.
    """
    records: list[Record] = []
    for path in paths:
        if (path / "meta_data.json").is_file():
            records += _read_folder(path, suffixes, bad)
        elif (path / "wids-meta.json").is_file():
            records += _read_shards(path, suffixes, bad)
        else:
            raise ValueError(
                f"{path}: holds neither meta_data.json (a folder of images) nor wids-meta.json (tar shards)"
            )
    bad.total = len({record.key for record in records} | bad.reasons.keys())
    bad.check()
    if not records:
        raise ValueError(f"no usable training record in {', '.join(map(str, paths))}")
    return records


def _read_folder(folder: Path, suffixes: Sequence[str], bad: BadRecords) -> Iterator[Record]:
    names = _index(folder / "meta_data.json", "Sana-ImgDataset").get("img_names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{folder / 'meta_data.json'}: img_names is not a list of names")
    for name in names:
        label = f"{folder}/{name}"
        try:
            path = _image_path(folder, name)
            key = path.name.removesuffix(path.suffix)
            captions, scores = _external(path.with_suffix(""), key, suffixes)
            text = path.with_suffix(".txt")
            if text.is_file():
                captions = {DEFAULT_CAPTION: read_text(text).strip(), **captions}
            yield _record(label, path, path.suffix, captions, scores)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            bad.add(label, error)


def _read_shards(folder: Path, suffixes: Sequence[str], bad: BadRecords) -> Iterator[Record]:
    shards = _index(folder / "wids-meta.json", "SANA-WebDataset").get("shardlist")
    if not isinstance(shards, list):
        raise ValueError(f"{folder / 'wids-meta.json'}: shardlist is not a list")
    for entry in shards:
        url = entry.get("url") if isinstance(entry, dict) else None
        if not isinstance(url, str) or not _is_inside(url):
            raise ValueError(f"{folder / 'wids-meta.json'}: shard {url!r} is not a file in this folder")
        yield from _read_shard(folder / url, entry, suffixes, bad)


def _read_shard(
    path: Path, entry: Mapping[str, Any], suffixes: Sequence[str], bad: BadRecords
) -> Iterator[Record]:
    members: dict[str, dict[str, tarfile.TarInfo]] = {}
    try:
        external = _shard_captions(path, suffixes)
        with tarfile.open(plain(path), "r:") as archive:
            for member in archive:
                stem, dot, suffix = member.name.rpartition(".")
                if member.isfile() and dot:
                    members.setdefault(stem, {})[f".{suffix.lower()}"] = member
    except (OSError, tarfile.TarError, ValueError) as error:
        # A shard cut short is bad from the cut on: all that the index promises beyond is lost.
        if not members:
            for number in range(int(entry.get("nsamples", 1))):
                bad.add(f"{path}#{number}", error)
            return
        for number in range(len(members), int(entry.get("nsamples", len(members)))):
            bad.add(f"{path}#{number}", error)
    for key, files in members.items():
        label = f"{path}/{key}"
        try:
            yield _shard_record(label, path, key, files, external)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            bad.add(label, error)


def _shard_record(
    label: str,
    path: Path,
    key: str,
    files: Mapping[str, tarfile.TarInfo],
    external: tuple[dict[str, dict[str, str]], dict[str, dict[str, float]]],
) -> Record:
    suffix = next((kind for kind in _IMAGE_SUFFIXES if kind in files), None)
    if suffix is None or ".json" not in files:
        raise ValueError("needs an image (or .npy) and a .json")
    if files[".json"].size > _MAX_TEXT_BYTES:
        raise ValueError("its .json is larger than 1 MB")
    with open_plain(path) as stream:
        stream.seek(files[".json"].offset_data)
        facts = json.loads(stream.read(files[".json"].size))
    captions = dict(external[0].get(key, {}))
    if isinstance(facts.get("prompt"), str):
        captions = {DEFAULT_CAPTION: facts["prompt"], **captions}
    size = (int(facts["height"]), int(facts["width"])) if {"height", "width"} <= facts.keys() else None
    image = files[suffix]
    return _record(
        label, path, suffix, captions, external[1].get(key, {}), size, (image.offset_data, image.size)
    )


def _record(
    label: str,
    path: Path,
    suffix: str,
    captions: Mapping[str, str],
    scores: Mapping[str, float],
    size: tuple[int, int] | None = None,
    span: tuple[int, int] | None = None,
) -> Record:
    if not captions or not all(isinstance(text, str) for text in captions.values()):
        raise ValueError("has no caption")
    "".join(captions.values()).encode()  # half of a character is no text, which tokenizers crash on
    return Record(label, path, suffix.lower(), captions, scores, size, span)


def _external(stem: Path, key: str, suffixes: Sequence[str]) -> tuple[dict[str, str], dict[str, float]]:
    """Captions and scores of one image from its further files."""
    captions: dict[str, str] = {}
    scores: dict[str, float] = {}
    for suffix in dict.fromkeys([*suffixes, "_prompt"]):
        texts = _optional(stem.with_name(f"{stem.name}{suffix}.json"))
        captions |= {str(kind): str(text) for kind, text in texts.get(key, {}).items()}
        numbers = _optional(stem.with_name(f"{stem.name}{suffix}_clip_score.json"))
        scores |= {str(kind): float(number) for kind, number in numbers.get(key, {}).items()}
    return captions, scores


def _shard_captions(
    path: Path, suffixes: Sequence[str]
) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, float]]]:
    captions: dict[str, dict[str, str]] = {}
    scores: dict[str, dict[str, float]] = {}
    stem = path.with_suffix("")
    for suffix in dict.fromkeys([*suffixes, "_prompt"]):
        for key, texts in _optional(stem.with_name(f"{stem.name}{suffix}.json")).items():
            captions.setdefault(key, {}).update(texts)
        for key, numbers in _optional(stem.with_name(f"{stem.name}{suffix}_clip_score.json")).items():
            scores.setdefault(key, {}).update({kind: float(number) for kind, number in numbers.items()})
    return captions, scores


def _optional(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    data = json.loads(read_text(path))
    if not isinstance(data, dict):
        raise ValueError(f"{path.name} is not an object")
    return data


def _index(path: Path, kind: str) -> dict[str, Any]:
    try:
        data = json.loads(read_text(path))
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(data, dict) or data.get("__kind__") != kind:
        found = data.get("__kind__") if isinstance(data, dict) else type(data).__name__
        raise ValueError(f"{path}: __kind__ is {found!r}, expected {kind!r}")
    return data


def _image_path(folder: Path, name: str) -> Path:
    if not _is_inside(name):
        raise ValueError("its name leaves the folder")
    if name.lower().endswith(_IMAGE_SUFFIXES):
        candidates = [folder / name]
    else:
        candidates = [folder / f"{name}{suffix}" for suffix in _IMAGE_SUFFIXES]
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        raise ValueError("no such image")
    return path


def _is_inside(name: str) -> bool:
    """Judged as it is written: in the hub's cache, and elsewhere, files are links to places outside."""
    return not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts
