"""WISE_Verified (Niu et al. 2025, arXiv 2503.07265, release of April 2026): does an image show what its prompt means?"""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sana_bench import (
    AssetError,
    MetricAssets,
    MetricSpec,
    Prompt,
    Sample,
    ScoreRow,
    Summary,
    check_rows,
    load_image,
    mean_summary,
)
from sana_bench.core.fingerprint import fingerprint
from sana_bench.judges.base import ReadingJudge, over_images
from sana_bench.judges.choice import PARAMETERS, choose
from sana_bench.metrics.base import tag_summaries
from sana_bench_judged_benchmarks.published import Request, published_file, read_script

__all__ = ["WiseVerified", "WiseVerifiedScore", "build_wise_verified"]

_NAME = "wise_verified"
_SOURCE = "https://raw.githubusercontent.com/PKU-YuanGroup/WISE/main"
_PROMPTS, _SCRIPT = "data_verified/merge.json", "vllm_eval.py"
_MAX_TOKENS = 2000
_SCORE = re.compile(r"\bscore\b[\s*`]*[:\uff1a][\s*`]*([01])\b", re.IGNORECASE)
_UNIT = "fraction"


class WiseVerified:
    """1,000 prompts, an image each."""

    name = _NAME
    default_images_per_prompt = 1
    metric_names = (_NAME,)

    def prompts(self, tier: str) -> list[Prompt]:
        """The prompts of `data_verified/merge.json`; raises `AssetError` for another file."""
        path = published_file(_NAME, _PROMPTS, f"{_SOURCE}/{_PROMPTS}")
        try:
            records = json.loads(path.read_text(encoding="utf-8"))
            return [
                Prompt(
                    f"{int(record['prompt_id']):04d}",
                    record["Prompt"],
                    record["Category"],
                    {"explanation": record["Explanation"], "subcategory": record["Subcategory"]},
                )
                for record in records
            ]
        except (KeyError, ValueError, TypeError) as error:
            raise AssetError(f"{path}: not the prompts of WISE_Verified ({error!r})") from None


class WiseVerifiedScore:
    """1 or 0 an image, as the judge says.

    The published weights of the six categories, .40 and .12 five times, are their shares of the prompts: the overall number is
    the mean over all images. Where the judge gives no score, or two, the image has none and counts as missing.
    """

    name = _NAME
    higher_is_better = True

    def __init__(self, label: str, judge: ReadingJudge) -> None:
        self.protocol = f"{_NAME}/{label}@1"
        self.judge = judge
        path = published_file(_NAME, _SCRIPT, f"{_SOURCE}/{_SCRIPT}")
        fields = {"prompt_data['Prompt']": "prompt", "prompt_data['Explanation']": "explanation"}
        self._request = Request(read_script(path), fields, path)

    def identity(self) -> dict[str, Any]:
        """Wording and judge."""
        return {"wording_sha256": fingerprint(self._request.identity()), "judge": self.judge.identity()}

    def score(self, samples: Sequence[Sample]) -> list[ScoreRow]:
        """One row per sample."""
        return over_images(self.judge, self._score, samples)

    def summarise(self, rows: Sequence[ScoreRow], n_expected: int, seed: int) -> list[Summary]:
        """Overall, and each category, with intervals by prompt."""
        check_rows(self.name, rows, n_expected)
        scored = [row for row in rows if row.details["answers"]]
        n_without = len(rows) - len(scored)
        note = f"{n_without} answers without a score" if n_without else ""
        overall = replace(mean_summary(self, scored, n_expected, seed, unit=_UNIT), note=note)
        return [overall, *tag_summaries(self, scored, n_expected, seed, unit=_UNIT)]

    def _score(self, sample: Sample) -> ScoreRow:
        prompt, explanation = sample.prompt.text, sample.prompt.metadata["explanation"]
        request = self._request.fill(prompt=prompt, explanation=explanation)
        (said,) = self.judge.answer(load_image(sample.image_path), [request], max_tokens=_MAX_TOKENS)
        scores = set(_SCORE.findall(said))
        value = float(scores.pop()) if len(scores) == 1 else None
        answers = [] if value is None else [{"question": explanation, "answer": said, "score": value}]
        return ScoreRow(sample.id, sample.prompt.id, sample.prompt.tag, value or 0.0, {"answers": answers})


def build_wise_verified(tier: str, assets: MetricAssets, spec: MetricSpec) -> WiseVerifiedScore:
    """The metric with the judge that `spec` names; raises as `sana_bench.judges.choice.choose`."""
    chosen = choose(f"metric {_NAME!r}", spec.parameters_among(PARAMETERS), assets.cache_dir, assets.device)
    return WiseVerifiedScore(chosen.label, chosen.judge)
