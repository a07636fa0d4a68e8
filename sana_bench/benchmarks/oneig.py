"""OneIG-Bench's English prompts: 1,120 in five categories, with what each dimension asks (Chang et al., arXiv 2506.07977)."""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sana_bench.assets.required import asset_file
from sana_bench.benchmarks.prompt_file import read_prompts
from sana_bench.core.errors import AssetError, UsageError
from sana_bench.core.samples import Prompt
from sana_bench.core.text import read_text
from sana_bench.core.tiers import unknown_tier
from sana_bench.metrics.oneig.alignment import questions_of
from sana_bench.metrics.oneig.text import wanted_text

__all__ = ["CATEGORIES", "OneIG", "read_oneig"]

#: Prompts by category.
CATEGORIES: Mapping[str, int] = {
    "Anime_Stylization": 245,
    "Portrait": 244,
    "General_Object": 206,
    "Text_Rendering": 200,
    "Knowledge_Reasoning": 225,
}
# The file of the questions of a category.
_QUESTIONS = {"Anime_Stylization": "anime", "Portrait": "human", "General_Object": "object"}
_STYLED, _TEXT, _OBJECT = "Anime_Stylization", "Text_Rendering", "General_Object"


class OneIG:
    """The published English prompts in their order, four images each; a prompt's metadata says which metrics it concerns."""

    name = "oneig"
    default_images_per_prompt = 4
    metric_names: tuple[str, ...] = ("oneig_alignment", "oneig_text", "oneig_style", "oneig_diversity")

    def prompts(self, tier: str) -> list[Prompt]:
        """The 1,120 published prompts; the tag is the category.

        Of the first three categories they have `questions` and their `dependency`, texts to render have `text_content`, and the
        stylised ones of the first `style`.

        The micro world has 48 of its own with questions (`General_Object`) and 36 with a text (`Text_Rendering`).

        Raises `AssetError` where published files are missing or not what they should be.
        """
        if tier == "micro":
            return _micro_prompts()
        if tier == "full":
            return read_oneig(asset_file("oneig_prompts").parent, CATEGORIES)
        raise unknown_tier("oneig", tier)


def read_oneig(folder: Path, counts: Mapping[str, int]) -> list[Prompt]:
    """The prompts of `OneIG-Bench.csv` with what lies beside it: questions by category, and `text_content.csv`.

    Raises `AssetError` for other numbers of prompts than `counts` by category, and for what does not fit together.
    """
    table = folder / "OneIG-Bench.csv"
    prompts = read_prompts(table).prompts
    found = {tag: sum(prompt.tag == tag for prompt in prompts) for tag in {prompt.tag for prompt in prompts}}
    if found != counts:
        raise AssetError(f"{table}: it has {found} prompts, the benchmark has {dict(counts)}")
    questions = {tag: _questions(folder / f"{name}.json") for tag, name in _QUESTIONS.items()}
    texts = _texts(folder / "text_content.csv")
    try:
        return [_prompt(folder, prompt, questions, texts) for prompt in prompts]
    except UsageError as error:
        raise AssetError(str(error)) from None


def _prompt(
    folder: Path, prompt: Prompt, questions: Mapping[str, Mapping[str, Any]], texts: Mapping[str, str]
) -> Prompt:
    number = prompt.id.rpartition("_")[2]
    metadata: dict[str, Any] = {}
    if prompt.tag in questions:
        asked = questions[prompt.tag].get(number)
        if asked is None:
            raise AssetError(f"{folder / _QUESTIONS[prompt.tag]}.json: no questions of prompt {number}")
        metadata = asked
        questions_of(metadata, f"{folder / _QUESTIONS[prompt.tag]}.json: prompt {number}")
    if prompt.tag == _TEXT:
        if number not in texts:
            raise AssetError(f"{folder / 'text_content.csv'}: no text of prompt {number}")
        metadata = {"text_content": texts[number]}
        wanted_text(metadata, f"{folder / 'text_content.csv'}: prompt {number}")
    style = str(prompt.metadata.get("class") or "").strip()
    if prompt.tag == _STYLED and style:
        metadata = {**metadata, "style": style.lower().replace(" ", "_")}
    return Prompt(prompt.id, prompt.text, prompt.tag, metadata)


def _questions(path: Path) -> dict[str, dict[str, Any]]:
    """Questions and dependencies by prompt number; the published file has both as JSON in text."""
    try:
        content = json.loads(read_text(path))
        return {
            number: {
                "questions": json.loads(entry["question"]),
                "dependency": json.loads(entry["dependency"]),
            }
            for number, entry in content.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise AssetError(f"{path}: not questions by prompt ({' '.join(str(error).split())})") from None


def _texts(path: Path) -> dict[str, str]:
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path), newline="")))
        return {row["id"]: row["text_content"] for row in rows}
    except (OSError, ValueError, KeyError) as error:
        raise AssetError(f"{path}: not texts by prompt ({' '.join(str(error).split())})") from None


def _micro_prompts() -> list[Prompt]:
    from sana_bench.micro.reading_prompts import alignment_prompts, text_prompts

    found = []
    for index, dense in enumerate(alignment_prompts()):
        asked = {str(entry["proposition_id"]): entry for entry in dense.record("")["questions"]}
        metadata = {
            name: {number: entry[part] for number, entry in asked.items()}
            for name, part in (("questions", "question"), ("dependency", "dependency"))
        }
        found.append(Prompt(f"{_OBJECT}_{index:03d}", dense.text, _OBJECT, metadata))
    return found + [
        Prompt(f"{_TEXT}_{index:03d}", one.prompt, _TEXT, {"text_content": one.text})
        for index, one in enumerate(text_prompts())
    ]
