"""GenEval: six tasks of object-focused prompts, judged by a detector (Ghosh et al., 2023)."""

from typing import Any

from sana_bench.errors import SuiteError
from sana_bench.metrics.base import Prompt
from sana_bench.metrics.geneval import TASKS
from sana_bench.metrics.geneval_decision import Decision, decide

__all__ = ["TASKS", "Decision", "GenEval", "decide"]


class GenEval:
    """GenEval's prompt set: the official 553 prompts, or the micro world's own in the same format."""

    name = "geneval"
    default_images_per_prompt = 4
    metric_names: tuple[str, ...] = ("geneval", "clip_score", "fid")

    def prompts(self, tier: str) -> list[Prompt]:
        """Prompts in file order; the id is the five-digit line number, as in the official folder layout."""
        return [
            Prompt(id=f"{line:05d}", text=record["prompt"], tag=record["tag"], metadata=record)
            for line, record in enumerate(self._metadata(tier))
        ]

    def image_size(self, tier: str) -> tuple[int, int]:
        """(height, width) in pixels: 64x64 in the micro world, 1024x1024 otherwise."""
        return (64, 64) if tier == "micro" else (1024, 1024)

    def _metadata(self, tier: str) -> list[dict[str, Any]]:
        if tier == "micro":
            from sana_bench.micro.evaluation_set import geneval_prompts

            return geneval_prompts()
        if tier == "full":
            from sana_bench.benchmarks.geneval_prompts import official_metadata

            return official_metadata()
        raise SuiteError(f"geneval: unknown tier {tier!r}, expected 'micro' or 'full'")
