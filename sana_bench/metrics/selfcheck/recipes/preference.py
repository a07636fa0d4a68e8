"""What the golden cases of the preference scores and the checks that read them agree on; images and words are ImageReward's."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sana_bench.metrics.selfcheck.recipes.image_reward import IMAGES, PROMPTS, image
from sana_bench.metrics.selfcheck.recipes.plain import clip_weight, uniform

__all__ = [
    "HPS",
    "HPSV3",
    "HPSV3_GRIDS",
    "HPSV3_REWARD",
    "HPS_SIDE",
    "IMAGES",
    "PROMPTS",
    "head_shapes",
    "head_weight",
    "hpsv3_ids",
    "hpsv3_pixels",
    "hpsv3_weight",
    "image",
    "pick_config",
    "pick_tokenizer",
    "pick_weight",
]

#: An open_clip of HPS's kind, small: GELU, and open_clip's own tokens.
HPS: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 28, "layers": 2, "width": 32, "head_width": 16, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
HPS_SIDE = HPS["vision_cfg"]["image_size"]

#: The `config.json` of HPSv3's kind of backbone, small.
HPSV3: dict[str, Any] = {
    "model_type": "qwen2_vl", "vocab_size": 320, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096, "rope_theta": 1000000.0,
    "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
    "bos_token_id": 0, "eos_token_id": 1, "image_token_id": 5, "video_token_id": 6, "vision_start_token_id": 3,
    "vision_end_token_id": 4,
    "vision_config": {
        "depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "mlp_ratio": 2, "in_chans": 3, "in_channels": 3,
        "patch_size": 14, "spatial_patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2,
    },
}  # fmt: skip
#: Patches in time, rows and columns of two pictures, and the token whose state the head reads.
HPSV3_GRIDS = ((1, 4, 6), (1, 8, 2))
HPSV3_REWARD = 7


def hpsv3_ids(grid: tuple[int, int, int]) -> list[int]:
    """A request about a picture, in token ids."""
    seen = grid[0] * grid[1] * grid[2] // 4
    return [1, 3, *[5] * seen, 4, *range(20, 29 + 3 * seen), HPSV3_REWARD, 11, 2]


def hpsv3_pixels(grid: tuple[int, int, int]) -> NDArray[np.float32]:
    """The patches of a picture."""
    return uniform(f"hpsv3 {grid}", (grid[0] * grid[1] * grid[2], 3 * 2 * 14 * 14))


def hpsv3_weight(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The tensor `name` of HPSv3's state dict."""
    values = uniform(name, shape)
    if ("norm" in name or name.endswith("ln_q.weight")) and name.endswith("weight"):
        return np.float32(1) + np.float32(0.1) * values
    if len(shape) == 1 or "embed_tokens" in name:
        return values * np.float32(0.1 if len(shape) == 1 else 1)
    return np.float32(2) * values / np.float32(np.sqrt(np.prod(shape[1:])))


def pick_tokenizer() -> dict[str, Any]:
    """A `tokenizer.json` of CLIP's kind with a few words: `model` has the vocabulary and the pairs."""
    codes = (*range(33, 127), *range(161, 173), *range(174, 324))  # how byte-level tokens spell bytes
    letters = [chr(code) for code in codes]
    pairs = ["r e", "re d</w>", "c a", "ca t</w>", "d o", "do g</w>", "t h", "th e</w>"]
    joined = ["".join(pair.split()) for pair in pairs]
    words = [
        *letters,
        *(f"{letter}</w>" for letter in letters),
        *joined,
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    return {"model": {"vocab": {word: place for place, word in enumerate(words)}, "merges": pairs}}


def pick_config() -> dict[str, Any]:
    """The `config.json` of PickScore's kind, small."""
    size = {"intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_act": "gelu"}
    vocabulary = pick_tokenizer()["model"]["vocab"]
    text = size | {
        "hidden_size": 24, "vocab_size": len(vocabulary), "max_position_embeddings": 77, "eos_token_id": 2,
        "bos_token_id": 0, "pad_token_id": 1,
    }  # fmt: skip
    return {
        "projection_dim": 16,
        "text_config": text,
        "vision_config": size | {"hidden_size": 32, "image_size": 28, "patch_size": 14},
    }


def pick_weight(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The tensor `name` of PickScore's state dict."""
    if "norm" in name and name.endswith("weight"):
        return np.float32(1) + np.float32(0.1) * uniform(name, shape)
    return clip_weight(name, shape)


def head_shapes() -> dict[str, tuple[int, ...]]:
    """The tensors of the published aesthetic head."""
    sizes = {0: (1024, 768), 2: (128, 1024), 4: (64, 128), 6: (16, 64), 7: (1, 16)}
    weights = {f"layers.{place}.weight": shape for place, shape in sizes.items()}
    return weights | {f"layers.{place}.bias": shape[:1] for place, shape in sizes.items()}


def head_weight(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The tensor `name` of the aesthetic head's state dict."""
    # By fan-in, so that five layers keep the spread of what they are given.
    return np.float32(3) * uniform(name, shape) / np.float32(np.sqrt(shape[-1]))
