"""What both sides of the mPLUG comparison start from: weights by name, small configurations, images, questions.

Needs numpy only, so that the reference's environment and the tests can both import it.
"""

import hashlib
import math

import numpy as np

_WORD_TEXT = """
a the is are there of on in left right it one two three four yes no not red blue green black white
cat dog table man woman holding ball car tree house sky photo color what how many ? ! . , ' - " ##s
##ing ##ed caf ##e ##t c h s t u n y z x q r e d ( ) 2 3 what ' s n
"""
WORDS = _WORD_TEXT.split()
#: BERT's layout: ids 0, 100, 101, 102 and 103 are its special tokens.
VOCABULARY = [
    "[PAD]",
    *(f"[unused{i}]" for i in range(99)),
    *("[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *dict.fromkeys(WORDS),
]

IMAGE_SEED = 7

_BERT = {
    "hidden_act": "gelu",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_hidden_layers": 8,
    "text_encoder_layers": 2,
    "fusion_layers": 6,
    "text_decode_layers": 2,
    "encoder_width": 64,
    "stride_layer": 6,
    "vocab_size": len(VOCABULARY),
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
    "initializer_range": 0.02,
    "attention_probs_dropout_prob": 0.1,
    "hidden_dropout_prob": 0.1,
}
_NETWORK = {
    "task": "visual-question-answering",
    "bert_config": "config_bert.json",
    "image_res": 56,
    "vision_width": 128,
    "distill": True,
    "clip_name": "ViT-L-14",
    "clip_embed_dim": 32,
    "clip_image_resolution": 28,
    "clip_vision_layers": 2,
    "clip_vision_width": 128,
    "clip_vision_patch_size": 14,
    "clip_context_length": 8,
    "clip_vocab_size": 20,
    "clip_transformer_width": 32,
    "clip_transformer_heads": 2,
    "clip_transformer_layers": 1,
}

#: name -> (config.yaml, config_bert.json, raised bias of the end token)
CONFIGS = {
    # As published with the paper's code: no connected layer ever runs.
    "stride6": (_NETWORK, _BERT, 7.0),
    # Its second variant: the fourth fusion layer is connected.
    "stride3": (_NETWORK, _BERT | {"stride_layer": 3}, 6.0),
    # Text as wide as vision, so no projection between them; no momentum; another search.
    "same_width": (
        _NETWORK
        | {"distill": False, "vision_width": 64, "clip_vision_width": 64, "beam_size": 3, "max_length": 6},
        _BERT | {"stride_layer": 2, "num_hidden_layers": 3, "fusion_layers": 3, "hidden_size": 64},
        5.5,
    ),
}

_ALIASES = {
    "text_decoder.cls.predictions.decoder.weight": "text_decoder.bert.embeddings.word_embeddings.weight",
    "text_decoder.cls.predictions.decoder.bias": "text_decoder.cls.predictions.bias",
}


def draw(name: str, shape: tuple[int, ...], end_bias: float) -> np.ndarray:
    """The float32 tensor called `name`: from a generator seeded by the name; momentum copies differ."""
    if name.endswith("position_ids"):
        return np.arange(shape[-1])[None]
    name = _ALIASES.get(name, name)
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    values = np.random.default_rng(seed).standard_normal(shape)
    is_norm = "LayerNorm" in name or ".ln_" in name or "layer_norm" in name
    if len(shape) < 2:
        values = 0.1 * values + (1.0 if is_norm and name.endswith("weight") else 0.0)
        if name == "text_decoder.cls.predictions.bias":
            values[:100] -= 6.0
            values[102] += end_bias
    elif "embedding" in name:
        values = 0.4 * values
    else:
        values = 1.3 * values / math.sqrt(math.prod(shape[1:]))
    return np.asarray(values, dtype=np.float32)


def image(index: int) -> np.ndarray:
    """An RGB image (60, 80, 3) of smooth noise."""
    rng = np.random.default_rng([IMAGE_SEED, index])
    coarse = rng.uniform(0, 255, size=(6, 8, 3))
    return np.kron(coarse, np.ones((10, 10, 1))).astype(np.uint8)
