"""Images made in rounds until a question is answered, with a look after each round."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sana_bench.core.errors import IncompleteError, SuiteError
from sana_bench.core.fingerprint import fingerprint
from sana_bench.core.progress import Progress, say
from sana_bench.core.registry import METRICS, Limits
from sana_bench.core.samples import OVERALL, Prompt, Sample
from sana_bench.metrics.base import FeatureMetric, Metric, ScoreRow, metric_key
from sana_bench.results.schema import Look
from sana_bench.results.sequences import ALL_USED, NARROW, UNDECIDED, StoredSequence
from sana_bench.results.statistics.sequential import (
    ConfidenceSequence,
    e_holm,
    prompts_per_round,
    verdicts,
)
from sana_bench.results.store import Store
from sana_bench.runner.checks import choice_key, missing_images
from sana_bench.runner.making import ImageMaker
from sana_bench.runner.scoring import Scorer, concerns
from sana_bench.suites.cells import Cell, ResolvedBenchmark, ResolvedSuite
from sana_bench.suites.plan import CellPlan
from sana_bench.suites.stop import StopSpec, chosen_question

__all__ = ["Question", "Rounds", "questions_of", "round_order"]

# How rounds are made and bets are placed: looks of another version are another sequence.
_VERSION = "rounds@1"


@dataclass(frozen=True)
class Question:
    """What one sequence is to answer: of two cells, the second against the first, or of one alone."""

    cells: tuple[Cell, ...]
    metric: Metric | FeatureMetric
    limits: tuple[float, float]
    by_task: bool
    effect: float | None
    width: float | None
    error: float

    @property
    def benchmark(self) -> ResolvedBenchmark:
        """The benchmark of its cells."""
        return self.cells[0].benchmark

    @property
    def prompts(self) -> list[Prompt]:
        """The prompts that the metric scores images of."""
        return [prompt for prompt in self.benchmark.prompts if concerns(self.metric.name, prompt)]

    @property
    def n_images(self) -> int:
        """Images of each variant that the question is about."""
        return len(self.prompts) * self.benchmark.images_per_prompt

    @property
    def label(self) -> str:
        """How messages call it."""
        return f"{self.benchmark.name} / {' and '.join(cell.variant.name for cell in self.cells)}"

    @property
    def key(self) -> str:
        """Identity of the sequence: the question, and everything that its values depend on."""
        return fingerprint(
            {
                "version": _VERSION,
                "images": [cell.image_key for cell in self.cells],
                "prompts": self.benchmark.describe()["prompts_sha256"],
                "images_per_prompt": self.benchmark.images_per_prompt,
                "metric_key": metric_key(self.metric),
                "limits": list(self.limits),
                "aim": [self.effect, self.width, self.error],
            }
        )


def questions_of(
    stop: StopSpec,
    resolved: ResolvedSuite,
    cells: Sequence[Cell],
    loaded: Mapping[str, Metric | FeatureMetric],
) -> list[Question]:
    """The questions that a suite's `stop` asks of these cells: one of a pair, or one of each variant.

    Raises `SuiteError` for variants that are not there, and as `chosen_question`.
    """
    benchmarks = {benchmark.name: benchmark.metrics for benchmark in resolved.benchmarks}
    benchmark, name = chosen_question(stop, benchmarks)
    own = METRICS.entry(name).find_limits() or Limits(0, 1)
    by_variant = {cell.variant.name: cell for cell in cells if cell.benchmark.name == benchmark}
    groups: list[tuple[Cell, ...]] = [(cell,) for cell in by_variant.values()]
    if stop.compare is not None:
        asked = [resolved.suite.variant(variant).name for variant in stop.compare]
        left_out = [variant for variant in asked if variant not in by_variant]
        if left_out:
            raise SuiteError(f"stop: {left_out[0]} is to be compared, and --variants leaves it out")
        groups = [tuple(by_variant[variant] for variant in asked)]
    found = []
    for group in groups:
        metric = loaded[choice_key(group[0].benchmark, name)]
        limits = (own.low - own.high, own.high - own.low) if len(group) == 2 else own[:2]
        effect = stop.size(own) if stop.width is None else None
        found.append(Question(group, metric, limits, own.by_task, effect, stop.width, stop.error))
    return found


def round_order(
    prompts: Sequence[Prompt], benchmark: str, seed: int, *, by_task: bool
) -> dict[str, list[Prompt]]:
    """The prompts of each task, or of all as one, in the order of rounds: the suite's seed alone decides it."""

    def place(prompt: Prompt) -> str:
        return fingerprint([_VERSION, seed, benchmark, prompt.id])

    tasks: dict[str, list[Prompt]] = {}
    for prompt in sorted(prompts, key=place):
        tasks.setdefault(prompt.tag if by_task else OVERALL, []).append(prompt)
    return dict(sorted(tasks.items()))


class Rounds:
    """Makes and scores the images of a question round by round, and stores every look."""

    def __init__(
        self, store: Store, run_id: str, seed: int, maker: ImageMaker, scorer: Scorer, question: Question
    ) -> None:
        self._store = store
        self._run_id = run_id
        self._maker = maker
        self._scorer = scorer
        self._question = question
        self._key = question.key
        self._tasks = round_order(question.prompts, question.benchmark.name, seed, by_task=question.by_task)
        #: Images that were there when their turn came.
        self.n_reused = 0

    def run(self) -> StoredSequence | None:
        """Go on until the question is answered or all prompts are used; None where images could not be made.

        From the first round on: what is there already is looked at and not made again, so that a run that was stopped
        ends as one that was not.
        """
        question, looks = self._question, list[Look]()
        images = question.benchmark.images_per_prompt
        sequence = ConfidenceSequence(
            [len(prompts) for prompts in self._tasks.values()],
            limits=question.limits,
            effect=question.effect,
            width=question.width,
            error=question.error,
            per_round=prompts_per_round(len(self._tasks), images),
        )
        with Progress(question.label, question.n_images * len(question.cells), "images") as progress:
            while (counts := sequence.next_round()[0]).any():
                used = sequence.used[0]
                chosen = [
                    prompts[start : start + count]
                    for prompts, start, count in zip(self._tasks.values(), used, counts, strict=True)
                ]
                plans = self._made(chosen, progress)
                if not plans:
                    return None
                by_cell = [self._values(plan) for plan in plans]
                sequence.add([_array(chosen, by_cell)])
                looks.append(self._look(sequence, len(looks)))
                self._store.put_look(self._run_id, looks[-1])
                say(f"look {len(looks)}: {_shown(looks[-1])}")
                if looks[-1].verdict != UNDECIDED:
                    return StoredSequence(tuple(looks))
        looks[-1] = replace(looks[-1], verdict=ALL_USED)
        self._store.put_look(self._run_id, looks[-1])
        return StoredSequence(tuple(looks))

    def _made(self, chosen: Sequence[Sequence[Prompt]], progress: Progress) -> list[CellPlan]:
        """Plans of a round's images by cell, made where they were missing; empty where one cannot be made."""
        prompts = [prompt.id for prompts in chosen for prompt in prompts]
        samples = {cell.label: _of_prompts(cell, prompts) for cell in self._question.cells}
        plans = [self._maker.plan(cell, samples=samples[cell.label]) for cell in self._question.cells]
        for plan in plans:
            self._maker.adopt(plan)
            progress.advance(len(plan.done))
            self.n_reused += len(plan.done)
        self._maker.make([plan for plan in plans if plan.missing], progress=progress, models=len(plans))
        plans = [
            self._maker.plan(plan.cell, samples=samples[plan.cell.label]) if plan.missing else plan
            for plan in plans
        ]
        for plan in plans:
            if plan.missing:
                say(f"{self._question.label}: no further round: {missing_images(plan)[0]}")
                return []
        return plans

    def _values(self, plan: CellPlan) -> dict[str, float]:
        """The mean score by prompt of a round's images of one cell."""
        found: dict[str, list[float]] = {}
        for row in self._scorer.rows(plan, self._question.metric):
            _refuse_left_out(row)
            found.setdefault(row.prompt_id, []).append(row.value)
        return {prompt: float(np.mean(values)) for prompt, values in found.items()}

    def _look(self, sequence: ConfidenceSequence, number: int) -> Look:
        question = self._question
        low, high = float(sequence.low[0]), float(sequence.high[0])
        if question.effect is not None:
            better = question.metric.higher_is_better
            verdict = str(verdicts(low, high, question.effect, higher_is_better=better))
        else:
            verdict = NARROW if high - low <= (question.width or 0) else UNDECIDED
        used, of_tasks = sequence.used[0], sequence.task_estimates[0]
        tasks = {
            task: {"prompts": int(count), "value": float(value)}
            for task, count, value in zip(self._tasks, used, of_tasks, strict=True)
        }
        if question.effect is not None:
            p_values = e_holm(sequence.task_e_values[0].tolist())
            for found, p_value in zip(tasks.values(), p_values, strict=True):
                found["p_value"] = p_value
        *others, cell = question.cells
        n_prompts = int(used.sum())
        return Look(
            sequence_key=self._key,
            look=number,
            benchmark=question.benchmark.name,
            metric=question.metric.name,
            metric_key=metric_key(question.metric),
            variant=cell.variant.name,
            against=others[0].variant.name if others else None,
            effect=question.effect,
            width=question.width,
            error=question.error,
            n_prompts=n_prompts,
            n_images=n_prompts * question.benchmark.images_per_prompt,
            n_expected=question.n_images,
            value=float(sequence.estimate[0]),
            low=low,
            high=high,
            verdict=verdict,
            tasks=tasks,
        )


def _of_prompts(cell: Cell, prompts: Sequence[str]) -> list[Sample]:
    """All samples of some prompts, in their order."""
    wanted = {prompt: place for place, prompt in enumerate(prompts)}
    samples = [sample for sample in cell.samples if sample.prompt.id in wanted]
    return sorted(samples, key=lambda sample: (wanted[sample.prompt.id], sample.index))


def _array(chosen: Sequence[Sequence[Prompt]], by_cell: Sequence[Mapping[str, float]]) -> np.ndarray:
    """The round's values, shape (tasks, most prompts): of the second cell less the first, or of the only one."""
    values = np.full((len(chosen), max(map(len, chosen))), np.nan)
    for task, prompts in enumerate(chosen):
        for place, prompt in enumerate(prompts):
            *others, value = (found[prompt.id] for found in by_cell)
            values[task, place] = value - sum(others)
    return values


def _refuse_left_out(row: ScoreRow) -> None:
    if "left_out" in row.details:
        raise IncompleteError(
            f"{row.sample_id} is left out of the mean ({row.details['left_out']}): this protocol cannot stop a run"
        )


def _shown(look: Look) -> str:
    """A look in a line."""
    sign = "+" if look.against is not None else ""
    interval = f"{look.value:{sign}.3f} [{look.low:{sign}.3f}, {look.high:{sign}.3f}]"
    of_each = " of each" if look.against is not None else ""
    return f"{look.n_images} of {look.n_expected} images{of_each}, {look.metric} {interval}: {look.verdict}"
