"""Prompts from a file of one's own: a table, lines of text, a folder of texts, or COCO captions.

A table (`.csv`, `.tsv`, `.jsonl`, `.parquet`) has a row for each prompt, or for each image of one. The columns, with the names
that are understood: `prompt` (caption, text, prompt_en), which has to be there; `id` (prompt_id, item_id, image_id); `tag`
(category, task); `file` (file_name, filename, image, image_path, path). What else a row has is kept as the prompt's metadata,
where metrics look for what they need (GenEval's `include`).

Without ids, prompts are numbered by row from `00000`. Rows that share an id, or without ids a text, and each name a file are
several images of one prompt.
"""

import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sana_bench.core.errors import UsageError
from sana_bench.core.samples import Prompt
from sana_bench.core.text import lines, lone_surrogate, read_text
from sana_models.files import first_line, is_there, parse_json

__all__ = ["SUFFIXES", "PromptSet", "read_geneval_prompts", "read_prompts"]

_SYNONYMS = {
    "id": ("id", "prompt_id", "item_id", "image_id"),
    "prompt": ("prompt", "caption", "text", "prompt_en", "prompts"),
    "tag": ("tag", "category", "task"),
    "file": ("file", "file_name", "filename", "image", "image_path", "path"),
}
_TAG = "all"
_UNSAFE = re.compile(r"[\s/\\\x00-\x1f]+")

#: Where a message says that a row was found, and its values by the name of the column.
_Row = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class PromptSet:
    """The prompts of a file in their order.

    `files` has the image files that the file names, by prompt id and sample index. `numbered` says that the ids are row numbers,
    which the file itself does not have.
    """

    prompts: tuple[Prompt, ...]
    files: Mapping[tuple[str, int], str]
    numbered: bool


def read_prompts(path: Path) -> PromptSet:
    """Read a file, or a folder of `.txt` files with a prompt each.

    Raises `UsageError`, one line with file and row, for a file of another kind or that cannot be read, a missing column, a row
    without a prompt, and an id that stands for two prompts.
    """
    if is_there(path, Path.is_dir):
        return _collect(path, _text_folder(path))
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UsageError(f"{path}: prompts are read from {', '.join(_READERS)} or a folder of .txt files")
    with _readable(path):
        return _collect(path, reader(path))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {first_line(error)}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not UTF-8 text") from None


def _collect(path: Path, rows: Iterator[_Row]) -> PromptSet:
    found: dict[str, tuple[str, Prompt]] = {}
    files: dict[tuple[str, int], str] = {}
    by_text: dict[str, str] = {}
    n_files: Counter[str] = Counter()
    named: set[bool] = set()
    listed = list(rows)
    qualified = _needs_tag(listed)
    for number, (where, row) in enumerate(listed):
        if (half := lone_surrogate(json.dumps(row, ensure_ascii=False))) is not None:
            raise UsageError(f"{where}: holds {half}, half of a character")
        values = _known(where, row)
        text, file = values["prompt"], values["file"]
        named.add(values["id"] is not None)
        prompt_id = values["id"]
        if prompt_id is not None and qualified:
            prompt_id = f"{_safe(values['tag'])}_{prompt_id}"
        if prompt_id is None:
            # Without a file for each, equal texts are prompts of their own.
            prompt_id = by_text.setdefault(text, f"{number:05d}") if file is not None else f"{number:05d}"
        prompt = Prompt(prompt_id, text, values["tag"], values["metadata"])
        first = found.setdefault(prompt_id, (where, prompt))
        if first[0] != where and (first[1].text != text or file is None):
            raise UsageError(f"{where}: the id {prompt_id!r} is that of {first[0]} already")
        if file is not None:
            files[prompt_id, n_files[prompt_id]] = file
            n_files[prompt_id] += 1
    if not found:
        raise UsageError(f"{path}: no prompts")
    if len(named) > 1:
        raise UsageError(f"{path}: some rows have an id and others have none")
    return PromptSet(tuple(prompt for _, prompt in found.values()), files, named == {False})


def _needs_tag(rows: list[_Row]) -> bool:
    """Whether ids repeat and are told apart by the tag, as OneIG-Bench's, which start again in every category."""
    keys = [(str(_first(row, "id")), str(_first(row, "tag")), str(_first(row, "prompt"))) for _, row in rows]
    if any(_first(row, "id") is None or _first(row, "tag") is None for _, row in rows):
        return False
    texts_by_id: dict[str, set[str]] = {}
    for prompt_id, _, text in keys:
        texts_by_id.setdefault(prompt_id, set()).add(text)
    pairs = Counter((prompt_id, tag) for prompt_id, tag, _ in set(keys))
    return any(len(texts) > 1 for texts in texts_by_id.values()) and max(pairs.values()) == 1


def _known(where: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """`id`, `prompt`, `tag` and `file` of a row, None where it has none, and as `metadata` the rest with prompt and tag."""
    columns = {kind: _column(row, kind) for kind in _SYNONYMS}
    if columns["prompt"] is None:
        known = ", ".join(_SYNONYMS["prompt"])
        raise UsageError(
            f"{where}: no column of prompts ({known}); it has {', '.join(map(str, row)) or 'none'}"
        )
    values: dict[str, Any] = {kind: _text(_first(row, kind)) for kind in _SYNONYMS}
    if values["prompt"] is None:
        raise UsageError(f"{where}: no prompt")
    if values["id"] is not None:
        values["id"] = _safe(values["id"])
    # `index` says in manifests which of the prompt's images a row is.
    dropped = {*columns.values(), "index"}
    rest = {str(name): value for name, value in row.items() if name not in dropped}
    values["tag"] = values["tag"] or _TAG
    values["metadata"] = {**rest, "prompt": values["prompt"], "tag": values["tag"]}
    return values


def _column(row: Mapping[str, Any], kind: str) -> str | None:
    lowered = {str(name).strip().lower(): name for name in row}
    return next((lowered[name] for name in _SYNONYMS[kind] if name in lowered), None)


def _first(row: Mapping[str, Any], kind: str) -> Any:
    column = _column(row, kind)
    return None if column is None else row[column]


def _text(value: Any) -> str | None:
    """A value as text; None for an empty one."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() or None


def _safe(name: str) -> str:
    """An id that can name a folder."""
    return _UNSAFE.sub("_", name).lstrip(".") or "_"


def _delimited(delimiter: str) -> Callable[[Path], Iterator[_Row]]:
    def read(path: Path) -> Iterator[_Row]:
        rows = csv.DictReader(io.StringIO(read_text(path), newline=""), delimiter=delimiter, strict=True)
        try:
            for row in rows:
                where = f"{path}:{rows.line_num}"
                surplus = row.pop(None, None)
                if surplus:
                    found = f"{len(row) + len(surplus)} values for {len(row)} columns"
                    raise UsageError(f"{where}: {found}; a prompt with {delimiter!r} in it stands in quotes")
                yield where, {name: value for name, value in row.items() if value is not None}
        except csv.Error as error:
            raise UsageError(f"{path}:{rows.line_num}: {error}") from None

    return read


def _json_lines(path: Path) -> Iterator[_Row]:
    for number, line in enumerate(lines(read_text(path)), start=1):
        if line.strip():
            yield f"{path}:{number}", _object(f"{path}:{number}", line)


def _object(where: str, text: str) -> dict[str, Any]:
    try:
        value = parse_json(text)
    except ValueError:
        raise UsageError(f"{where}: not valid JSON") from None
    if not isinstance(value, dict):
        raise UsageError(f"{where}: expected an object")
    return value


def _parquet(path: Path) -> Iterator[_Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UsageError(f"{path}: no Parquet file: {' '.join(str(error).split())}") from None
    # Columns of images and other bytes are no metadata.
    binary = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_struct)
    kept = [field.name for field in table.schema if not any(check(field.type) for check in binary)]
    for number, row in enumerate(table.select(kept).to_pylist(), start=1):
        # What JSON cannot hold, such as a date, is kept as text.
        yield f"{path}: row {number}", parse_json(json.dumps(row, default=str))


def _lines(path: Path) -> Iterator[_Row]:
    for number, line in enumerate(lines(read_text(path)), start=1):
        if line.strip():
            yield f"{path}:{number}", {"prompt": line.strip()}


def _text_folder(folder: Path) -> Iterator[_Row]:
    for path in sorted(folder.rglob("*.txt")):
        with _readable(path):
            text = read_text(path)
        name = path.relative_to(folder).with_suffix("").as_posix()
        yield str(path), {"id": name, "prompt": " ".join(text.split()), "file": name}


def _coco(path: Path) -> Iterator[_Row]:
    """The first caption of each image, in the order of the captions."""
    document = _object(str(path), read_text(path))
    try:
        names = {str(image["id"]): str(image["file_name"]) for image in document["images"]}
        captions: dict[str, str] = {}
        for annotation in document["annotations"]:
            captions.setdefault(str(annotation["image_id"]), str(annotation["caption"]))
    except (KeyError, TypeError) as error:
        raise UsageError(f"{path}: no COCO captions: {error} is missing or no list of objects") from None
    for image_id, caption in captions.items():
        file = {"file": names[image_id]} if image_id in names else {}
        yield f"{path}: image {image_id}", {"id": image_id, "prompt": " ".join(caption.split()), **file}


_READERS: Mapping[str, Callable[[Path], Iterator[_Row]]] = {
    ".csv": _delimited(","),
    ".tsv": _delimited("\t"),
    ".jsonl": _json_lines,
    ".parquet": _parquet,
    ".txt": _lines,
    ".json": _coco,
}

#: How names of prompt files end.
SUFFIXES = tuple(_READERS)


def read_geneval_prompts(folder: Path) -> PromptSet:
    """The prompts of a folder in GenEval's layout, with the whole metadata of each; raises `UsageError` for a broken one."""
    prompts = []
    for path in sorted(
        folder.glob("*/metadata.jsonl"), key=lambda path: (len(path.parent.name), path.parent.name)
    ):
        if not path.parent.name.isdecimal():
            continue
        with _readable(path):
            row = _object(f"{path}:1", next(iter(lines(read_text(path))), ""))
        values = _known(f"{path}:1", row)
        prompts.append(
            Prompt(f"{int(path.parent.name):05d}", values["prompt"], values["tag"], values["metadata"])
        )
    return PromptSet(tuple(prompts), {}, numbered=False)
