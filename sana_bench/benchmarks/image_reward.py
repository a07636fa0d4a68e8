"""ImageReward's benchmark: 100 prompts that people wrote, ten images of each (Xu et al. 2023)."""

from collections import Counter
from pathlib import Path
from typing import Any

from sana_bench.assets.required import asset_file
from sana_bench.benchmarks.base import micro_prompts
from sana_bench.core.errors import AssetError
from sana_bench.core.samples import Prompt
from sana_bench.core.text import read_text
from sana_bench.core.tiers import unknown_tier
from sana_models.files import first_line, parse_json

__all__ = ["ImageRewardBenchmark", "read_prompts"]

_N_PROMPTS = 100
_TAG = "all"


class ImageRewardBenchmark:
    """The published prompts in their order; both published recipes make ten images a prompt."""

    name = "image_reward"
    default_images_per_prompt = 10
    metric_names: tuple[str, ...] = ("image_reward", "clip_score")

    def prompts(self, tier: str) -> list[Prompt]:
        """The 100 published prompts; in the micro world its own evaluation prompts stand in their place.

        Raises `AssetError` where the published file is missing or not what it should be.
        """
        if tier == "micro":
            return micro_prompts()
        if tier == "full":
            return read_prompts(asset_file("image_reward_prompts"))
        raise unknown_tier("image_reward", tier)


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts of `benchmark-prompts.json` (a list) or SANA's `benchmark-prompts-dict.json` (an object).

    Raises `AssetError` for anything but 100 distinct ids with a prompt each.
    """
    try:
        content = parse_json(read_text(path), object_pairs_hook=_pairs)
    except (OSError, ValueError) as error:
        raise AssetError(f"{path}: cannot be read: {first_line(error)}") from None
    found = _entries(content)
    if found is None:
        raise AssetError(f"{path}: expected the id and prompt of each entry")
    repeated = [name for name, count in Counter(name for name, _ in found).items() if count > 1]
    if repeated:
        raise AssetError(f"{path}: the id {repeated[0]!r} appears twice")
    if len(found) != _N_PROMPTS:
        raise AssetError(f"{path}: {len(found)} prompts, the benchmark has {_N_PROMPTS}")
    return [Prompt(name, text, _TAG) for name, text in found]


def _pairs(pairs: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    return pairs


def _entries(content: Any) -> list[tuple[str, str]] | None:
    """Ids and prompts of either layout, objects being lists of pairs; None for anything else."""
    try:
        if content and isinstance(content[0], tuple):
            entries = [(name, dict(value)["prompt"]) for name, value in content]
        else:
            entries = [(dict(value)["id"], dict(value)["prompt"]) for value in content]
    except (KeyError, TypeError, ValueError, IndexError):
        return None
    return entries if all(isinstance(part, str) for entry in entries for part in entry) else None
