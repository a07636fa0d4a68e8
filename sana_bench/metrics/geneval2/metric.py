"""GenEval 2's Soft-TIFA: how probably a judge gives the right answer to each question about an image."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sana_bench.core.images import load_image
from sana_bench.core.samples import Sample
from sana_bench.judges.base import ReadingJudge, over_images
from sana_bench.metrics.base import (
    MetricAssets,
    ScoreRow,
    Summary,
    check_rows,
    interval_summary,
    mean_summary,
    tag_summaries,
)
from sana_bench.metrics.chosen_judge import reading_judge
from sana_bench.metrics.geneval2.rules import (
    DISTINCT_TOKENS,
    INSTRUCTION,
    OFFICIAL,
    accepted_spellings,
    geometric_mean,
    questions,
    soft_score,
)
from sana_bench.results.statistics.intervals import clustered_bootstrap
from sana_bench.suites.schema import MetricSpec

if TYPE_CHECKING:
    from sana_bench.judges.base import FirstToken

__all__ = ["PROTOCOLS", "GenEval2Metric", "build_geneval2"]

#: Protocols of the full tier; a judge that a suite names has its own.
PROTOCOLS = (OFFICIAL, DISTINCT_TOKENS)

_SCALE = 100
_UNIT = "out of 100"
_AM = "am"


class GenEval2Metric:
    """Soft scores of a judge's first tokens; the value of a row is the geometric mean of an image's scores out of 100.

    First tokens that several spellings share count once for each by `geneval2/official@1`, and once by any other protocol.
    """

    name = "geneval2"
    higher_is_better = True

    def __init__(self, protocol: str, judge: ReadingJudge) -> None:
        self.protocol = protocol
        self.judge = judge
        self._rule = OFFICIAL if protocol == OFFICIAL else DISTINCT_TOKENS

    def identity(self) -> dict[str, Any]:
        return {
            "metric": self.name,
            "protocol": self.protocol,
            "first_tokens": self._rule,
            "instruction": INSTRUCTION,
            "judge": self.judge.identity(),
        }

    def score(self, samples: Sequence[Sample]) -> list[ScoreRow]:
        """One row per sample.

        `details["answers"]` has of every question its right `answer`, the `score` that it got, and its `skill`;
        `details["am"]` is the arithmetic mean of the scores, out of 100.

        Raises:
            UsageError: a prompt without questions, or with some that cannot be scored.
        """
        return over_images(self.judge, self._score, samples)

    def summarise(self, rows: Sequence[ScoreRow], n_expected: int, seed: int) -> list[Summary]:
        """Soft-TIFA GM overall, `am`, AM of each skill (over its questions) and GM of each task, with 95 % intervals by prompt.

        How the missing samples of an incomplete set spread over skills is not known here: every skill counts all of them.
        """
        overall = mean_summary(self, rows, n_expected, seed, unit=_UNIT, note="Soft-TIFA GM")
        means = [replace(row, value=row.details[_AM]) for row in rows]
        atoms = mean_summary(self, means, n_expected, seed, unit=_UNIT, key=_AM, note="Soft-TIFA AM")
        n_missing = n_expected - len(rows)
        return [
            overall,
            atoms,
            *self._skills(rows, n_missing, seed),
            *tag_summaries(self, rows, n_expected, seed, unit=_UNIT),
        ]

    def _score(self, sample: Sample) -> ScoreRow:
        asked = questions(sample.prompt.metadata, f"prompt {sample.prompt.id}")
        found = self.judge.probabilities(
            load_image(sample.image_path),
            [f"{question.text} {INSTRUCTION}" for question in asked],
            [accepted_spellings(question.text, question.answer) for question in asked],
        )
        scores = [self._soft_score(tokens) for tokens in found]
        answers = [
            {"question": question.text, "answer": question.answer, "score": score, "skill": question.skill}
            for question, score in zip(asked, scores, strict=True)
        ]
        return ScoreRow(
            sample.id,
            sample.prompt.id,
            sample.prompt.tag,
            _SCALE * geometric_mean(scores),
            {"answers": answers, _AM: _SCALE * sum(scores) / len(scores)},
        )

    def _soft_score(self, tokens: Sequence["FirstToken"]) -> float:
        probabilities = {token.token: token.probability for token in tokens}
        return soft_score([token.token for token in tokens], probabilities, self._rule)

    def _skills(self, rows: Sequence[ScoreRow], n_missing: int, seed: int) -> list[Summary]:
        check_rows(self.name, rows, len(rows) + n_missing)
        asked: dict[str, list[tuple[float, ScoreRow]]] = {}
        for row in rows:
            for answer in row.details["answers"]:
                asked.setdefault(answer["skill"], []).append((_SCALE * answer["score"], row))
        summaries = []
        for skill, found in sorted(asked.items()):
            interval = clustered_bootstrap(
                [score for score, _ in found], [row.prompt_id for _, row in found], seed=seed
            )
            own = list({row.sample_id: row for _, row in found}.values())
            note = f"Soft-TIFA AM, {len(found)} answers"
            summaries.append(
                interval_summary(self, interval, own, len(own) + n_missing, unit=_UNIT, key=skill, note=note)
            )
        return summaries


def build_geneval2(tier: str, assets: MetricAssets, choice: MetricSpec | None = None) -> GenEval2Metric:
    """GenEval 2 by the protocol of `choice` or the tier's first.

    The parameter `judge` names an image-text-to-text model, by hub id or folder, that answers in place of Qwen3-VL-8B-Instruct;
    the protocol is then the one that carries its name. `precision` is `bf16` (the default) or `fp32`.

    Raises:
        SuiteError: the tier has no such protocol or parameter, or the protocol names another judge.
        AssetError: the judge is not on this machine; the message says how to get it.
    """
    choice = choice or MetricSpec(name="geneval2")
    return GenEval2Metric(*reading_judge(tier, choice, assets, PROTOCOLS))
