"""Tar shards of images with captions, indexed without unpacking: SANA's own, webdataset's and img2dataset's.

A record is what stands under one key, as webdataset has it: the name up to the first dot after the last slash. Its image is
`KEY.png|jpg|...` or `KEY.npy`, its captions are in `KEY.json`, `KEY.txt` or `KEY.caption`.
"""

import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sana_models.files import open_plain, parse_json, plain
from sana_models.training.captions import MOST_TEXT_BYTES, CaptionReader, Captions
from sana_models.training.records import BadRecords, Record, make_record

__all__ = ["CAPTION_SUFFIXES", "IMAGE_SUFFIXES", "read_shard", "told_size"]

#: Files that are images, and stored latents; the first of a record counts.
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".npy")
#: Files that are an image's caption as they are.
CAPTION_SUFFIXES = (".txt", ".caption")


#: An index that promises more of a shard is believed so far.
_MOST_PROMISED = 100_000
#: How files that are compressed as a whole begin.
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")


@dataclass(slots=True)
class _Files:
    """What a shard holds under one key: places by suffix, and the content of small text files."""

    spans: dict[str, tuple[int, int]] = field(default_factory=dict)
    texts: dict[str, bytes] = field(default_factory=dict)


def read_shard(
    path: Path, captions: CaptionReader, bad: BadRecords, promised: int | None
) -> Iterator[Record]:
    """Yield the records of a shard, of which an index may have promised a number; unusable ones go to `bad`."""
    found: dict[str, _Files] = {}
    try:
        external = captions.of_shard(path.with_suffix(""))
        _refuse_compressed(path)
        with tarfile.open(plain(path), "r:") as archive:
            for member in archive:
                _take(archive, member, found)
    except (OSError, tarfile.TarError, ValueError) as error:
        # A shard cut short is bad from the cut on: all that the index promises beyond is lost.
        lost = len(found) + 1 if promised is None else min(promised, _MOST_PROMISED)
        for number in range(len(found), lost):
            bad.add(f"{path}#{number}", error)
        if not found:
            return
    for key, files in found.items():
        label = f"{path}/{key}"
        yield from bad.attempt(
            label,
            lambda label=label, key=key, files=files: _record(  # type: ignore[misc]
                label, path, files, captions, Captions(external[0].get(key, {}), external[1].get(key, {}))
            ),
        )


def _refuse_compressed(path: Path) -> None:
    with open_plain(path) as stream:
        if stream.read(6).startswith(_COMPRESSED):
            raise ValueError("is compressed, and records are read by their place: unpack it to a plain .tar")


def _take(archive: tarfile.TarFile, member: tarfile.TarInfo, found: dict[str, _Files]) -> None:
    folder, slash, name = member.name.rpartition("/")
    stem, dot, ending = name.partition(".")
    if not member.isfile() or not dot or not stem:
        return
    files = found.setdefault(f"{folder}{slash}{stem}", _Files())
    suffix = f".{ending.lower()}"
    files.spans[suffix] = (member.offset_data, member.size)
    if suffix in (".json", *CAPTION_SUFFIXES) and member.size <= MOST_TEXT_BYTES:
        stream = archive.extractfile(member)
        files.texts[suffix] = b"" if stream is None else stream.read()


def _record(label: str, path: Path, files: _Files, reader: CaptionReader, external: Captions) -> Record:
    suffix = next((kind for kind in IMAGE_SUFFIXES if kind in files.spans), None)
    if suffix is None or not files.spans.keys() & {".json", *CAPTION_SUFFIXES}:
        raise ValueError("needs an image (or .npy) and a .json, .txt or .caption")
    for kind in (".json", *CAPTION_SUFFIXES):
        if kind in files.spans and kind not in files.texts:
            raise ValueError(f"its {kind} is larger than 1 MB")
    captions = external
    for kind in CAPTION_SUFFIXES:
        if kind in files.texts:
            captions = reader.of_text(files.texts[kind].decode("utf-8-sig")) | captions
    size = None
    if ".json" in files.texts:
        facts = parse_json(files.texts[".json"])
        captions = reader.of_facts(facts) | captions
        size = told_size(facts)
    return make_record(label, path, suffix, captions, size=size, span=files.spans[suffix])


def told_size(facts: Mapping[str, Any]) -> tuple[int, int] | None:
    """(height, width) where a record tells both; else the image is asked."""
    try:
        told = [facts[key] for key in ("height", "width")]
        height, width = (0 if isinstance(side, bool) else int(float(side)) for side in told)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return (height, width) if height > 0 and width > 0 else None
