"""MJHQ-30K: 30,000 prompts in ten categories; the distance of the images to Midjourney's, and their CLIP score."""

import re

from sana_bench.assets.mjhq30k import Mjhq30k
from sana_bench.assets.required import asset_file
from sana_bench.benchmarks.base import micro_prompts
from sana_bench.core.samples import Prompt
from sana_bench.core.tiers import unknown_tier

__all__ = ["Mjhq30kBenchmark", "generation_prompt"]

# SANA's tools read image shapes from these options and cut the prompt there; the CLIP score keeps the whole text.
_MEASURES = ("precision", "recall", "density", "coverage", "vendi")
_OPTIONS = re.compile(r"--(?:aspect_ratio|ar|hw)")


class Mjhq30kBenchmark:
    """One image a prompt, tagged with its category, in the order of `meta_data.json`."""

    name = "mjhq30k"
    default_images_per_prompt = 1
    metric_names: tuple[str, ...] = ("fid", "clip_score", "kid", "cmmd", "fd_dinov2", *_MEASURES)

    def prompts(self, tier: str) -> list[Prompt]:
        """The published prompts; in the micro world its own evaluation prompts stand in their place.

        `metadata` of a published prompt holds its `category`, and `full_prompt` where options were cut off. Raises
        `AssetError` where `meta_data.json` is missing or damaged.
        """
        if tier == "micro":
            return micro_prompts()
        if tier != "full":
            raise unknown_tier("mjhq30k", tier)
        data = Mjhq30k(asset_file("mjhq30k_images"))
        return [_prompt(image.id, image.category, image.prompt) for image in data.images]


def generation_prompt(text: str) -> str:
    """The prompt up to its first shape option, without space around it."""
    return _OPTIONS.split(text, maxsplit=1)[0].strip()


def _prompt(name: str, category: str, text: str) -> Prompt:
    cut = generation_prompt(text)
    whole = {} if cut == text else {"full_prompt": text}
    return Prompt(name, cut, category, {"category": category, **whole})
