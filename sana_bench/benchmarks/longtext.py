"""LongText-Bench's prompts: 160 English and 160 Chinese ones that ask for text (Geng et al. 2025, arXiv 2507.22058)."""

from pathlib import Path

from sana_bench.assets.required import asset_file
from sana_bench.benchmarks.prompt_file import read_prompts
from sana_bench.core.errors import AssetError, SuiteError, UsageError
from sana_bench.core.samples import Prompt
from sana_bench.core.tiers import unknown_tier
from sana_bench.metrics.longtext.rules import asked_texts
from sana_bench.metrics.read_text import Language

__all__ = ["LongText", "LongTextChinese", "read_longtext"]

_N_PROMPTS = 160


class LongText:
    """The published English prompts in their order, four images each."""

    name = "longtext"
    language: Language = "en"
    default_images_per_prompt = 4
    metric_names: tuple[str, ...] = ("longtext", "clip_score")

    def prompts(self, tier: str) -> list[Prompt]:
        """The 160 published prompts; the tag is the category (`sign`, `label`, ..).

        In English the micro world has 36 of its own; their tag is the number of words, `1_words` to `3_words`.

        Raises:
            AssetError: the published file is missing or not what it should be.
            SuiteError: Chinese on the micro tier.
        """
        if tier == "micro" and self.language == "en":
            return _micro_prompts()
        if tier == "micro":
            raise SuiteError(f"benchmark {self.name!r} has no micro tier version; use --tier full")
        if tier == "full":
            return read_longtext(asset_file(f"{self.name}_prompts"), self.language, _N_PROMPTS)
        raise unknown_tier(self.name, tier)


class LongTextChinese(LongText):
    """The published Chinese prompts: the same scenes with other texts, read by characters."""

    name = "longtext_zh"
    language: Language = "zh"


def read_longtext(path: Path, language: Language, count: int) -> list[Prompt]:
    """The prompts of `text_prompts.jsonl` or its Chinese counterpart, with `text` and `language` as metadata.

    Raises `AssetError` for another number of prompts than `count`, or one that asks for no text.
    """
    prompts = read_prompts(path).prompts
    if len(prompts) != count:
        raise AssetError(f"{path}: {len(prompts)} prompts, the benchmark has {count}")
    try:
        return [_prompt(path, prompt, language) for prompt in prompts]
    except UsageError as error:
        raise AssetError(str(error)) from None


def _prompt(path: Path, prompt: Prompt, language: Language) -> Prompt:
    texts, _ = asked_texts(prompt.metadata | {"language": language}, f"{path}: prompt {prompt.id}")
    # Three digits, so that the order of names is that of numbers.
    return Prompt(prompt.id.zfill(3), prompt.text, prompt.tag, {"text": texts, "language": language})


def _micro_prompts() -> list[Prompt]:
    from sana_bench.micro.reading_prompts import text_prompts

    return [
        Prompt(
            f"{index:03d}", one.prompt, f"{len(one.words)}_words", {"text": list(one.words), "language": "en"}
        )
        for index, one in enumerate(text_prompts())
    ]
