"""Latency: one image at a time, timed warm, and how many images a second in batches."""

from sana_bench.core.registry import MEASURED
from sana_bench.core.samples import Prompt
from sana_bench.core.tiers import TIERS, unknown_tier

__all__ = ["Latency"]


# SANA encodes every prompt to a fixed number of positions, so length changes nothing; these differ for the image check.
_FULL = (
    "a photo of a bench",
    "a red apple and a green cup on a wooden table",
    "a watercolour of a lighthouse above a stormy sea at dusk",
    "three hot air balloons over snow-covered mountains, early morning light, seen from a valley with a river",
    "portrait of an old fisherman with a grey beard, soft window light",
    "an isometric drawing of a small city with trams, trees and people",
)
_MICRO = (
    "a photo of a red circle",
    "a photo of a blue square",
    "a photo of a green triangle",
    "a photo of two yellow circles",
    "a photo of a purple square",
    "a photo of a red triangle",
)


class Latency:
    """A handful of prompts whose images are timed one by one; the times are those of a warm pipeline.

    Every sample is one timed image. Images are made once more outside the timing, by the run itself, so that what was
    timed can be looked at.
    """

    name = "latency"
    default_images_per_prompt = 5
    metric_names: tuple[str, ...] = MEASURED

    def prompts(self, tier: str) -> list[Prompt]:
        """The prompts of a tier, in order; raises `SuiteError` for an unknown one."""
        if tier not in TIERS:
            raise unknown_tier("latency", tier)
        texts = _MICRO if tier == "micro" else _FULL
        return [Prompt(f"{line:05d}", text, "latency") for line, text in enumerate(texts)]
