"""ImageReward's network (Xu et al. 2023, arXiv 2304.05977) on transformers' BLIP classes.

The published checkpoint is a plain state dict of `image-reward` 1.5; it is renamed to the keys of `BlipVisionModel` and
`BlipTextModel` and every weight must fit. Two habits of the original are kept: the text starts with `[CLS]` (not with
BLIP's `[ENC]`), and the head has no activations between its layers.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from sana_bench.assets.checks import DAMAGED, check_fit
from sana_bench.core import atomic
from sana_bench.core.errors import AssetError
from sana_bench.core.text import lines, read_text
from sana_models.files import first_line, parse_json, plain
from sana_models.layers import with_our_products
from sana_models.libraries import without_torchao

with without_torchao():
    from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

__all__ = [
    "MAX_TOKENS",
    "RewardNetwork",
    "VisionSize",
    "WordPieces",
    "load_reward_network",
    "read_vision_size",
    "save_reward_network",
]

#: What a folder of `save_reward_network` holds.
WEIGHTS_FILE, TEXT_FILE = "model.safetensors", "med_config.json"
VISION_FILE, VOCABULARY_FILE = "vision_config.json", "vocab.txt"

MAX_TOKENS = 35
# The reward's mean and deviation over the authors' data: scores are in units of it.
_MEAN, _DEVIATION = 0.16717362830052426, 1.0333394966054072
_HEAD = ((0, 1024), (2, 128), (4, 64), (6, 16), (7, 1))
# In the checkpoint, used by no score: BLIP's projections for contrastive training.
_UNUSED = ("blip.vision_proj.", "blip.text_proj.")


@dataclass(frozen=True)
class VisionSize:
    """The vision tower; the defaults are the published ViT-L/16 at 224 pixels."""

    image_size: int = 224
    patch: int = 16
    width: int = 1024
    layers: int = 24
    heads: int = 16


class RewardNetwork(nn.Module):
    """Image and text to one number, standardised as the authors do."""

    def __init__(self, vision: VisionSize, text: dict[str, Any]) -> None:
        """`text` is the content of `med_config.json`."""
        super().__init__()
        self.sizes = vision, text
        self.image_size = vision.image_size
        self.vision = BlipVisionModel(_vision_config(vision))
        self.text = BlipTextModel(_text_config(text, vision.width), add_pooling_layer=False)
        self.head = nn.ModuleDict()
        width = int(text["hidden_size"])
        for place, outputs in _HEAD:
            self.head[str(place)] = nn.Linear(width, outputs)
            width = outputs

    def forward(self, pixels: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Scores (n,) of images (n, 3, size, size) under texts (n, 35), pair by pair."""
        return self.reward(self.read(self.see(pixels), input_ids, attention_mask))

    def see(self, pixels: Tensor) -> Tensor:
        """Image tokens (n, 1 + patches, width) of images (n, 3, size, size)."""
        return self.vision(pixel_values=pixels).last_hidden_state

    def read(self, seen: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """States (n, tokens, hidden) of texts (n, tokens), read beside the image tokens."""
        return self.text(
            input_ids=input_ids,
            attention_mask=attention_mask,
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long, device=seen.device),
            is_decoder=False,
        ).last_hidden_state

    def reward(self, states: Tensor) -> Tensor:
        """Scores (n,) from the states of the first token."""
        x = states[:, 0]
        for layer in self.head.values():
            x = layer(x)
        return (x[:, 0] - _MEAN) / _DEVIATION


class WordPieces:
    """BERT's lower-casing WordPiece of a published `vocab.txt`, padded and cut to 35 tokens."""

    def __init__(self, vocabulary: Path) -> None:
        """Raises `AssetError` for a missing or unreadable file or one without BERT's special tokens."""
        from tokenizers import BertWordPieceTokenizer

        if not vocabulary.is_file():
            raise AssetError(f"{vocabulary} is missing: the vocabulary of bert-base-uncased")
        try:
            # A word may hold what splitlines takes for the end of a line, such as U+0085 and U+2028.
            words = lines(read_text(vocabulary))
        except UnicodeDecodeError as error:
            raise AssetError(f"{vocabulary}: not a vocabulary of BERT ({error})") from None
        places = {word: place for place, word in enumerate(words)}
        lacking = [token for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]") if token not in places]
        if lacking or len(places) != len(words):
            what = f"lacks {', '.join(lacking)}" if lacking else "repeats a word"
            raise AssetError(f"{vocabulary}: not a vocabulary of BERT: it {what}")
        self.size = len(words)
        self._tokenizer = BertWordPieceTokenizer(places, lowercase=True)
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.enable_padding(pad_id=places["[PAD]"], pad_token="[PAD]", length=MAX_TOKENS)

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids and attention mask, int64 (n, 35) each."""
        found = self._tokenizer.encode_batch(list(texts))
        ids = torch.tensor([one.ids for one in found], dtype=torch.long)
        return ids, torch.tensor([one.attention_mask for one in found], dtype=torch.long)

    def cut(self, texts: Sequence[str]) -> list[bool]:
        """Say of each text whether its end is dropped."""
        return [bool(one.overflowing) for one in self._tokenizer.encode_batch(list(texts))]


def load_reward_network(weights: Path, med_config: Path, vision: VisionSize | None = None) -> RewardNetwork:
    """The network from `ImageReward.pt` (or a safetensors file) and `med_config.json`, in evaluation mode, float32.

    Raises:
        AssetError: a file is missing or damaged, or a weight is missing, left over or of another shape.
    """
    for path in (weights, med_config):
        if not path.is_file():
            raise AssetError(f"{path} is missing: part of ImageReward")
    try:
        text = parse_json(read_text(med_config))
        with torch.device("meta"):
            network = RewardNetwork(vision or VisionSize(), text)
    except (ValueError, KeyError, TypeError) as error:
        raise AssetError(
            f"{med_config}: not the configuration of ImageReward's text tower ({error!r})"
        ) from None
    _assign(network, _read(weights), weights)
    return with_our_products(network.eval())


def read_vision_size(path: Path) -> VisionSize:
    """The vision tower that `save_reward_network` wrote down; raises `AssetError` for anything else."""
    try:
        return VisionSize(**parse_json(read_text(path)))
    except (OSError, ValueError, TypeError) as error:
        raise AssetError(f"{path}: not the sizes of a vision tower ({first_line(error)})") from None


def save_reward_network(network: RewardNetwork, vocabulary: Sequence[str], folder: Path) -> None:
    """Write `folder`: weights as safetensors in float16 under this module's names, sizes and vocabulary."""
    vision, text = network.sizes
    tensors = {
        name: tensor.detach().half().contiguous()
        for name, tensor in network.state_dict().items()
        if not name.endswith("position_ids")
    }
    atomic.write_text(folder / TEXT_FILE, json.dumps(text, indent=2) + "\n")
    atomic.write_text(folder / VISION_FILE, json.dumps(asdict(vision), indent=2) + "\n")
    atomic.write_text(folder / VOCABULARY_FILE, "".join(f"{word}\n" for word in vocabulary))
    atomic.write_bytes(folder / WEIGHTS_FILE, save(tensors))


def _read(weights: Path) -> dict[str, Tensor]:
    try:
        if weights.suffix == ".safetensors":
            return load_file(plain(weights))
        state = torch.load(plain(weights), map_location="cpu", weights_only=True, mmap=True)
    except UnpicklingError:
        raise AssetError(f"{weights}: holds more than tensors, or is not a checkpoint") from None
    except DAMAGED as error:
        raise AssetError(f"{weights}: not a checkpoint ({str(error).partition(chr(10))[0]})") from None
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise AssetError(f"{weights}: not a state dict")
    return state


def _assign(network: RewardNetwork, state: dict[str, Tensor], weights: Path) -> None:
    expected = network.state_dict()
    renamed: dict[str, Tensor] = {}
    surplus = []
    for key, tensor in state.items():
        if key.startswith(_UNUSED) or key.endswith("embeddings.position_ids"):
            continue
        name = _renamed(key)
        if name not in expected:
            surplus.append(key)
        elif tensor.shape != expected[name].shape:
            shapes = f"{tuple(tensor.shape)}, expected {tuple(expected[name].shape)}"
            raise AssetError(f"{weights}: {key!r} has shape {shapes}")
        else:
            renamed[name] = tensor.float()
    # Position numbers are no weights; they are made here because the network was made without storage.
    positions = "text.embeddings.position_ids"
    lacking = set(expected) - set(renamed) - {positions}
    check_fit(weights, "ImageReward", {"missing_keys": lacking, "unexpected_keys": surplus})
    network.load_state_dict(renamed, strict=False, assign=True)
    embeddings: Any = network.text.embeddings
    embeddings.position_ids = torch.arange(embeddings.position_embeddings.num_embeddings).expand((1, -1))


_RENAMED = (
    ("blip.text_encoder.", "text."),
    ("blip.visual_encoder.cls_token", "vision.embeddings.class_embedding"),
    ("blip.visual_encoder.pos_embed", "vision.embeddings.position_embedding"),
    ("blip.visual_encoder.patch_embed.proj.", "vision.embeddings.patch_embedding."),
    ("blip.visual_encoder.blocks.", "vision.encoder.layers."),
    ("blip.visual_encoder.norm.", "vision.post_layernorm."),
    ("mlp.layers.", "head."),
)
_RENAMED_INSIDE = (
    (".norm1.", ".layer_norm1."),
    (".norm2.", ".layer_norm2."),
    (".attn.qkv.", ".self_attn.qkv."),
    (".attn.proj.", ".self_attn.projection."),
)


def _renamed(key: str) -> str:
    """A key of the checkpoint as a key of `RewardNetwork`; one of no known prefix stays as it is."""
    for prefix, ours in _RENAMED:
        if key.startswith(prefix):
            name = ours + key.removeprefix(prefix)
            break
    else:
        return key
    if name.startswith("vision.encoder."):
        for part, ours in _RENAMED_INSIDE:
            name = name.replace(part, ours)
    return name


def published_name(name: str) -> str:
    """The checkpoint's key of a key of `RewardNetwork`: what `_renamed` takes back."""
    if name.startswith("vision.encoder."):
        for part, ours in _RENAMED_INSIDE:
            name = name.replace(ours, part)
    prefix, ours = next((pair for pair in _RENAMED if name.startswith(pair[1])), ("", ""))
    return prefix + name.removeprefix(ours)


def _vision_config(size: VisionSize) -> BlipVisionConfig:
    config = BlipVisionConfig(
        hidden_size=size.width,
        intermediate_size=4 * size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        image_size=size.image_size,
        patch_size=size.patch,
        hidden_act="gelu",
        layer_norm_eps=1e-6,
        attention_dropout=0.0,
    )
    config._attn_implementation = "eager"
    return config


def _text_config(published: dict[str, Any], vision_width: int) -> BlipTextConfig:
    """`is_decoder` only makes the cross-attention exist; the network is never called with a causal mask.

    It writes no text, so that it needs no tokens for the beginning and the end of one. The defaults of transformers are
    BLIP's, which a smaller vocabulary than BERT's does not have.
    """
    config = BlipTextConfig(
        vocab_size=published["vocab_size"],
        hidden_size=published["hidden_size"],
        encoder_hidden_size=vision_width,
        intermediate_size=published["intermediate_size"],
        num_hidden_layers=published["num_hidden_layers"],
        num_attention_heads=published["num_attention_heads"],
        max_position_embeddings=published["max_position_embeddings"],
        hidden_act=published["hidden_act"],
        layer_norm_eps=published["layer_norm_eps"],
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=published.get("pad_token_id", 0),
        bos_token_id=None,
        eos_token_id=None,
        sep_token_id=None,
        is_decoder=True,
    )
    config._attn_implementation = "eager"
    return config
