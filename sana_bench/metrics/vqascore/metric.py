"""VQAScore: the probability that a judge answers Yes to whether an image shows its prompt.

Source: Lin et al. 2024 (arXiv 2404.01291). Question and answer are those that t2v_metrics 3 asks Qwen-VL
(https://github.com/linzhiqiu/t2v_metrics, `vqascore_models/qwen3vl_model.py`). The paper's own numbers are those of CLIP-FlanT5,
another judge.
"""

from collections.abc import Sequence
from typing import Any

from sana_bench.core.images import load_image
from sana_bench.core.samples import Sample
from sana_bench.judges.base import ReadingJudge, over_images
from sana_bench.metrics.base import MetricAssets, ScoreRow, Summary, mean_summary, tag_summaries
from sana_bench.metrics.chosen_judge import reading_judge
from sana_bench.metrics.clip.features import full_prompt
from sana_bench.suites.schema import MetricSpec

__all__ = ["ANSWER", "QUESTION", "VQAScore", "build_vqascore"]

#: What the judge is asked; `{prompt}` is the image's prompt.
QUESTION = 'Does this figure show "{prompt}"? Please answer Yes or No.'
#: The answer whose probability is the score: that of the first token.
ANSWER = "Yes"
_UNIT = "fraction"


class VQAScore:
    """Probabilities, 0 to 1, of `judge`."""

    name = "vqascore"
    higher_is_better = True

    def __init__(self, protocol: str, judge: ReadingJudge) -> None:
        self.protocol = protocol
        self.judge = judge

    def identity(self) -> dict[str, Any]:
        return {
            "metric": self.name,
            "protocol": self.protocol,
            "question": QUESTION,
            "answer": ANSWER,
            "judge": self.judge.identity(),
        }

    def score(self, samples: Sequence[Sample]) -> list[ScoreRow]:
        """One row per sample. Raises as the judge does."""
        return over_images(self.judge, self._score, samples)

    def summarise(self, rows: Sequence[ScoreRow], n_expected: int, seed: int) -> list[Summary]:
        """Mean over all images and over each task's, with 95 % bootstrap intervals clustered by prompt."""
        overall = mean_summary(self, rows, n_expected, seed, unit=_UNIT)
        return [overall, *tag_summaries(self, rows, n_expected, seed, unit=_UNIT)]

    def _score(self, sample: Sample) -> ScoreRow:
        # A prompt may hold braces.
        question = QUESTION.replace("{prompt}", full_prompt(sample))
        ((token,),) = self.judge.probabilities(load_image(sample.image_path), [question], [[ANSWER]])
        return ScoreRow(sample.id, sample.prompt.id, sample.prompt.tag, token.probability)


def build_vqascore(tier: str, assets: MetricAssets, choice: MetricSpec) -> VQAScore:
    """VQAScore by the judge that `choice` names, on either tier; raises as `reading_judge`."""
    return VQAScore(*reading_judge(tier, choice, assets, official=()))
