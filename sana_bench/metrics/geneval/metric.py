"""The GenEval score: share of images that show what was asked, per task and as the mean of the tasks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sana_bench.core.images import load_image
from sana_bench.core.samples import Sample
from sana_bench.metrics.base import MetricAssets, ScoreRow, Summary, check_rows, mean_summary
from sana_bench.metrics.geneval.decision import Decision, confident_by_class, decide
from sana_bench.metrics.geneval.detector import BatchDetector, Detector, MicroDetector
from sana_bench.suites.schema import MetricSpec

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
MICRO, OFFICIAL, SANA, HUB = (f"geneval/{name}@1" for name in ("micro", "official", "sana", "hf-detector"))
PROTOCOLS = {"micro": (MICRO,), "full": (OFFICIAL, SANA, HUB)}

# What a reader must know beside the number of a protocol.
_NOTES = {HUB: "approximation of geneval/official@1: another training run of the detector"}
# Images that are held in memory at once with the masks found in them.
_IMAGES_AT_ONCE = 16


@dataclass(frozen=True)
class Rules:
    """How detections become a verdict; the defaults are the official ones.

    `exact_counting` rejects more objects than asked for. SANA's tools lose the `exclude` clauses that say so, which makes
    their counting task one of at-least-so-many.
    """

    threshold: float = 0.3
    counting_threshold: float = 0.9
    max_objects: int = 16
    position_threshold: float = 0.1
    exact_counting: bool = True

    def judge(self, metadata: Mapping[str, Any], detections: Sequence[Mapping[str, Any]]) -> Decision:
        """The verdict on one image; see `sana_bench.metrics.geneval.decision.decide`."""
        asked = metadata if self.exact_counting else {**metadata, "exclude": []}
        return decide(
            asked,
            detections,
            threshold=self.threshold,
            counting_threshold=self.counting_threshold,
            max_objects=self.max_objects,
            position_threshold=self.position_threshold,
        )

    def kept(
        self, metadata: Mapping[str, Any], detections: Sequence[Mapping[str, Any]]
    ) -> dict[str, list[Mapping[str, Any]]]:
        """The detections by class that the verdict looks at, most confident first."""
        minimum = self.counting_threshold if metadata["tag"] == "counting" else self.threshold
        return confident_by_class(detections, minimum, self.max_objects)

    def changed(self) -> dict[str, Any]:
        """The settings that differ from the official ones, as identities and labels name them."""
        official = Rules()
        return {name: value for name, value in vars(self).items() if value != getattr(official, name)}


def rules_of(protocol: str) -> Rules:
    """The rules of a protocol."""
    return Rules(exact_counting=protocol != SANA)


class GenEvalRates:
    """Verdicts to rates, whoever detected the objects; the value of a row is 1 or 0."""

    name = "geneval"
    higher_is_better = True

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol

    def summarise(self, rows: Sequence[ScoreRow], n_expected: int, seed: int) -> list[Summary]:
        """Overall (unweighted mean of task rates) and each task, with 95 % intervals clustered by prompt.

        How the missing samples of an incomplete set spread over tasks is not known here: every task counts all of them as its
        own until the caller, who knows the prompts, puts in what was asked for (`with_task_counts`).
        """
        check_rows(self.name, rows, n_expected)
        tags = _task_order(row.tag for row in rows)
        notes = [note for note in (_NOTES.get(self.protocol, ""), _official_shares(rows, tags)) if note]
        share = partial(mean_summary, self, seed=seed, unit="fraction", pass_rate=True)
        tasks = [[row for row in rows if row.tag == tag] for tag in tags]
        n_missing = n_expected - len(rows)
        return [share(rows, n_expected, note="; ".join(notes))] + [
            share(task, len(task) + n_missing, key=tag) for tag, task in zip(tags, tasks, strict=True)
        ]


class GenEvalMetric(GenEvalRates):
    """Verdicts by the official rules on the detections of `detector`."""

    def __init__(self, protocol: str, detector: Detector, rules: Rules | None = None) -> None:
        super().__init__(protocol)
        self._detector = detector
        self._rules = rules or rules_of(protocol)

    def identity(self) -> dict[str, Any]:
        detector = self._detector.identity()
        changed = self._rules.changed()
        rules = {"rules": changed} if changed else {}
        return {"metric": self.name, "protocol": self.protocol, "detector": detector, **rules}

    def score(self, samples: Sequence[Sample]) -> list[ScoreRow]:
        """One row per sample; `details` holds `correct`, `reasons` and the unfiltered `detections`."""
        rows = []
        for start in range(0, len(samples), _IMAGES_AT_ONCE):
            part = samples[start : start + _IMAGES_AT_ONCE]
            for sample, detections in zip(part, self._detect(part), strict=True):
                rows.append(judge(sample, detections, self._rules))
        return rows

    def _detect(self, samples: Sequence[Sample]) -> list[list[dict[str, Any]]]:
        images = [load_image(sample.image_path) for sample in samples]
        if not isinstance(self._detector, BatchDetector):
            return [self._detector.detect(image) for image in images]
        return self._detector.detect_many(
            images, [colored_classes(sample.prompt.metadata) for sample in samples]
        )


def judge(sample: Sample, detections: list[dict[str, Any]], rules: Rules) -> ScoreRow:
    """The row of one sample by `rules`, detections kept."""
    decision = rules.judge(sample.prompt.metadata, detections)
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


def colored_classes(metadata: Mapping[str, Any]) -> frozenset[str]:
    """Classes of which a prompt asks for a colour."""
    return frozenset(clause["class"] for clause in metadata.get("include", ()) if "color" in clause)


def build_geneval(
    tier: str, assets: MetricAssets | None = None, choice: MetricSpec | None = None
) -> GenEvalMetric:
    """GenEval for `tier`, by the protocol of `choice` or the tier's first.

    Raises:
        SuiteError: the tier has no such protocol, or a parameter is set: the metric has none.
        AssetError: the detector's or the colour classifier's weights are missing.
    """
    choice = choice or MetricSpec(name="geneval")
    choice.parameters_among({})
    protocol = choice.pick(PROTOCOLS[tier])
    if tier == "micro":
        return GenEvalMetric(protocol, MicroDetector())
    from sana_bench.assets.required import required
    from sana_bench.metrics.geneval.colors import ColorClassifier
    from sana_bench.metrics.geneval.detector import FullDetector

    detector = "geneval_detector_hub" if protocol == HUB else "geneval_detector"
    weights, clip = required("geneval", (detector, "clip_vit_l_14"))
    device = assets.device if assets is not None else "cpu"
    folder = weights.parent if protocol == HUB else weights
    return GenEvalMetric(protocol, FullDetector(folder, ColorClassifier(clip, device), device))


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
