"""HPDv2's benchmark: 800 prompts of each of four styles, in ten groups of 80 (Wu et al. 2023, arXiv 2306.09341)."""

from pathlib import Path

from sana_bench.assets.required import asset_file
from sana_bench.benchmarks.base import micro_prompts
from sana_bench.core.errors import AssetError
from sana_bench.core.samples import Prompt
from sana_bench.core.text import read_text
from sana_bench.core.tiers import unknown_tier
from sana_models.files import first_line, parse_json

__all__ = ["STYLES", "HPDv2", "read_style"]

#: The published files, in the order of the published tables.
STYLES = ("anime", "concept-art", "paintings", "photo")
_PER_STYLE = 800
_GROUP = 80


class HPDv2:
    """The published prompts style by style, one image each as in the published evaluation."""

    name = "hpdv2"
    default_images_per_prompt = 1
    metric_names: tuple[str, ...] = (
        "hpsv3",
        "hpsv2.1",
        "hpsv2",
        "pickscore",
        "aesthetic",
        "image_reward",
        "clip_score",
    )

    def prompts(self, tier: str) -> list[Prompt]:
        """The 3,200 published prompts, tagged with their style; in the micro world its own stand in their place.

        `metadata` of a published prompt holds its `group`, from 0. Raises `AssetError` where a published file is missing or not
        what it should be.
        """
        if tier == "micro":
            return micro_prompts()
        if tier != "full":
            raise unknown_tier(self.name, tier)
        folder = asset_file("hpdv2_prompts").parent
        return [prompt for style in STYLES for prompt in read_style(folder / f"{style}.json", _PER_STYLE)]


def read_style(path: Path, count: int) -> list[Prompt]:
    """The prompts of a style's file, a list of texts; the id is the style and the number of the image, `anime-00000`.

    Raises `AssetError` for anything but `count` texts.
    """
    try:
        texts = parse_json(read_text(path))
    except (OSError, ValueError) as error:
        raise AssetError(f"{path}: cannot be read: {first_line(error)}") from None
    if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
        raise AssetError(f"{path}: expected a list of prompts")
    if len(texts) != count:
        raise AssetError(f"{path}: {len(texts)} prompts, the benchmark has {count}")
    style = path.stem
    return [
        Prompt(f"{style}-{place:05d}", text, style, {"group": place // _GROUP})
        for place, text in enumerate(texts)
    ]
