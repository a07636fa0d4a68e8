"""UniGenBench++ (Wang et al. 2025, arXiv 2510.18701): test points of a prompt, each of which a judge marks with 0 or 1."""

import ast
import csv
import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sana_bench import (
    AssetError,
    MetricAssets,
    MetricSpec,
    Prompt,
    Sample,
    ScoreRow,
    SuiteError,
    Summary,
    check_rows,
    clustered_bootstrap,
    load_image,
)
from sana_bench.core.fingerprint import fingerprint
from sana_bench.judges.base import ReadingJudge, over_images
from sana_bench.judges.choice import PARAMETERS, choose
from sana_bench.metrics.base import interval_summary
from sana_bench_judged_benchmarks.published import Request, literal, published_file, read_script

__all__ = ["UniGenBench", "UniGenBenchScore", "build_unigenbench"]

_Points = list[tuple[ScoreRow, dict[str, Any]]]

_NAME = "unigenbench"
_SOURCE = "https://raw.githubusercontent.com/CodeGoat24/UniGenBench/main"
_PROMPTS, _SCRIPT = "data/test_prompts_en.csv", "eval/qwenvl_72b_en_eval.py"
_MAX_TOKENS = 2048
_SCORES = re.compile(r"<score>(.*?)</score>", re.DOTALL)
_UNIT = "share"


class UniGenBench:
    """600 English prompts, four images each."""

    name = _NAME
    default_images_per_prompt = 4
    metric_names = (_NAME,)

    def prompts(self, tier: str) -> list[Prompt]:
        """The prompts of `data/test_prompts_en.csv`; raises `AssetError` for another file."""
        path = published_file(_NAME, _PROMPTS, f"{_SOURCE}/{_PROMPTS}")
        try:
            with open(path, newline="", encoding="utf-8") as file:
                return [_prompt(row) for row in csv.DictReader(file)]
        except (KeyError, ValueError, TypeError) as error:
            raise AssetError(f"{path}: not the prompts of UniGenBench ({error!r})") from None


def _prompt(row: dict[str, str]) -> Prompt:
    about = json.loads(row["sub_dims_en"])
    points, said = about["Testpoints"], about["Testpoint Description"]
    if len(points) != len(said) or not points:
        raise ValueError(f"prompt {row['index']} has {len(points)} test points and {len(said)} descriptions")
    metadata = {"testpoints": points, "descriptions": said}
    return Prompt(f"{int(row['index']):04d}", row["prompt_en"], about["Primary Categories"], metadata)


class UniGenBenchScore:
    """The share of an image's test points that hold; overall the mean of the primary dimensions' shares.

    Where the judge's answer holds no list of as many marks as there are points, the image has no score: it counts as missing.
    """

    name = _NAME
    higher_is_better = True

    def __init__(self, label: str, judge: ReadingJudge) -> None:
        self.protocol = f"{_NAME}/{label}@1"
        self.judge = judge
        path = published_file(_NAME, _SCRIPT, f"{_SOURCE}/{_SCRIPT}")
        script = read_script(path)
        names = ("prompt", "testpoint", "explanation", "test_explanation")
        self._request = Request(script, {name: name for name in names}, path)
        self._defined = literal(script, "explanation_dict", path)
        self._heads = [literal(script, name, path) for name in names[2:]]

    def identity(self) -> dict[str, Any]:
        """Wording and judge."""
        wording = [self._request.identity(), self._defined, self._heads]
        return {"wording_sha256": fingerprint(wording), "judge": self.judge.identity()}

    def score(self, samples: Sequence[Sample]) -> list[ScoreRow]:
        """One row per sample; `details["answers"]` has every test point with its mark."""
        return over_images(self.judge, self._score, samples)

    def summarise(self, rows: Sequence[ScoreRow], n_expected: int, seed: int) -> list[Summary]:
        """Overall, then each primary dimension and each dimension, with intervals by prompt."""
        check_rows(self.name, rows, n_expected)
        marked = [row for row in rows if row.details["answers"]]
        check_rows(self.name, marked, n_expected)
        n_missing = n_expected - len(marked)
        points = [(row, answer) for row in marked for answer in row.details["answers"]]
        return [self._summary(key, part, n_missing, seed) for key, part in _parts(points)]

    def _summary(self, key: str, points: _Points, n_missing: int, seed: int) -> Summary:
        """The share of points that hold, every primary dimension among them weighing as much as any other."""
        sizes = Counter(_primary(answer["question"]) for _, answer in points)
        # As a mean over points, which is what the bootstrap redraws by prompt.
        values = [
            answer["score"] * len(points) / (len(sizes) * sizes[_primary(answer["question"])])
            for _, answer in points
        ]
        found = clustered_bootstrap(values, [row.prompt_id for row, _ in points], seed=seed)
        images = list({row.sample_id: row for row, _ in points}.values())
        note = f"{len(points)} test points"
        return interval_summary(self, found, images, len(images) + n_missing, unit=_UNIT, key=key, note=note)

    def _score(self, sample: Sample) -> ScoreRow:
        about = sample.prompt.metadata
        points, said = about["testpoints"], about["descriptions"]
        unknown = [point for point in points if point not in self._defined]
        if unknown:
            raise SuiteError(f"metric {self.name!r}: prompt {sample.prompt.id} has the point {unknown[0]!r}")
        request = self._request.fill(
            prompt=sample.prompt.text,
            testpoint=str(points),
            explanation=_listed(self._heads[0], [(point, self._defined[point]) for point in points]),
            test_explanation=_listed(self._heads[1], list(zip(points, said, strict=True))),
        )
        (answer,) = self.judge.answer(load_image(sample.image_path), [request], max_tokens=_MAX_TOKENS)
        marks = _marks(answer, len(points))
        answers = [
            {"question": point, "answer": str(mark), "score": float(mark)}
            for point, mark in zip(points, marks, strict=False)
        ]
        value = sum(marks) / len(marks) if marks else 0.0
        return ScoreRow(sample.id, sample.prompt.id, sample.prompt.tag, value, {"answers": answers})


def build_unigenbench(tier: str, assets: MetricAssets, spec: MetricSpec) -> UniGenBenchScore:
    """The metric with the judge that `spec` names; raises as `sana_bench.judges.choice.choose`."""
    chosen = choose(f"metric {_NAME!r}", spec.parameters_among(PARAMETERS), assets.cache_dir, assets.device)
    return UniGenBenchScore(chosen.label, chosen.judge)


def _parts(points: _Points) -> list[tuple[str, _Points]]:
    """All points, those of each primary dimension, and those of each dimension that is part of one."""
    found: dict[str, _Points] = {}
    for row, answer in points:
        for key in dict.fromkeys((_primary(answer["question"]), answer["question"])):
            found.setdefault(key, []).append((row, answer))
    return [("overall", points), *sorted(found.items())]


def _primary(point: str) -> str:
    return point.partition("-")[0].strip()


def _listed(head: str, pairs: Sequence[tuple[str, str]]) -> str:
    return head + "".join(f"\n{name}: {text}" for name, text in pairs) + "\n」"


def _marks(answer: str, n_points: int) -> list[int]:
    """The marks of the points, each 0 or 1; empty where the answer has no such list."""
    found = _SCORES.search(answer)
    try:
        marks = ast.literal_eval(found[1].strip()) if found else None
    except (ValueError, SyntaxError):
        return []
    fits = isinstance(marks, list) and len(marks) == n_points and all(mark in (0, 1) for mark in marks)
    return [int(mark) for mark in marks] if fits else []
