"""OneIG-Bench's text: what a judge reads in an image against the text that was asked for, in one score of three parts."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from sana_bench.core import fields
from sana_bench.core.errors import IncompleteError, UsageError
from sana_bench.core.samples import Sample
from sana_bench.judges.base import ReadingJudge, over_images
from sana_bench.metrics.base import (
    MetricAssets,
    ScoreRow,
    Summary,
    check_rows,
    interval_summary,
    mean_summary,
    word_share,
)
from sana_bench.metrics.chosen_judge import reading_judge
from sana_bench.metrics.oneig.picture import NOTE, codec_of, picture
from sana_bench.metrics.oneig.rules import Reading, compare, contributions, pooled
from sana_bench.metrics.read_text import REQUEST, language_of
from sana_bench.suites.schema import MetricSpec

__all__ = ["PROTOCOLS", "TextMetric", "build_text", "wanted_text"]

#: The protocol of the full tier; a judge that a suite names has its own.
PROTOCOLS = ("oneig_text/official@1",)

# Texts of more words than this may be read with more tokens.
_LONG = 60
_MAX_TOKENS, _MAX_TOKENS_LONG = 128, 256


class TextMetric:
    """Readings of a judge by the published rule; the value of a row is the score of an image alone.

    A prompt's metadata has all that it asks for as one text (`text_content`) and its `language`, `en` where it has none.
    """

    name = "oneig_text"
    higher_is_better = True

    def __init__(self, protocol: str, judge: ReadingJudge) -> None:
        self.protocol = protocol
        self.judge = judge
        self._codec = codec_of(protocol)

    def identity(self) -> dict[str, Any]:
        return {
            "metric": self.name,
            "protocol": self.protocol,
            "request": REQUEST,
            "max_tokens": [_MAX_TOKENS, _MAX_TOKENS_LONG],
            "codec": self._codec,
            "judge": self.judge.identity(),
        }

    def score(self, samples: Sequence[Sample]) -> list[ScoreRow]:
        """One row per sample; `details` has the fields of `Reading`, the `language`, and under `answers` what was read.

        Raises `UsageError` for a prompt that asks for no text.
        """
        return over_images(self.judge, self._score, samples)

    def summarise(self, rows: Sequence[ScoreRow], n_expected: int, seed: int) -> list[Summary]:
        """The score, the share of images without any error (`CR`) and that of words read (`WAC`), with 95 % intervals by prompt.

        The mean edit distance is in the note of the score.

        Raises:
            IncompleteError: texts of two languages, or as `check_rows`.
        """
        from sana_bench.results.statistics.intervals import clustered_bootstrap

        check_rows(self.name, rows, n_expected)
        languages = sorted({row.details["language"] for row in rows})
        if len(languages) > 1:
            raise IncompleteError(f"{self.name}: texts in {' and '.join(languages)} have no common score")
        found = pooled([_reading(row) for row in rows], languages[0])
        prompts = [row.prompt_id for row in rows]
        linear = clustered_bootstrap(contributions([row.details for row in rows]), prompts, seed=seed)
        note = f"mean edit distance {found['ED']:.1f} characters; {NOTE}"
        whole = [replace(row, value=float(_reading(row).edit_distance == 0)) for row in rows]
        return [
            interval_summary(
                self, replace(linear, value=found["score"]), rows, n_expected, unit="fraction", note=note
            ),
            mean_summary(self, whole, n_expected, seed, unit="fraction", key="CR", share=True),
            word_share(self, rows, n_expected, seed, key="WAC"),
        ]

    def _score(self, sample: Sample) -> ScoreRow:
        wanted, language = wanted_text(sample.prompt.metadata, f"prompt {sample.prompt.id}")
        longest = _MAX_TOKENS_LONG if len(wanted.split()) > _LONG else _MAX_TOKENS
        read = self.judge.read_text(picture(sample, self._codec), REQUEST, max_tokens=longest)
        reading = compare(wanted, read)
        value = pooled([reading], language)["score"]
        answer = {"question": wanted, "answer": read, "score": value}
        details = {"answers": [answer], "language": language, **asdict(reading)}
        return ScoreRow(sample.id, sample.prompt.id, sample.prompt.tag, value, details)


def wanted_text(record: Mapping[str, Any], where: str) -> tuple[str, str]:
    """The `text_content` of a prompt's record, all that it asks for as one text, and its `language`, `en` where it has none.

    Raises:
        UsageError: the text is missing, none, or without a word, or another language; the message begins with `where`.
    """
    wanted = fields.text(fields.field(record, where, "text_content"), f"{where}: text_content")
    if compare(wanted, "").words == 0:
        raise UsageError(f"{where}: text_content: there is no word in it")
    return wanted, language_of(record, where)


def _reading(row: ScoreRow) -> Reading:
    return Reading(*(row.details[name] for name in ("edit_distance", "matched", "words")))


def build_text(tier: str, assets: MetricAssets, choice: MetricSpec | None = None) -> TextMetric:
    """OneIG-Bench's text score by the protocol of `choice` or the tier's first; `judge` and `precision` as for GenEval 2.

    Raises:
        SuiteError: the tier has no such protocol or parameter, or the protocol names another judge.
        AssetError: the judge is not on this machine; the message says how to get it.
    """
    choice = choice or MetricSpec(name=TextMetric.name)
    return TextMetric(*reading_judge(tier, choice, assets, PROTOCOLS))
