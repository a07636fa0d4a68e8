"""Small random weights in the published layouts: the real classes, sized for tests."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.runner import fakes

TINY_CLIP = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32},
    "text_cfg": {"context_length": 16, "width": 16, "heads": 2, "layers": 1},
}


def write_tiny_pipeline(folder: Path, seed: int = 0) -> Path:
    """Write a SANA pipeline folder for 64-pixel images with random weights."""
    import torch
    from transformers import Gemma2Config, Gemma2Model

    from sana_bench.micro.captions import VOCABULARY
    from sana_models import DCAE, DCAEConfig, SanaConfig, SanaTransformer, TextEncoder, save_pretrained
    from sana_models.text import make_word_tokenizer

    blocks = ("ResBlock",) * 4
    scales: tuple[tuple[int, ...], ...] = ((),) * 4
    autoencoder = DCAEConfig(
        latent_channels=8,
        encoder_block_types=blocks,
        decoder_block_types=blocks,
        encoder_block_out_channels=(8, 8, 16, 16),
        decoder_block_out_channels=(8, 8, 16, 16),
        encoder_layers_per_block=(0, 1, 1, 1),
        decoder_layers_per_block=(0, 1, 1, 1),
        encoder_qkv_multiscales=scales,
        decoder_qkv_multiscales=scales,
    )
    transformer = SanaConfig(
        num_layers=1,
        num_attention_heads=1,
        num_cross_attention_heads=1,
        cross_attention_head_dim=32,
        caption_channels=16,
        in_channels=8,
        out_channels=8,
        sample_size=8,
    )
    tokenizer = make_word_tokenizer(VOCABULARY, model_max_length=16)
    gemma = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=16,
        query_pre_attn_scalar=16,
        max_position_embeddings=16,
        sliding_window=16,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        attn_implementation="eager",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        save_pretrained(
            folder,
            transformer=SanaTransformer(transformer),
            autoencoder=DCAE(autoencoder),
            text_encoder=TextEncoder(tokenizer, Gemma2Model(gemma)),
            flow_shift=3.0,
        )
    return folder


def write_tiny_clip(folder: Path, seed: int = 0) -> Path:
    """Write a micro CLIP with random weights."""
    import torch

    from sana_bench.metrics.clip.micro_network import WordTokenizer, build_model, save_clip
    from sana_bench.micro.captions import VOCABULARY

    tokenizer = WordTokenizer(VOCABULARY, 16)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(TINY_CLIP, tokenizer)
    save_clip(model, tokenizer, TINY_CLIP, folder)
    return folder


@pytest.fixture(scope="session")
def tiny_pipeline_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SANA pipeline folder with random weights; tests must not change it."""
    return write_tiny_pipeline(tmp_path_factory.mktemp("pipeline") / "sana-micro")


@pytest.fixture(scope="session")
def tiny_weights_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for `SANA_BENCH_MICRO_WEIGHTS` with random weights; tests must not change it."""
    root = tmp_path_factory.mktemp("weights")
    write_tiny_pipeline(root / "sana-micro")
    write_tiny_clip(root / "clip")
    return root


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Iterator[fakes.World]":
    """A suite of fake variants, and the runner on it in this process."""
    from tests.runner import fakes

    monkeypatch.setattr(fakes.FakeGenerator, "batches", [])
    monkeypatch.setattr(fakes.Spread, "computed", 0)
    with fakes.installed():
        yield fakes.World(tmp_path)
