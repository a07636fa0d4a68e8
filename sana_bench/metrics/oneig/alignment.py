"""OneIG-Bench's alignment: the share of yes-or-no questions about an image that count, each only where its parents do."""

from collections.abc import Mapping, Sequence
from typing import Any

from sana_bench.core.errors import UsageError
from sana_bench.core.fields import field, text
from sana_bench.core.samples import Sample
from sana_bench.judges.base import ReadingJudge, over_images
from sana_bench.metrics.base import MetricAssets, ScoreRow, Summary, mean_summary, tag_summaries
from sana_bench.metrics.chosen_judge import reading_judge
from sana_bench.metrics.oneig.picture import NOTE, codec_of, picture
from sana_bench.metrics.oneig.rules import alignment, counted
from sana_bench.suites.schema import MetricSpec

__all__ = ["PROTOCOLS", "AlignmentMetric", "Questions", "build_alignment", "questions_of"]

#: The protocol of the full tier; a judge that a suite names has its own.
PROTOCOLS = ("oneig_alignment/official@1",)

#: Texts of questions, and the questions that each depends on, both by question id.
Questions = tuple[dict[int, str], dict[int, list[int]]]

# What follows a question and a full stop, also after the question's own mark.
_INSTRUCTION = "Please answer 'Yes' or 'No' only."
_YES = "Yes"


class AlignmentMetric:
    """Answers of a judge by the published rule; the value of a row is the share of an image's questions that count."""

    name = "oneig_alignment"
    higher_is_better = True

    def __init__(self, protocol: str, judge: ReadingJudge) -> None:
        self.protocol = protocol
        self.judge = judge
        self._codec = codec_of(protocol)

    def identity(self) -> dict[str, Any]:
        return {
            "metric": self.name,
            "protocol": self.protocol,
            "instruction": _INSTRUCTION,
            "codec": self._codec,
            "judge": self.judge.identity(),
        }

    def score(self, samples: Sequence[Sample]) -> list[ScoreRow]:
        """One row per sample; `details["answers"]` has every question with its `answer`, the `score` that it counts with, and
        `raw`, the score before dependencies.

        Raises `UsageError` for a prompt whose questions cannot be scored.
        """
        return over_images(self.judge, self._score, samples)

    def summarise(self, rows: Sequence[ScoreRow], n_expected: int, seed: int) -> list[Summary]:
        """The mean of all images and of each category's, with 95 % intervals by prompt."""
        overall = mean_summary(self, rows, n_expected, seed, unit="fraction", note=NOTE, share=True)
        return [overall, *tag_summaries(self, rows, n_expected, seed, unit="fraction", share=True)]

    def _score(self, sample: Sample) -> ScoreRow:
        questions, parents = questions_of(sample.prompt.metadata, f"prompt {sample.prompt.id}")
        asked = [f"{question}. {_INSTRUCTION}" for question in questions.values()]
        answers = self.judge.answer(picture(sample, self._codec), asked)
        says = dict(zip(questions, answers, strict=True))
        yes = {key: answer == _YES for key, answer in says.items()}
        counts = counted(parents, yes)
        details = [
            {
                "id": key,
                "question": questions[key],
                "answer": says[key],
                "score": float(counts[key]),
                "raw": float(yes[key]),
            }
            for key in questions
        ]
        value = sum(counts.values()) / len(counts)
        return ScoreRow(sample.id, sample.prompt.id, sample.prompt.tag, value, {"answers": details})


def questions_of(record: Mapping[str, Any], where: str) -> Questions:
    """The `questions` of a prompt's record, and their `dependency` on one another, both by question id.

    Raises:
        UsageError: a field is missing, a question is no text, or one depends on a question that is not asked; the message begins
            with `where`.
    """
    questions, dependency = field(record, where, "questions"), field(record, where, "dependency")
    try:
        # Nothing but what the rule refuses is looked for.
        alignment(dependency, {key: [_YES] for key in questions})
        texts = {int(key): text(question, f"questions[{key}]") for key, question in questions.items()}
    except (UsageError, TypeError, AttributeError) as error:
        raise UsageError(f"{where}: {error}") from None
    return texts, {int(key): list(parents) for key, parents in dependency.items()}


def build_alignment(tier: str, assets: MetricAssets, choice: MetricSpec | None = None) -> AlignmentMetric:
    """OneIG-Bench's alignment by the protocol of `choice` or the tier's first; `judge` and `precision` as for GenEval 2.

    Raises:
        SuiteError: the tier has no such protocol or parameter, or the protocol names another judge.
        AssetError: the judge is not on this machine; the message says how to get it.
    """
    choice = choice or MetricSpec(name=AlignmentMetric.name)
    return AlignmentMetric(*reading_judge(tier, choice, assets, PROTOCOLS))
