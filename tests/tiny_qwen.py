"""Small random Qwen-VL judges in the published layout: transformers' own classes, with a byte-level tokenizer made here."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    PreTrainedTokenizerFast,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

#: The families of Qwen that judge, as transformers names them.
FAMILIES = ("qwen2_5_vl", "qwen3_vl", "qwen3_5")

_SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# What the tokenizer has whole words of.
_SPOKEN = (
    "Yes No yes no one two three One Two Three 1 2 3 How many cats are there? Is the dog red? Answer in one word. "
    "Does this figure show a large red circle left of a small blue square? Please answer Yes or No. user assistant"
)
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}<|im_start|>assistant\n"
)
# Of the family that can think aloud.
_THINKING = "<think>\n{% if enable_thinking is defined and not enable_thinking %}\n</think>\n\n{% endif %}"


def write_qwen(path: Path, family: str, *, width: int = 32, layers: int = 4, patch: int = 14) -> Path:
    """Write a random model of a family, with its processor, to `path`; pictures of any size have a token per 4 patches."""
    tokenizer = small_tokenizer()
    config = AutoConfig.for_model(family, **_settings(family, tokenizer, width, layers, patch))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForImageTextToText.from_config(config)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=1.5 / width**0.5)
    model.generation_config.update(
        eos_token_id=[tokenizer.eos_token_id, tokenizer.pad_token_id],
        pad_token_id=tokenizer.pad_token_id,
        repetition_penalty=1.05,
    )
    model.save_pretrained(path)
    pictures = {"patch_size": patch, "size": {"shortest_edge": 4 * patch**2, "longest_edge": 4096 * patch**2}}
    new = family != "qwen2_5_vl"
    kind, film = (
        (Qwen3VLProcessor, Qwen3VLVideoProcessor) if new else (Qwen2_5_VLProcessor, Qwen2VLVideoProcessor)
    )
    kind(
        image_processor=Qwen2VLImageProcessor(**pictures),
        tokenizer=tokenizer,
        video_processor=film(patch_size=patch),
        chat_template=_TEMPLATE + (_THINKING if family == "qwen3_5" else ""),
    ).save_pretrained(path)
    return path


def small_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, and the words of `_SPOKEN` with and without a space in front."""
    bytes_ = Tokenizer(models.BPE())
    bytes_.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bytes_.train_from_iterator(
        [_SPOKEN, *_SPOKEN.split(), *(f" {word}" for word in _SPOKEN.split())], trainer
    )
    return PreTrainedTokenizerFast(tokenizer_object=bytes_, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def _settings(
    family: str, tokenizer: PreTrainedTokenizerFast, width: int, layers: int, patch: int
) -> dict[str, Any]:
    heads = 4
    head = width // heads
    # Rotary pairs of a head, split over time, height and width.
    rope = {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "mrope_section": [head // 2 - 2 * (head // 6), head // 6, head // 6],
    }
    text: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 2,
        "max_position_embeddings": 8192,
        "rope_parameters": rope,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision: dict[str, Any] = {
        "depth": 2,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_heads": 2,
        "out_hidden_size": width,
        "patch_size": patch,
    }
    if family == "qwen2_5_vl":
        vision |= {"fullatt_block_indexes": [1], "window_size": 4 * patch}
    else:
        text |= {"head_dim": head}
        vision |= {"num_position_embeddings": 64}
    if family == "qwen3_vl":
        vision |= {"deepstack_visual_indexes": [0]}
        text["rope_parameters"] = {**rope, "mrope_interleaved": True}
    if family == "qwen3_5":
        text["rope_parameters"] = {**rope, "mrope_interleaved": True, "partial_rotary_factor": 1.0}
        text |= {
            "linear_key_head_dim": head,
            "linear_value_head_dim": head,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": heads,
        }
    ids = dict(zip(_SPECIAL, tokenizer.convert_tokens_to_ids(list(_SPECIAL)), strict=True))
    return {
        "text_config": text,
        "vision_config": vision,
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
    }
