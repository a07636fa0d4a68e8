"""The GenEval score: share of images that show what was asked, per task and as the mean of the tasks."""

from collections.abc import Iterable, Sequence
from typing import Any

from sana_bench.metrics.base import OVERALL, Sample, ScoreRow, Summary, check_rows
from sana_bench.metrics.detection import Detector, MicroDetector
from sana_bench.metrics.geneval_decision import decide
from sana_bench.metrics.images import load_image
from sana_bench.results.statistics import clustered_proportion

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")


class GenEvalMetric:
    """Verdicts by the official rules on the detections of `detector`; the value of a row is 1 or 0."""

    name = "geneval"
    higher_is_better = True

    def __init__(self, protocol: str, detector: Detector) -> None:
        self.protocol = protocol
        self._detector = detector

    def identity(self) -> dict[str, Any]:
        return {"metric": self.name, "protocol": self.protocol, "detector": self._detector.identity()}

    def score(self, samples: Sequence[Sample]) -> list[ScoreRow]:
        """One row per sample; `details` holds `correct`, `reasons` and the unfiltered `detections`."""
        return [self._judge(sample) for sample in samples]

    def summarise(self, rows: Sequence[ScoreRow], n_expected: int, seed: int) -> list[Summary]:
        """Overall (unweighted mean of task rates) and each task, with 95 % intervals clustered by prompt.

        How the missing samples of an incomplete set spread over tasks is not known here, so every task is
        then marked as lacking all of them.
        """
        check_rows(self.name, rows, n_expected)
        tags = _task_order(row.tag for row in rows)
        n_missing = n_expected - len(rows)
        tasks = [[row for row in rows if row.tag == tag] for tag in tags]
        overall = self._summary(OVERALL, rows, n_expected, seed, note=_official_shares(rows, tags))
        return [overall] + [
            self._summary(tag, of_task, len(of_task) + n_missing, seed)
            for tag, of_task in zip(tags, tasks, strict=True)
        ]

    def _judge(self, sample: Sample) -> ScoreRow:
        detections = self._detector.detect(load_image(sample.image_path))
        decision = decide(sample.prompt.metadata, detections)
        return ScoreRow(
            sample_id=sample.id,
            prompt_id=sample.prompt.id,
            tag=sample.prompt.tag,
            value=float(decision.correct),
            details={
                "correct": decision.correct,
                "reasons": list(decision.reasons),
                "detections": detections,
            },
        )

    def _summary(
        self, key: str, rows: Sequence[ScoreRow], n_expected: int, seed: int, note: str = ""
    ) -> Summary:
        prompts = [row.prompt_id for row in rows]
        interval = clustered_proportion(
            [row.value for row in rows], prompts, [row.tag for row in rows], seed=seed
        )
        return Summary(
            metric=self.name,
            protocol=self.protocol,
            key=key,
            value=interval.value,
            low=interval.low,
            high=interval.high,
            n_samples=len(rows),
            n_expected=n_expected,
            n_prompts=len(set(prompts)),
            unit="fraction",
            higher_is_better=self.higher_is_better,
            note=note,
        )


def build_geneval(tier: str) -> GenEvalMetric:
    """GenEval for `tier`; raises `AssetError` where the detector's weights are missing."""
    if tier == "micro":
        return GenEvalMetric("geneval/micro@1", MicroDetector())
    from sana_bench.metrics.full_tier import refuse

    raise refuse("geneval", ("geneval_detector", "clip_vit_l_14"))


def _task_order(tags: Iterable[str]) -> list[str]:
    present = set(tags)
    return [tag for tag in TASKS if tag in present] + sorted(present - set(TASKS))


def _official_shares(rows: Sequence[ScoreRow], tags: Sequence[str]) -> str:
    """The two shares the official summary prints beside the score: of images, and of prompts with any hit."""
    prompts = {row.prompt_id for row in rows}
    solved = {row.prompt_id for row in rows if row.value == 1.0}
    images = sum(row.value for row in rows) / len(rows)
    any_image = len(solved) / len(prompts)
    shares = f"correct images {images:.3f}, prompts with a correct image {any_image:.3f}"
    return f"mean of {len(tags)} tasks; {shares}"
