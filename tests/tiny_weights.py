"""Small random weights in the published layouts: the real classes, sized for tests."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from transformers import Gemma2Config, Gemma2Model

from sana_bench.judges.mplug.config import MPlugConfig
from sana_bench.judges.mplug.files import save_network
from sana_bench.judges.mplug.network import MPlugVQA
from sana_bench.metrics.clip.micro_network import WordTokenizer, build_model, save_clip
from sana_bench.metrics.image_reward.network import RewardNetwork, VisionSize, save_reward_network
from sana_bench.micro.captions import VOCABULARY
from sana_bench.micro.reading_data import VOCABULARY as READING_VOCABULARY
from sana_bench.micro.reward_data import VOCABULARY as REWARD_VOCABULARY
from sana_bench.micro.vqa_data import VOCABULARY as VQA_VOCABULARY
from sana_models import DCAE, DCAEConfig, SanaConfig, SanaTransformer, TextEncoder, save_pretrained
from sana_models.text import make_word_tokenizer

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


def write_tiny_pipeline(
    folder: Path,
    seed: int = 0,
    *,
    latent_channels: int = 8,
    widths: tuple[int, ...] = (8, 8, 16, 16),
    words: Sequence[str] = VOCABULARY,
    max_length: int = 16,
    max_positions: int = 16,
    qk_norm: str | None = None,
    sprint: bool = False,
) -> Path:
    """Write a SANA pipeline folder with random weights; by default for 64-pixel images.

    `widths` are the channels of the autoencoder's stages, of which each but the first halves the image; the text encoder
    reads `max_length` tokens, and `max_positions` with an instruction. `sprint` makes it one of SANA-Sprint.
    """
    blocks = ("ResBlock",) * len(widths)
    scales: tuple[tuple[int, ...], ...] = ((),) * len(widths)
    layers = (0, *(1,) * (len(widths) - 1))
    autoencoder = DCAEConfig(
        latent_channels=latent_channels,
        encoder_block_types=blocks,
        decoder_block_types=blocks,
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
        encoder_layers_per_block=layers,
        decoder_layers_per_block=layers,
        encoder_qkv_multiscales=scales,
        decoder_qkv_multiscales=scales,
    )
    transformer = SanaConfig(
        num_layers=1,
        num_attention_heads=1,
        num_cross_attention_heads=1,
        cross_attention_head_dim=32,
        caption_channels=16,
        in_channels=latent_channels,
        out_channels=latent_channels,
        sample_size=8,
        qk_norm=qk_norm,
        guidance_embeds=sprint,
    )
    tokenizer = make_word_tokenizer(words, model_max_length=max_length)
    gemma = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=16,
        query_pre_attn_scalar=16,
        max_position_embeddings=max_positions,
        sliding_window=max_positions,
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
            flow_shift=None if sprint else 3.0,
        )
    return folder


def write_tiny_clip(folder: Path, seed: int = 0) -> Path:
    """Write a micro CLIP with random weights."""
    tokenizer = WordTokenizer(VOCABULARY, 16)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(TINY_CLIP, tokenizer)
    save_clip(model, tokenizer, TINY_CLIP, folder)
    return folder


def write_tiny_vqa(folder: Path, seed: int = 0) -> Path:
    """Write a micro VQA judge with random weights, which says yes now and then."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = MPlugVQA(TINY_VQA)
    # Without a push towards the word, random weights never say yes.
    network.text_decoder.cls["predictions"].bias.data[VQA_VOCABULARY.index("yes")] = 6.0
    save_network(network, VQA_VOCABULARY, folder)
    return folder


def write_tiny_reading(folder: Path, seed: int = 0) -> Path:
    """Write a micro reading judge with random weights, which says letters and words of all kinds."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = MPlugVQA(replace(TINY_VQA, vocab_size=len(READING_VOCABULARY)))
    bias = network.text_decoder.cls["predictions"].bias.data
    # Without a push towards what answers are made of, random weights say anything.
    for word in ("yes", "two", "o", "##p", "##e", "[SEP]"):
        bias[READING_VOCABULARY.index(word)] = 4.0
    save_network(network, READING_VOCABULARY, folder)
    return folder


def write_tiny_reward(folder: Path, seed: int = 0) -> Path:
    """Write a micro reward model with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = RewardNetwork(TINY_VISION, TINY_TEXT)
        # BLIP's small start makes nearly equal rewards of everything.
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    save_reward_network(network, REWARD_VOCABULARY, folder)
    return folder
