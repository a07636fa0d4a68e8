"""The DPG score: share of a long prompt's questions that a judge answers with yes, as a mean over prompts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sana_bench.core.cut_texts import CutTexts
from sana_bench.core.errors import AssetError, IncompleteError, SuiteError
from sana_bench.core.images import ImageError, load_image
from sana_bench.core.samples import OVERALL, Sample
from sana_bench.judges.base import Answer, CutsQuestions, QuestionJudge
from sana_bench.judges.mplug.judge import MPlugJudge, find_mplug
from sana_bench.metrics.base import (
    MetricAssets,
    ScoreRow,
    Summary,
    check_rows,
    missing_micro_weights,
)
from sana_bench.metrics.chosen_judge import named_judge, names_judge
from sana_bench.metrics.dpg.grid import Layout, SingleImage, layout_of, sana_grid
from sana_bench.metrics.dpg.rules import (
    MissingParentError,
    broad_category,
    category,
    raw_score,
    zeroed_official,
    zeroed_strict,
)
from sana_bench.results.statistics.intervals import clustered_proportion
from sana_bench.suites.schema import MetricSpec

__all__ = ["OFFICIAL", "PROTOCOLS", "STRICT", "DPGMetric", "Rules", "build_dpg"]

#: Protocols of the full tier; a judge that a suite names has its own (`sana_bench.metrics.chosen_judge`).
PROTOCOLS = ("dpg/official@1", "dpg/strict@1", "dpg/sana-grid@1")

_SCALE = 100
_UNIT = "out of 100"

Record = dict[str, Any]


@dataclass(frozen=True)
class Rules:
    """What a protocol makes of the answers. Both kinds of category value come from the same rows."""

    name: str
    skips_first_row: bool
    zeroed: Callable[[Sequence[Record], dict[int, float]], dict[int, float]]
    categories_of_last_image: bool


OFFICIAL = Rules("official", True, zeroed_official, True)
STRICT = Rules("strict", False, zeroed_strict, False)


class DPGMetric:
    """Scores of `judge`'s answers by `rules`; the value of a row is an image's score out of 100."""

    name = "dpg"
    higher_is_better = True

    def __init__(
        self, protocol: str, judge: QuestionJudge, rules: Rules, layout: Layout | None = None
    ) -> None:
        self.protocol = protocol
        self.judge = judge
        self._rules = rules
        self._layout = SingleImage() if layout is None else layout
        self.joins = self._layout.joins

    def identity(self) -> dict[str, Any]:
        return {
            **({"joins": self.joins} if self.joins > 1 else {}),
            "metric": self.name,
            "protocol": self.protocol,
            "rules": self._rules.name,
            "layout": self._layout.identity(),
            "judge": self.judge.identity(),
        }

    def score(self, samples: Sequence[Sample]) -> list[ScoreRow]:
        """One row per sample. Images that are joined have the cell of their place in the grid, and files that are grids all.

        `details["answers"]` lists every question with its `answer` and the `score` it counts with; `raw` is
        the score before dependencies, `cell` the place in a grid. `details["left_out"]` says why the published
        script drops the image, whose value is then 0 and enters no mean.

        Raises:
            SuiteError: a prompt without questions.
            AssetError: dependencies that the strict rules refuse; the message names the prompt.
        """
        rows = []
        for _, one_prompt in groupby(samples, key=lambda sample: sample.prompt.id):
            group = list(one_prompt)
            if self.joins == 1 or len(group) == 1:
                rows += [self._judge_file(sample) for sample in group]
            else:
                rows += self._judge_joined(group)
        return rows

    def cut_texts(self, samples: Sequence[Sample]) -> list[CutTexts]:
        """Questions that the judge reads without their end, for a judge with a limit."""
        if not isinstance(self.judge, CutsQuestions):
            return []
        questions = sorted({asked["question"] for sample in samples for asked in self._questions(sample)})
        cut = self.judge.cut(questions)
        return [CutTexts.count("its judge", self.judge.question_limit, cut, "questions")]

    def summarise(self, rows: Sequence[ScoreRow], n_expected: int, seed: int) -> list[Summary]:
        """Overall (mean of prompt means), then categories (mean over questions), with 95 % intervals by prompt.

        A detailed category follows its broad one. How the missing samples of an incomplete set spread over
        categories is not known here, so every category is then marked as lacking all of them.
        """
        check_rows(self.name, rows, n_expected)
        counted = sorted(
            (row for row in rows if "left_out" not in row.details), key=lambda row: row.sample_id
        )
        if not counted:
            raise IncompleteError(f"{self.name}: the published script leaves out every image of this set")
        prompts: dict[str, list[float]] = {}
        for row in counted:
            prompts.setdefault(row.prompt_id, []).append(row.value / _SCALE)
        means = [float(np.mean(values)) for values in prompts.values()]
        left_out = len(rows) - len(counted)
        note = f"{left_out} images left out, as the published script does" if left_out else ""
        overall = self._summary(OVERALL, means, list(prompts), (len(rows), n_expected), seed, note)
        return [overall, *self._categories(counted, n_expected - len(rows), seed)]

    def _judge_file(self, sample: Sample) -> ScoreRow:
        cells = self._layout.cells(load_image(sample.image_path), sample.image_path)
        return self._judge_cells(sample, dict(enumerate(cells)) if len(cells) > 1 else {None: cells[0]})

    def _judge_joined(self, group: Sequence[Sample]) -> list[ScoreRow]:
        path = group[0].image_path
        try:
            grid = sana_grid([load_image(sample.image_path) for sample in group])
        except ValueError as error:
            raise ImageError(path, str(error)) from None
        cells = self._layout.cells(grid, path)
        return [
            self._judge_cells(sample, {index: cell})
            for index, (sample, cell) in enumerate(zip(group, cells, strict=True))
        ]

    def _judge_cells(self, sample: Sample, cells: Mapping[int | None, NDArray[np.uint8]]) -> ScoreRow:
        """The row of a sample from pictures by their place in a grid; None where there is no grid."""
        questions = self._questions(sample)
        details: Record = {"answers": []}
        means = []
        for index, cell in cells.items():
            answers = self.judge.answers(cell, [question["question"] for question in questions])
            try:
                records = self._records(questions, answers)
            except MissingParentError as error:
                return self._row(sample, 0.0, {"answers": [], "left_out": str(error)})
            except AssetError as error:
                raise AssetError(f"prompt {sample.prompt.id!r}: {error}") from None
            means.append(sum(record["score"] for record in records) / len(records))
            place = {"cell": index} if index is not None else {}
            details["answers"] += [record | place for record in records]
        return self._row(sample, _SCALE * sum(means) / len(means), details)

    def _questions(self, sample: Sample) -> list[Record]:
        questions = sample.prompt.metadata.get("questions")
        if not questions:
            raise SuiteError(
                f"metric {self.name!r}: prompt {sample.prompt.id!r} of {sample.benchmark!r} has no questions; "
                "use it with the benchmark dpg_bench"
            )
        return [q for q in questions if not (self._rules.skips_first_row and q.get("first_row"))]

    def _records(self, questions: list[Record], answers: list[Answer]) -> list[Record]:
        raw = {
            question["proposition_id"]: raw_score(answer.text)
            for question, answer in zip(questions, answers, strict=True)
        }
        final = self._rules.zeroed(questions, raw)
        return [
            {
                "id": question["proposition_id"],
                "category": category(question),
                "question": question["question"],
                "answer": answer.text,
                "score": final[question["proposition_id"]],
                "raw": raw[question["proposition_id"]],
            }
            | ({} if answer.p_yes is None else {"p_yes": answer.p_yes})
            for question, answer in zip(questions, answers, strict=True)
        ]

    def _row(self, sample: Sample, value: float, details: Record) -> ScoreRow:
        return ScoreRow(sample.id, sample.prompt.id, sample.prompt.tag, value, details)

    def _categories(self, rows: list[ScoreRow], n_missing: int, seed: int) -> list[Summary]:
        if self._rules.categories_of_last_image:
            rows = list({row.prompt_id: row for row in rows}.values())
        found: dict[str, list[tuple[float, str, str]]] = {}
        for row in rows:
            for record in self._counted(row):
                value = record["raw" if self._rules.categories_of_last_image else "score"]
                name = record["category"]
                for key in dict.fromkeys((broad_category({"tuple": name}), name.removesuffix(" -"))):
                    found.setdefault(key, []).append((value, row.prompt_id, row.sample_id))
        summaries = []
        for key in sorted(found):
            values, prompts, samples = zip(*found[key], strict=True)
            n_samples = len(set(samples))
            counts = (n_samples, n_samples + n_missing)
            summaries.append(self._summary(key, values, prompts, counts, seed, f"{len(values)} answers"))
        return summaries

    def _counted(self, row: ScoreRow) -> list[Record]:
        """The answers of a row that enter categories: by the official rules those of the last cell."""
        answers: list[Record] = row.details["answers"]
        if not self._rules.categories_of_last_image:
            return answers
        last = max(record.get("cell", 0) for record in answers)
        return [record for record in answers if record.get("cell", 0) == last]

    def _summary(
        self,
        key: str,
        values: Sequence[float],
        prompts: Sequence[str],
        counts: tuple[int, int],
        seed: int,
        note: str = "",
    ) -> Summary:
        interval = clustered_proportion(values, prompts, seed=seed)
        return Summary(
            metric=self.name,
            protocol=self.protocol,
            key=key,
            value=_SCALE * interval.value,
            low=_SCALE * interval.low,
            high=_SCALE * interval.high,
            n_samples=counts[0],
            n_expected=counts[1],
            n_prompts=len(set(prompts)),
            unit=_UNIT,
            higher_is_better=self.higher_is_better,
            note=note,
        )


def build_dpg(tier: str, assets: MetricAssets, choice: MetricSpec | None = None) -> DPGMetric:
    """The DPG score of `tier`, by the protocol of `choice` or the tier's first.

    On the full tier `pic_num` and `resolution` read grids (see `layout_of`), and the parameter `judge` names an
    image-text-to-text model, by hub id or folder, that answers in place of mPLUG; the protocol is then the one that carries
    its name, and `precision` is `fp32` or `bf16`.

    Raises:
        SuiteError: the tier has no such protocol or parameter, or the protocol names another judge.
        AssetError: the judge's weights are missing; the message says where from.
    """
    choice = choice or MetricSpec(name="dpg")
    if tier == "full" and names_judge(choice):
        from sana_bench.judges.answers import RememberingQuestionJudge
        from sana_bench.judges.vlm import VLMJudge

        named = named_judge(choice)
        judge = VLMJudge(named.folder, device=assets.device, precision=named.precision)
        return DPGMetric(
            named.protocol, RememberingQuestionJudge(judge, assets.cache_dir / "answers"), STRICT
        )
    if tier == "micro":
        choice.parameters_among({})
        protocol, folder = choice.pick(["dpg/micro@1"]), assets.weights_dir / "vqa"
        if not folder.is_dir():
            raise missing_micro_weights(folder, "dpg", "configs/train/vqa_micro.yaml")
        return DPGMetric(protocol, MPlugJudge(folder), STRICT)
    protocol = choice.pick(PROTOCOLS)
    rules = STRICT if protocol == "dpg/strict@1" else OFFICIAL
    layout = layout_of(protocol, choice)
    return DPGMetric(
        protocol, MPlugJudge(find_mplug("metric 'dpg' on the full tier"), assets.device), rules, layout
    )
