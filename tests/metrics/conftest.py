"""Scenes of a few prompts as images on disk, and a CLIP of random weights: enough for every metric."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sana_bench.benchmarks.geneval import GenEval
from sana_bench.metrics.assets import MetricAssets
from sana_bench.metrics.base import Sample
from sana_bench.micro.captions import VOCABULARY, scene_for
from sana_bench.micro.clip import WordTokenizer, build_model, save_clip
from sana_bench.micro.renderer import render

TINY_CLIP = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32},
    "text_cfg": {"context_length": 16, "width": 16, "heads": 2, "layers": 1},
}
PROMPTS_PER_TASK = 2
IMAGES_PER_PROMPT = 3


def write_clip(folder: Path, seed: int) -> Path:
    tokenizer = WordTokenizer(VOCABULARY, TINY_CLIP["text_cfg"]["context_length"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(TINY_CLIP, tokenizer)
    save_clip(model, tokenizer, TINY_CLIP, folder)
    return folder


@pytest.fixture(scope="session")
def make_clip():
    """Write a folder of random CLIP weights: `make_clip(folder, seed)`."""
    return write_clip


@pytest.fixture(scope="session")
def assets(tmp_path_factory) -> MetricAssets:
    root = tmp_path_factory.mktemp("assets")
    write_clip(root / "weights" / "clip", seed=0)
    return MetricAssets(weights_dir=root / "weights", cache_dir=root / "cache")


@pytest.fixture(scope="session")
def samples(tmp_path_factory) -> list[Sample]:
    """Images that show their prompt, save every third, which shows the prompt before it."""
    folder = tmp_path_factory.mktemp("images")
    prompts = GenEval().prompts("micro")
    chosen = [prompt for prompt in prompts if int(prompt.id) % 24 < PROMPTS_PER_TASK]
    out = []
    for place, prompt in enumerate(chosen):
        for index in range(IMAGES_PER_PROMPT):
            shown = chosen[place - 1] if index == 2 else prompt
            scene = scene_for(shown.metadata, np.random.default_rng([place, index]))
            path = folder / f"{prompt.id}-{index}.png"
            Image.fromarray(render(scene)).save(path)
            out.append(Sample("test", "geneval", prompt, index, path))
    return out
