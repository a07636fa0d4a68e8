"""DPG-Bench: long prompts, judged by yes-or-no questions that depend on one another (Hu et al., 2024)."""

import re
from pathlib import Path
from typing import Any

from sana_bench.assets import data_root
from sana_bench.errors import AssetError, SuiteError
from sana_bench.metrics.base import Prompt
from sana_bench.metrics.dpg_scoring import PromptScores, score_official, score_strict

__all__ = ["DPGBench", "PromptScores", "official_prompts", "score_official", "score_strict"]

_CSV, _PROMPTS = "dpg_bench.csv", "prompts"
_FAMILY = re.compile(r"[A-Za-z]+")
_SOURCE = (
    "`sana-bench fetch dpg_bench` brings dpg_bench.csv; by hand: from the folder dpg_bench of github.com/TencentQQGYLab/ELLA, "
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
        raise SuiteError(f"dpg_bench: unknown tier {tier!r}, expected 'micro' or 'full'")

    def image_size(self, tier: str) -> tuple[int, int]:
        """(height, width) in pixels: 64x64 in the micro world, 1024x1024 otherwise."""
        return (64, 64) if tier == "micro" else (1024, 1024)


def official_prompts(folder: Path) -> list[Prompt]:
    """Prompts with questions from a folder with `dpg_bench.csv` or one parquet file.

    Where `prompts/*.txt` are there too, they give the texts, as in the published generation; the tag is the
    source that the item id names (`partiprompts`, `whoops`, ..; `numbered` for bare numbers).

    Raises:
        AssetError: nothing there, a file is damaged, or prompt files and questions have different items.
    """
    from sana_bench.benchmarks.dpg_questions import read_csv, read_parquet, read_prompt_files

    tables = sorted(folder.rglob("*.parquet"))
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
