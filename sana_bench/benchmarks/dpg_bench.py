"""DPG-Bench: long prompts, judged by yes-or-no questions that depend on one another (Hu et al., 2024)."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sana_bench.assets.locate import data_root
from sana_bench.core.errors import AssetError
from sana_bench.core.samples import Prompt
from sana_bench.core.text import read_text
from sana_bench.core.tiers import unknown_tier
from sana_models.files import first_line, plain

__all__ = ["FIRST_ROW", "DPGBench", "official_prompts", "read_csv", "read_parquet", "read_prompt_files"]

Item = dict[str, Any]

#: Key of the one question that stands in the table's first data row, which the published script never asks.
FIRST_ROW = "first_row"

_CSV_COLUMNS = ("item_id", "text", "proposition_id", "dependency", "tuple", "question_natural_language")


_PARQUET_COLUMNS = ("item_id", "prompt", "questions")


_PARQUET_FIELDS = ("proposition_id", "dependency", "category_broad", "category_detailed", "question")


def read_csv(path: Path) -> list[Item]:
    """Items of `dpg_bench.csv` in file order: `item_id`, `text`, and `questions` as the scoring rules want them.

    Raises:
        AssetError: the file is missing, lacks a column, splits an item, repeats a question or holds a
        dependency that is no list of numbers; the message names the row, counted from 1 after the header.
    """
    import pandas as pd  # takes a second, and most commands read no table

    try:
        table = pd.read_csv(plain(path), dtype=str, keep_default_na=False, encoding="utf-8")
    except FileNotFoundError:
        raise AssetError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise AssetError(f"{path}: cannot be read as CSV ({' '.join(str(error).split())})") from None
    _check_columns(path, table.columns, _CSV_COLUMNS)
    items: dict[str, Item] = {}
    last = None
    for number, row in enumerate(table.to_dict("records"), start=1):
        item_id = str(row["item_id"])
        if item_id in items and item_id != last:
            raise AssetError(f"{path}: row {number}: the rows of item {item_id!r} are not adjacent")
        item = items.setdefault(
            item_id, {"item_id": item_id, "text": _with_plain_ends(row["text"]), "questions": []}
        )
        question = _question(
            f"{path}: row {number}",
            row["proposition_id"],
            row["dependency"],
            row["tuple"],
            row["question_natural_language"],
        )
        _add(f"{path}: row {number}", item, question, is_first=number == 1)
        last = item_id
    return _not_empty(path, items)


def read_parquet(path: Path) -> list[Item]:
    """Items of the hub's parquet form, in its order, as `read_csv` gives them.

    It has no `tuple` column; the category is put together from its two parts, without arguments. Its first
    question is taken for the table's first row.

    Raises:
        AssetError: as `read_csv`.
    """
    import pandas as pd

    try:
        table = pd.read_parquet(plain(path))
    except FileNotFoundError:
        raise AssetError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise AssetError(f"{path}: cannot be read as parquet ({' '.join(str(error).split())})") from None
    _check_columns(path, table.columns, _PARQUET_COLUMNS)
    items: dict[str, Item] = {}
    for number, row in enumerate(table.to_dict("records"), start=1):
        item_id, where = str(row["item_id"]), f"{path}: row {number}"
        if item_id in items:
            raise AssetError(f"{where}: item {item_id!r} appears twice")
        item = items[item_id] = {"item_id": item_id, "text": _with_plain_ends(row["prompt"]), "questions": []}
        for place, record in enumerate(row["questions"]):
            _check_columns(f"{where}, question {place + 1}", record, _PARQUET_FIELDS)
            name = f"{record['category_broad']} - {record['category_detailed'] or ''}".strip()
            question = _question(
                where, record["proposition_id"], record["dependency"], name, record["question"]
            )
            _add(where, item, question, is_first=number == 1 and place == 0)
    return _not_empty(path, items)


def read_prompt_files(folder: Path) -> dict[str, str]:
    """Prompt texts by item id from `<item_id>.txt`, lines ended as everywhere and otherwise as they are; raises `AssetError`."""
    files = _seen(folder.glob("*.txt")) if folder.is_dir() else []
    if not files:
        raise AssetError(f"{folder}: no prompt files")
    try:
        return {file.name.removesuffix(".txt"): _with_plain_ends(read_text(file)) for file in files}
    except (OSError, UnicodeDecodeError) as error:
        raise AssetError(f"{folder}: cannot be read ({first_line(error)})") from None


def _seen(paths: Iterable[Path]) -> list[Path]:
    """Without the hidden files that systems leave beside others (`._8.txt`)."""
    return sorted(path for path in paths if not path.name.startswith("."))


def _with_plain_ends(text: str) -> str:
    return text.replace("\r\n", "\n")


def _question(where: str, proposition: Any, dependency: Any, category: str, text: str) -> Item:
    try:
        return {
            "proposition_id": int(proposition),
            "dependency": list(_parents(dependency)),
            "tuple": category,
            "question": text,
        }
    except (TypeError, ValueError):
        found = f"proposition_id {proposition!r}, dependency {dependency!r}"
        raise AssetError(f"{where}: expected numbers, found {found}") from None


def _parents(dependency: Any) -> Iterator[int]:
    parts: Sequence[Any] = dependency.split(",") if isinstance(dependency, str) else dependency
    if isinstance(parts, int):
        parts = [parts]
    for part in parts:
        yield int(part)


def _add(where: str, item: Item, question: Item, *, is_first: bool) -> None:
    if any(known["proposition_id"] == question["proposition_id"] for known in item["questions"]):
        raise AssetError(f"{where}: item {item['item_id']!r} has question {question['proposition_id']} twice")
    item["questions"].append(question | ({FIRST_ROW: True} if is_first else {}))


def _check_columns(where: Path | str, found: Any, needed: Sequence[str]) -> None:
    missing = [name for name in needed if name not in found]
    if missing:
        raise AssetError(f"{where}: lacks {', '.join(missing)}")


def _not_empty(path: Path, items: dict[str, Item]) -> list[Item]:
    if not items:
        raise AssetError(f"{path}: holds no questions")
    return list(items.values())


_CSV, _PROMPTS = "dpg_bench.csv", "prompts"


_FAMILY = re.compile(r"[A-Za-z]+")


_SOURCE = (
    "`sana-bench fetch dpg_bench` downloads dpg_bench.csv; by hand: from the folder dpg_bench of github.com/TencentQQGYLab/ELLA, "
    "or the parquet file with `hf download Jialuo21/DPG-Bench --repo-type dataset --local-dir {folder}`"
)


class DPGBench:
    """DPG-Bench's 1,065 prompts with their questions, or the micro world's own in the same format."""

    name = "dpg_bench"
    default_images_per_prompt = 4
    metric_names: tuple[str, ...] = ("dpg", "clip_score")

    def prompts(self, tier: str) -> list[Prompt]:
        """Prompts in file order; the id is DPG-Bench's item id, `metadata` holds its `questions`.

        Raises:
            AssetError: the published files are not under the data root, or do not fit together.
        """
        if tier == "micro":
            from sana_bench.micro.dense_prompts import dense_prompts

            return [_prompt(record, "dense") for record in dense_prompts()]
        if tier == "full":
            return official_prompts(data_root() / "dpg_bench")
        raise unknown_tier("dpg_bench", tier)


def official_prompts(folder: Path) -> list[Prompt]:
    """Prompts with questions from a folder with `dpg_bench.csv` or one parquet file.

    Where `prompts/*.txt` are there too, they give the texts, as in the published generation; the tag is the
    source that the item id names (`partiprompts`, `whoops`, ..; `numbered` for bare numbers).

    Raises:
        AssetError: nothing there, a file is damaged, or prompt files and questions have different items.
    """

    tables = _seen(folder.rglob("*.parquet"))
    if (folder / _CSV).is_file():
        items = read_csv(folder / _CSV)
    elif len(tables) == 1:
        items = read_parquet(tables[0])
    else:
        found = f"{len(tables)} parquet files" if tables else "no parquet file"
        raise AssetError(
            f"{folder}: no {_CSV} and {found}, needed for dpg_bench (full tier): {_SOURCE.format(folder=folder)}"
        )
    if (folder / _PROMPTS).is_dir():
        texts = read_prompt_files(folder / _PROMPTS)
        _check_same(folder, set(texts), {item["item_id"] for item in items})
        items = [item | {"text": texts[item["item_id"]]} for item in items]
    return [_prompt(item, family(item["item_id"])) for item in items]


def family(item_id: str) -> str:
    """The source of a prompt by its item id."""
    match = _FAMILY.match(item_id)
    return match.group().lower() if match else "numbered"


def _prompt(item: dict[str, Any], tag: str) -> Prompt:
    return Prompt(id=item["item_id"], text=item["text"], tag=tag, metadata={"questions": item["questions"]})


def _check_same(folder: Path, texts: set[str], questions: set[str]) -> None:
    lacking, surplus = sorted(questions - texts), sorted(texts - questions)
    if lacking:
        raise AssetError(f"{folder / _PROMPTS}: no text for {len(lacking)} items, e.g. {lacking[0]}.txt")
    if surplus:
        raise AssetError(
            f"{folder / _PROMPTS}: {len(surplus)} texts without questions, e.g. {surplus[0]}.txt"
        )
