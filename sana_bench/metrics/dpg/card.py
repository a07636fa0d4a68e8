"""How often a judge of the micro tier is right: its answers against the renderer's truth."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sana_bench.judges.mplug.judge import MPlugJudge
from sana_bench.metrics import training
from sana_bench.metrics.dpg.rules import category, score_strict
from sana_bench.metrics.training import EVALUATION_SEED, CardText
from sana_bench.micro.claims import KINDS, Claim, sample_claim
from sana_bench.micro.dense_prompts import DensePrompt, dense_scene, generate_dense_prompts, one_mistake
from sana_bench.micro.renderer import render
from sana_bench.micro.vqa_data import sample_scene
from sana_bench.micro.world import Scene
from sana_models.training.loop import TrainingResult

__all__ = [
    "Outcome",
    "Rate",
    "accuracy_tables",
    "measure_prompts",
    "measure_random",
    "rate_rows",
    "rates_of",
    "write_card",
]

#: Scenes, kind of question, true answer, and whether the judge gave it.
Outcome = tuple[str, str, str, bool]

_QUESTIONS_PER_SCENE = 8


@dataclass(frozen=True)
class Rate:
    """How many of `n` questions of one `kind` with the true answer `truth` were answered rightly."""

    scenes: str
    kind: str
    truth: str
    n_right: int
    n: int


def measure_prompts(judge: MPlugJudge, prompts: Sequence[DensePrompt], seed: int) -> tuple[list[Rate], float]:
    """Rates over the evaluation prompts, one scene as asked and one with a mistake each.

    Also the mean absolute difference between the strict score of an image by the judge and by the truth.
    """
    rng = np.random.default_rng([seed, 0])
    outcomes: list[Outcome] = []
    differences = []
    for prompt in prompts:
        questions = prompt.record("")["questions"]
        claims = [claim for claim, _ in prompt.claims()]
        for scenes, shown in (("as asked", prompt), ("one mistake", one_mistake(prompt, rng))):
            scene = dense_scene(shown, rng)
            answers = judge.answers(render(scene), [question["question"] for question in questions])
            truth = ["yes" if claim.holds(scene) else "no" for claim in claims]
            outcomes += [
                (scenes, category(q), right, answer.text == right)
                for q, right, answer in zip(questions, truth, answers, strict=True)
            ]
            scores = [
                score_strict(questions, [dict(enumerate(texts, start=1))]).prompt_score
                for texts in (truth, [answer.text for answer in answers])
            ]
            differences.append(abs(scores[0] - scores[1]))
    return rates_of(outcomes), float(np.mean(differences))


def measure_random(judge: MPlugJudge, n_scenes: int, seed: int) -> list[Rate]:
    """Rates over questions about scenes of the training distribution, as many true as false."""
    rng = np.random.default_rng([seed, 1])
    outcomes = []
    for _ in range(n_scenes):
        scene = sample_scene(rng)
        claims = [sample_claim(scene, rng, truth=turn % 2 == 0) for turn in range(_QUESTIONS_PER_SCENE)]
        outcomes += _judged(judge, scene, claims, "random")
    return rates_of(outcomes)


def accuracy_tables(judge: MPlugJudge, n_scenes: int = 500, seed: int = EVALUATION_SEED) -> str:
    """The tables of the card and of the documentation page, as Markdown."""
    prompts = generate_dense_prompts()
    rates, difference = measure_prompts(judge, prompts, seed)
    lines = [
        f"{len(prompts)} evaluation prompts with two scenes each, and {n_scenes} scenes of the training "
        f"distribution; seed {seed}. An image's score differs from the true one by {100 * difference:.1f} of 100 "
        "on average.",
        "",
        "| scenes | question | truth | n | right | share |",
        "|---|---|---|---|---|---|",
    ]
    parts = (("evaluation prompts", rates), ("random", measure_random(judge, n_scenes, seed)))
    for name, of_scenes in parts:
        total = Rate(name, "all", "", sum(r.n_right for r in of_scenes), sum(r.n for r in of_scenes))
        lines += rate_rows([*of_scenes, total])
    return "\n".join(lines)


def rate_rows(rates: Sequence[Rate]) -> list[str]:
    """The rows of a Markdown table."""
    return [
        f"| {r.scenes} | {r.kind} | {r.truth} | {r.n} | {r.n_right} | {r.n_right / r.n:.1%} |" for r in rates
    ]


def rates_of(outcomes: Sequence[Outcome]) -> list[Rate]:
    """Outcomes counted by scenes, kind and truth, in the order of these."""
    found: dict[tuple[str, str, str], list[bool]] = {}
    for scenes, kind, truth, right in outcomes:
        found.setdefault((scenes, kind, truth), []).append(right)
    return [
        Rate(scenes, kind, truth, sum(right), len(right))
        for (scenes, kind, truth), right in sorted(found.items())
    ]


def write_card(folder: Path, *, config: str, result: TrainingResult) -> None:
    """Measure the weights in `folder` and write `README.md` beside them."""
    judge = MPlugJudge(folder)
    parameters = sum(tensor.numel() for tensor in judge.network.parameters())
    text = CardText(
        name=folder.name,
        about="A small mPLUG of the micro world, the judge of its dense prompts. It knows coloured shapes and nothing else; its\n"
        "numbers do not compare with published ones.",
        parameters=f"{parameters:,}, stored in float16",
        data="rendered scenes with questions and answers, streamed. No scene of a prompt of the evaluation set is shown.",
        measured=accuracy_tables(judge),
    )
    training.write_card(folder, text, config=config, result=result)


def _judged(judge: MPlugJudge, scene: Scene, claims: Sequence[Claim], scenes: str) -> list[Outcome]:
    answers = judge.answers(render(scene), [claim.question for claim in claims])
    truths = ["yes" if claim.holds(scene) else "no" for claim in claims]
    return [
        (scenes, KINDS[claim.kind], truth, answer.text == truth)
        for claim, truth, answer in zip(claims, truths, answers, strict=True)
    ]
