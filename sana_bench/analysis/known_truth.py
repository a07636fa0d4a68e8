"""What images of the renderer really show, held against what metrics said of them."""

from collections.abc import Iterator, Mapping
from typing import Any

from sana_bench.micro.claims import Claim
from sana_bench.micro.prompt_claims import read_prompt
from sana_bench.micro.reading_prompts import AtomPrompt
from sana_bench.micro.rendered import Drawn, draw
from sana_bench.micro.text_world import TextScene
from sana_bench.micro.truth import satisfies
from sana_bench.results.reader import RunResults, SampleResult, VariantResults
from sana_bench.suites.cells import noise_seed

__all__ = ["drawn_images", "is_rendered", "right_answers"]


def is_rendered(variant: VariantResults) -> bool:
    """Whether the renderer made a variant's images, so that what they show is known."""
    return variant.described.settings.get("generator") == "rendered"


def drawn_images(run: RunResults, benchmark: str) -> Iterator[tuple[SampleResult, Drawn]]:
    """The finished images of a benchmark that the renderer made, each drawn again from its prompt and seed."""
    for variant in filter(is_rendered, run.variants.values()):
        given = variant.rewrites.get(benchmark, {})
        for one in variant.samples_of(benchmark):
            seed = noise_seed(run.suite.seed, benchmark, one.prompt.id, one.index)
            yield one, draw(given.get(one.prompt.id, one.prompt.text), seed)


def right_answers(one: SampleResult, drawn: Drawn, metric: str) -> list[bool]:
    """Whether each answer that a metric stored of an image agrees with what the image shows; empty where it stored none.

    GenEval's verdict is one answer, whether the record holds. A question is answered with yes when its score, before those that
    it depends on, is above a half: then what it asks must be so. A reading is right when it has exactly the words that are shown.
    """
    details = one.scores[metric].details
    if "correct" in details:
        if isinstance(drawn.scene, TextScene) or "include" not in one.prompt.metadata:
            return []
        return [bool(details["correct"]) == satisfies(drawn.scene, one.prompt.metadata)]
    answers: list[Mapping[str, Any]] = details.get("answers", [])
    if isinstance(drawn.scene, TextScene):
        words = drawn.scene.text.casefold().split()
        return [str(answer["answer"]).casefold().split() == words for answer in answers]
    claims = _claims(one.prompt.text)
    return [
        (answer.get("raw", answer["score"]) > 0.5) == claims[answer["question"]].holds(drawn.scene)
        for answer in answers
        if answer.get("question") in claims
    ]


def _claims(text: str) -> dict[str, Claim]:
    """What each question that benchmarks of the micro world ask about a prompt claims."""
    prompt = read_prompt(text)
    found = {claim.question: claim for claim, _ in prompt.claims()}
    return found | {question.text: question.claim for question in AtomPrompt(prompt).questions()}
