"""Scenes of a few prompts as images on disk, and random weights of every micro network: enough for every metric."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sana_bench.benchmarks.geneval import GenEval
from sana_bench.core.samples import Sample
from sana_bench.judges.mplug.config import MPlugConfig
from sana_bench.judges.mplug.files import save_network
from sana_bench.judges.mplug.network import MPlugVQA
from sana_bench.metrics.base import MetricAssets
from sana_bench.metrics.clip.micro_network import WordTokenizer, build_model, save_clip
from sana_bench.metrics.image_reward.network import RewardNetwork, VisionSize, save_reward_network
from sana_bench.micro.captions import VOCABULARY, scene_for
from sana_bench.micro.renderer import render
from sana_bench.micro.reward_data import VOCABULARY as REWARD_VOCABULARY
from sana_bench.micro.vqa_data import VOCABULARY as VQA_VOCABULARY

TINY_CLIP = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32},
    "text_cfg": {"context_length": 16, "width": 16, "heads": 2, "layers": 1},
}
TINY_VQA = MPlugConfig(
    image_res=64,
    vision_width=64,
    clip_vision_width=64,
    clip_vision_layers=1,
    clip_vision_patch_size=32,
    beam_size=2,
    max_length=2,
    hidden_size=16,
    intermediate_size=32,
    num_attention_heads=2,
    num_hidden_layers=1,
    text_encoder_layers=1,
    fusion_layers=1,
    text_decode_layers=1,
    encoder_width=16,
    max_position_embeddings=32,
    vocab_size=len(VQA_VOCABULARY),
)
TINY_VISION = VisionSize(image_size=64, patch=32, width=16, layers=1, heads=2)
TINY_TEXT = {
    "vocab_size": len(REWARD_VOCABULARY),
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 40,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
}
QUESTIONS = [
    {"proposition_id": 1, "dependency": [0], "tuple": "entity - whole (x)", "question": "Is there a ring?"},
    {
        "proposition_id": 2,
        "dependency": [1],
        "tuple": "attribute - color (x)",
        "question": "Is the ring red?",
    },
]
PROMPTS_PER_TASK = 2
IMAGES_PER_PROMPT = 3


def write_clip(folder: Path, seed: int) -> Path:
    tokenizer = WordTokenizer(VOCABULARY, TINY_CLIP["text_cfg"]["context_length"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(TINY_CLIP, tokenizer)
    save_clip(model, tokenizer, TINY_CLIP, folder)
    return folder


def write_vqa(folder: Path, seed: int) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = MPlugVQA(TINY_VQA)
    # Without a push towards the word, random weights never say yes.
    network.text_decoder.cls["predictions"].bias.data[VQA_VOCABULARY.index("yes")] = 6.0
    save_network(network, VQA_VOCABULARY, folder)
    return folder


def write_reward(folder: Path, seed: int) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = RewardNetwork(TINY_VISION, TINY_TEXT)
        # BLIP's small start makes nearly equal rewards of everything.
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    save_reward_network(network, REWARD_VOCABULARY, folder)
    return folder


@pytest.fixture(scope="session")
def make_clip():
    """Write a folder of random CLIP weights: `make_clip(folder, seed)`."""
    return write_clip


@pytest.fixture(scope="session")
def make_vqa():
    """Write a folder of a random VQA judge: `make_vqa(folder, seed)`."""
    return write_vqa


@pytest.fixture(scope="session")
def make_reward():
    """Write a folder of a random reward model: `make_reward(folder, seed)`."""
    return write_reward


@pytest.fixture(scope="session")
def assets(tmp_path_factory) -> MetricAssets:
    root = tmp_path_factory.mktemp("assets")
    write_clip(root / "weights" / "clip", seed=0)
    write_vqa(root / "weights" / "vqa", seed=0)
    write_reward(root / "weights" / "reward", seed=0)
    return MetricAssets(weights_dir=root / "weights", cache_dir=root / "cache")


@pytest.fixture(scope="session")
def samples(tmp_path_factory) -> list[Sample]:
    """Images that show their prompt, save every third, which shows the prompt before it."""
    folder = tmp_path_factory.mktemp("images")
    prompts = GenEval().prompts("micro")
    # GenEval's prompts, each with a graph of questions, suit every metric.
    chosen = [
        replace(prompt, metadata=prompt.metadata | {"questions": QUESTIONS})
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
