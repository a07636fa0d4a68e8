"""How often the micro tier's reading judge is right: numbers in words, places and text, against the renderer's truth."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sana_bench.judges.mplug.judge import MPlugJudge
from sana_bench.judges.mplug.reading import ReadingMPlug
from sana_bench.metrics import training
from sana_bench.metrics.dpg import card
from sana_bench.metrics.dpg.card import Outcome, Rate, rate_rows, rates_of
from sana_bench.metrics.read_text import n_matched
from sana_bench.metrics.training import EVALUATION_SEED, CardText
from sana_bench.micro.claims import COUNT_WORDS, Claim
from sana_bench.micro.dense_prompts import dense_scene, mistakes, sample_dense_prompt
from sana_bench.micro.reading_data import (
    READ,
    TEXT_WORDS,
    counted_question,
    sample_shape_scene,
    sample_text_scene,
)
from sana_bench.micro.renderer import render
from sana_bench.micro.templates import RELATIONS
from sana_bench.micro.text_world import MAX_WORDS, render_text, text_scene_for
from sana_bench.micro.world import SHAPES
from sana_models.training.loop import TrainingResult

__all__ = [
    "accuracy_tables",
    "measure_numbers",
    "measure_places",
    "measure_reading",
    "places_table",
    "write_card",
]

_N_PAIRS, _N_TEXTS = 400, 300
_HEAD = ["| scenes | question | truth | n | right | share |", "|---|---|---|---|---|---|"]


def measure_numbers(judge: ReadingMPlug, n_scenes: int, seed: int) -> list[Rate]:
    """Rates over questions for the number of a shape, or of a shape in one colour, by the true number.

    Of each scene: one shape that is there, one that may be, and one colour of each.
    """
    rng = np.random.default_rng([seed, 2])
    outcomes: list[Outcome] = []
    for _ in range(n_scenes):
        scene = sample_shape_scene(rng)
        shapes = Counter(item.shape for item in scene.objects)
        colored = Counter((item.shape, item.color) for item in scene.objects)
        one = scene.objects[int(rng.integers(len(scene.objects)))]
        other = SHAPES[int(rng.integers(len(SHAPES)))]
        asked = [
            ("how many", counted_question(one.shape), shapes[one.shape]),
            ("how many", counted_question(other), shapes[other]),
            (
                "how many of a colour",
                counted_question(one.shape, one.color),
                colored[one.shape, one.color],
            ),
            ("how many of a colour", counted_question(other, one.color), colored[other, one.color]),
        ]
        answers = judge.answer(render(scene), [question for _, question, _ in asked])
        outcomes += [
            ("groups and others", kind, COUNT_WORDS[count], answer.lower() == COUNT_WORDS[count])
            for (kind, _, count), answer in zip(asked, answers, strict=True)
        ]
    return _by_number(rates_of(outcomes))


def measure_places(judge: MPlugJudge, n_pairs: int, seed: int) -> list[Rate]:
    """Rates over questions for the place of a shape beside another, for any judge that answers yes or no.

    Of each pair drawn: the place as asked, another place, and the two places of or beside a shape that is not there.
    """
    rng = np.random.default_rng([seed, 3])
    outcomes: list[Outcome] = []
    for _ in range(n_pairs):
        prompt = sample_dense_prompt("related pair", rng)
        first, second = (group.shape for group in prompt.groups)
        place = Claim("relation", first, relation=prompt.relation, other=second)
        wrong = mistakes(prompt, rng)
        for name, truth, shown in (
            ("as asked", "yes", prompt),
            ("wrong place", "no", wrong["wrong place"]),
            ("shape not there", "no", wrong["missing object"]),
        ):
            answer = judge.answers(render(dense_scene(shown, rng)), [place.question])[0]
            outcomes.append((name, "place", truth, answer.text == truth))
        absent = [name for name in SHAPES if name not in (first, second)]
        lacking = Claim(
            "relation",
            first,
            relation=RELATIONS[int(rng.integers(len(RELATIONS)))],
            other=absent[int(rng.integers(len(absent)))],
        )
        answer = judge.answers(render(dense_scene(prompt, rng)), [lacking.question])[0]
        outcomes.append(("third shape not there", "place", "no", answer.text == "no"))
    return rates_of(outcomes)


def measure_reading(judge: ReadingMPlug, n_texts: int, seed: int) -> list[Rate]:
    """Rates of texts that are read without a mistake, and of their words that are read, by the number of words.

    `words` are those of the prompts, which training never shows, `letters` random ones.
    """
    rng = np.random.default_rng([seed, 4])
    rates = []
    for name in ("words", "letters"):
        for n_words in range(1, MAX_WORDS + 1):
            texts = n_right = n_matching = 0
            while texts < n_texts:
                scene = sample_text_scene(rng)
                if len(scene.words) != n_words:
                    continue
                if name == "words":
                    drawn = rng.choice(len(TEXT_WORDS), size=n_words, replace=False)
                    colors = [word.color for word in scene.words]
                    pairs = zip((TEXT_WORDS[index] for index in drawn), colors, strict=True)
                    scene = text_scene_for(list(pairs), rng)
                read = judge.read_text(render_text(scene), READ)
                texts += 1
                n_right += read == scene.text
                n_matching += n_matched(scene.text.split(), read.split())
            many = f"{n_words} word{'s' if n_words > 1 else ''}"
            rates.append(Rate(name, many, "whole text", n_right, texts))
            rates.append(Rate(name, many, "each word", n_matching, texts * n_words))
    return rates


def accuracy_tables(judge: ReadingMPlug, n_scenes: int = 500, seed: int = EVALUATION_SEED) -> str:
    """The tables of the card and of the documentation page, as Markdown."""
    parts = (
        ("numbers", measure_numbers(judge, n_scenes, seed)),
        ("text", measure_reading(judge, _N_TEXTS, seed)),
    )
    lines = [
        f"Numbers of shapes in {n_scenes} scenes, and {_N_TEXTS} texts of each length; seed {seed}.",
        "",
        *_HEAD,
    ]
    for name, rates in parts:
        whole = [rate for rate in rates if rate.truth != "each word"]
        lines += rate_rows([*rates, _total(name, whole)])
    return "\n".join([*lines, "", places_table(judge, seed), "", card.accuracy_tables(judge, n_scenes, seed)])


def places_table(judge: MPlugJudge, seed: int = EVALUATION_SEED) -> str:
    """The table of places, for any judge that answers yes or no."""
    rates = measure_places(judge, _N_PAIRS, seed)
    lines = [f"Places in {_N_PAIRS} pairs, four questions each; seed {seed}.", "", *_HEAD]
    return "\n".join([*lines, *rate_rows([*rates, _total("places", rates)])])


def write_card(folder: Path, *, config: str, result: TrainingResult) -> None:
    """Measure the weights in `folder` and write `README.md` beside them."""
    judge = ReadingMPlug(folder)
    parameters = sum(tensor.numel() for tensor in judge.network.parameters())
    text = CardText(
        name=folder.name,
        about="A small mPLUG of the micro world that answers in words: it counts, reads capital letters, and says yes or no. It\n"
        "knows coloured shapes, letters and nothing else; its numbers do not compare with published ones.",
        parameters=f"{parameters:,}, stored in float16",
        data="rendered scenes of shapes and of text with questions and answers, streamed. No word of the text prompts is shown.",
        measured=accuracy_tables(judge),
    )
    training.write_card(folder, text, config=config, result=result)


def _total(name: str, rates: Sequence[Rate]) -> Rate:
    return Rate(name, "all", "", sum(rate.n_right for rate in rates), sum(rate.n for rate in rates))


def _by_number(rates: Sequence[Rate]) -> list[Rate]:
    return sorted(rates, key=lambda rate: (rate.kind, COUNT_WORDS.index(rate.truth)))
