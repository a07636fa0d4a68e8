"""What a benchmark is: prompts, images per prompt, metrics to apply."""

from typing import Protocol

from sana_bench.core.samples import Prompt, Sample
from sana_bench.metrics.base import Metric, ScoreRow, Summary

__all__ = ["Benchmark", "Metric", "Prompt", "Sample", "ScoreRow", "Summary", "micro_prompts"]


class Benchmark(Protocol):
    """A prompt set with the metrics that judge its images."""

    name: str
    default_images_per_prompt: int
    metric_names: tuple[str, ...]

    def prompts(self, tier: str) -> list[Prompt]:
        """The whole prompt set of `tier` (`micro` or `full`), in its official order."""
        ...


def micro_prompts() -> list[Prompt]:
    """The micro world's evaluation prompts, which stand there for the prompts of benchmarks whose metrics take any."""
    from sana_bench.micro.evaluation_set import geneval_prompts

    return [
        Prompt(f"{line:05d}", record["prompt"], record["tag"], record)
        for line, record in enumerate(geneval_prompts())
    ]
