"""Scenes of a few prompts as images on disk, and random weights of every micro network: enough for every metric."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from sana_bench.benchmarks.geneval import GenEval
from sana_bench.core.samples import Sample
from sana_bench.metrics.base import MetricAssets
from sana_bench.micro.captions import scene_for
from sana_bench.micro.renderer import render
from tests.tiny_weights import write_tiny_clip, write_tiny_reading, write_tiny_reward, write_tiny_vqa

QUESTIONS = [
    {"proposition_id": 1, "dependency": [0], "tuple": "entity - whole (x)", "question": "Is there a ring?"},
    {
        "proposition_id": 2,
        "dependency": [1],
        "tuple": "attribute - color (x)",
        "question": "Is the ring red?",
    },
]
# What metrics look for in prompts whose name does not stand for something else in another's.
ASKED = {
    "questions": QUESTIONS,
    "vqa_list": [["How many rings are there?", "two"], ["Are the rings red?", "Yes"]],
    "skills": ["count", "attribute"],
    "text": ["OPEN", "CAFE"],
    "text_content": "OPEN CAFE",
}
PROMPTS_PER_TASK = 2
IMAGES_PER_PROMPT = 3


@pytest.fixture(scope="session")
def assets(tmp_path_factory) -> MetricAssets:
    root = tmp_path_factory.mktemp("assets")
    write_tiny_clip(root / "weights" / "clip")
    write_tiny_vqa(root / "weights" / "vqa")
    write_tiny_reading(root / "weights" / "reading")
    write_tiny_reward(root / "weights" / "reward")
    return MetricAssets(weights_dir=root / "weights", cache_dir=root / "cache")


@pytest.fixture(scope="session")
def samples(tmp_path_factory) -> list[Sample]:
    """Images that show their prompt, save every third, which shows the prompt before it."""
    folder = tmp_path_factory.mktemp("images")
    prompts = GenEval().prompts("micro")
    # GenEval's prompts, each with questions and texts, suit nearly every metric.
    chosen = [
        replace(prompt, metadata=prompt.metadata | ASKED)
        for prompt in prompts
        if int(prompt.id) % 24 < PROMPTS_PER_TASK
    ]
    out = []
    for place, prompt in enumerate(chosen):
        for index in range(IMAGES_PER_PROMPT):
            shown = chosen[place - 1] if index == 2 else prompt
            scene = scene_for(shown.metadata, np.random.default_rng([place, index]))
            path = folder / f"{prompt.id}-{index}.png"
            Image.fromarray(render(scene)).save(path)
            out.append(Sample("test", "geneval", prompt, index, path))
    return out
