"""How often the micro reward model prefers the right picture: pairs of scenes against the renderer's truth."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sana_bench.core.preprocess import batches, clip_pixels
from sana_bench.metrics import training
from sana_bench.metrics.image_reward.metric import RewardFiles
from sana_bench.metrics.training import EVALUATION_SEED, CardText
from sana_bench.micro.captions import scene_for
from sana_bench.micro.dense_prompts import (
    DensePrompt,
    NoSceneError,
    dense_scene,
    generate_dense_prompts,
    mistakes,
)
from sana_bench.micro.evaluation_set import geneval_prompts
from sana_bench.micro.renderer import render
from sana_bench.micro.reward_data import grade, near_misses, sample_wish
from sana_bench.micro.world import Scene
from sana_bench.micro.wrong_scenes import wrong_records, wrong_scene_for
from sana_models.training.loop import TrainingResult

__all__ = [
    "Pair",
    "Rate",
    "accuracy_tables",
    "dense_pairs",
    "geneval_pairs",
    "random_pairs",
    "rates",
    "write_card",
]

_SCENES_PER_PROMPT = 2
_RANDOM_PAIRS = 1000
_BATCH = 64


@dataclass(frozen=True)
class Pair:
    """A prompt, a scene that shows more of it and one that shows less, and what is wrong with the latter."""

    prompts: str
    mistake: str
    text: str
    better: Scene
    worse: Scene


@dataclass(frozen=True)
class Rate:
    """How many of `n` pairs of one kind were ranked rightly; equal rewards are wrong."""

    prompts: str
    mistake: str
    n_right: int
    n: int


def geneval_pairs(per_prompt: int, seed: int) -> Iterator[Pair]:
    """For every evaluation prompt and kind of mistake, `per_prompt` right scenes against wrong ones."""
    rng = np.random.default_rng([seed, 0])
    for record in geneval_prompts():
        for kind in wrong_records(record):
            for _ in range(per_prompt):
                right, wrong = scene_for(record, rng), wrong_scene_for(record, rng, kind)
                yield Pair("evaluation prompts", kind, record["prompt"], right, wrong)


def dense_pairs(per_prompt: int, seed: int) -> Iterator[Pair]:
    """The same for the stored dense prompts."""
    rng = np.random.default_rng([seed, 1])
    for prompt in generate_dense_prompts():
        for _ in range(per_prompt):
            for kind, shown in mistakes(prompt, rng).items():
                right, wrong = dense_scene(prompt, rng), dense_scene(shown, rng)
                yield Pair("dense prompts", kind, prompt.text, right, wrong)


def random_pairs(n: int, seed: int) -> Iterator[Pair]:
    """Prompts of the training's forms with two scenes of one mistake or two, which differ in grade."""
    rng = np.random.default_rng([seed, 2])
    while n:
        wish = sample_wish(rng)
        shown = _wrong(wish, rng)
        try:
            one, other = dense_scene(shown, rng), dense_scene(_wrong(shown, rng), rng)
        except NoSceneError:
            # Large groups beside each other rarely find room: the training draws anew as well.
            continue
        grades = grade(wish, one), grade(wish, other)
        if grades[0] != grades[1]:
            better, worse = (one, other) if grades[0] > grades[1] else (other, one)
            yield Pair("random prompts", "more of it wrong", wish.text, better, worse)
            n -= 1


def rates(files: RewardFiles, pairs: Sequence[Pair]) -> list[Rate]:
    """One rate per kind of mistake, then one over all."""
    texts = [pair.text for pair in pairs]
    better, worse = (
        _rewards(files, [getattr(pair, side) for pair in pairs], texts) for side in ("better", "worse")
    )
    right: dict[str, list[bool]] = {}
    for pair, outcome in zip(pairs, better > worse, strict=True):
        right.setdefault(pair.mistake, []).append(bool(outcome))
    found = [Rate(pairs[0].prompts, kind, sum(right[kind]), len(right[kind])) for kind in sorted(right)]
    if len(found) > 1:
        found.append(Rate(pairs[0].prompts, "all", sum(r.n_right for r in found), len(pairs)))
    return found


def accuracy_tables(
    files: RewardFiles,
    per_prompt: int = _SCENES_PER_PROMPT,
    n_random: int = _RANDOM_PAIRS,
    seed: int = EVALUATION_SEED,
) -> str:
    """The table of the card and of the documentation page, as Markdown."""
    sets = (geneval_pairs(per_prompt, seed), dense_pairs(per_prompt, seed), random_pairs(n_random, seed))
    lines = [
        f"Share of pairs in which the scene that shows more of the prompt has the higher reward; seed {seed}.",
        "",
        "| prompts | mistake | n | right | share |",
        "|---|---|---|---|---|",
    ]
    for pairs in sets:
        lines += [
            f"| {r.prompts} | {r.mistake} | {r.n} | {r.n_right} | {r.n_right / r.n:.1%} |"
            for r in rates(files, list(pairs))
        ]
    return "\n".join(lines)


def write_card(folder: Path, *, config: str, result: TrainingResult) -> None:
    """Measure the weights in `folder` and write `README.md` beside them."""
    files = RewardFiles.of_folder(folder)
    parameters = sum(tensor.numel() for tensor in files.network.parameters())
    text = CardText(
        name=folder.name,
        about="A small ImageReward of the micro world. It knows coloured shapes and nothing else; "
        "its numbers do not compare with\npublished ones.",
        parameters=f"{parameters:,}, stored in float16",
        data="rendered scenes under prompts that they show wholly or in part, streamed. "
        "No prompt of the evaluation sets is shown.",
        measured=accuracy_tables(files),
    )
    training.write_card(folder, text, config=config, result=result)


def _wrong(wish: DensePrompt, rng: np.random.Generator) -> DensePrompt:
    options = list(near_misses(wish, rng).values())
    return options[int(rng.integers(len(options)))]


def _rewards(files: RewardFiles, scenes: Sequence[Scene], texts: Sequence[str]) -> np.ndarray:
    network, found = files.network, []
    for batch in batches(zip(scenes, texts, strict=True), _BATCH):
        pixels = np.stack([clip_pixels(render(scene), network.image_size) for scene, _ in batch])
        ids, mask = files.tokens([text for _, text in batch])
        with torch.inference_mode():
            found.append(network(torch.from_numpy(pixels), ids, mask).numpy())
    return np.concatenate(found)
