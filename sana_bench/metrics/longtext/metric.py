"""LongText-Bench's score: how much of the text that a prompt asks for a judge reads in the image."""

from collections.abc import Sequence
from typing import Any

from sana_bench.core.images import load_image
from sana_bench.core.samples import Sample
from sana_bench.judges.base import ReadingJudge, over_images
from sana_bench.metrics.base import MetricAssets, ScoreRow, Summary, check_rows, word_share
from sana_bench.metrics.chosen_judge import reading_judge
from sana_bench.metrics.longtext.rules import asked_texts, compare
from sana_bench.metrics.read_text import REQUEST
from sana_bench.suites.schema import MetricSpec

__all__ = ["PROTOCOLS", "LongTextMetric", "build_longtext"]

#: The protocol of the full tier; a judge that a suite names has its own.
PROTOCOLS = ("longtext/official@1",)

_MAX_TOKENS = 1024


class LongTextMetric:
    """Readings of a judge by the published rule; the value of a row is the share of an image's words that were read.

    A prompt's metadata has the texts that it asks for (`text`) and their `language`, `en` where it has none.
    """

    name = "longtext"
    higher_is_better = True

    def __init__(self, protocol: str, judge: ReadingJudge) -> None:
        self.protocol = protocol
        self.judge = judge

    def identity(self) -> dict[str, Any]:
        return {
            "metric": self.name,
            "protocol": self.protocol,
            "request": REQUEST,
            "max_tokens": _MAX_TOKENS,
            "judge": self.judge.identity(),
        }

    def score(self, samples: Sequence[Sample]) -> list[ScoreRow]:
        """One row per sample; `details` has the words `matched` and asked for (`words`), and under `answers` what was read.

        Raises `UsageError` for a prompt that asks for no text.
        """
        return over_images(self.judge, self._score, samples)

    def summarise(self, rows: Sequence[ScoreRow], n_expected: int, seed: int) -> list[Summary]:
        """The share of all words that were read, and of each category's, with 95 % intervals by prompt.

        How the missing samples of an incomplete set spread over categories is not known here: every category counts all of them.
        """
        check_rows(self.name, rows, n_expected)
        tags = list(dict.fromkeys(row.tag for row in sorted(rows, key=lambda row: row.sample_id)))
        parts = [(tag, [row for row in rows if row.tag == tag]) for tag in tags]
        n_missing = n_expected - len(rows)
        return [word_share(self, rows, n_expected, seed)] + [
            word_share(self, part, len(part) + n_missing, seed, key=tag) for tag, part in parts
        ]

    def _score(self, sample: Sample) -> ScoreRow:
        texts, language = asked_texts(sample.prompt.metadata, f"prompt {sample.prompt.id}")
        read = self.judge.read_text(load_image(sample.image_path), REQUEST, max_tokens=_MAX_TOKENS)
        match = compare(texts, read, language)
        value = match.matched / match.words
        answer = {"question": " ".join(texts), "answer": read, "score": value}
        details = {"answers": [answer], "matched": match.matched, "words": match.words}
        return ScoreRow(sample.id, sample.prompt.id, sample.prompt.tag, value, details)


def build_longtext(tier: str, assets: MetricAssets, choice: MetricSpec | None = None) -> LongTextMetric:
    """LongText-Bench by the protocol of `choice` or the tier's first.

    The parameter `judge` names an image-text-to-text model, by hub id or folder, that reads in place of Qwen2.5-VL-7B-Instruct;
    the protocol is then the one that carries its name. `precision` is `bf16` (the default) or `fp32`.

    Raises:
        SuiteError: the tier has no such protocol or parameter, or the protocol names another judge.
        AssetError: the judge is not on this machine; the message says how to get it.
    """
    choice = choice or MetricSpec(name="longtext")
    return LongTextMetric(*reading_judge(tier, choice, assets, PROTOCOLS))
