"""The micro world's CLIP: open_clip's own classes at a small size, with a tokenizer of whole words.

A folder of weights holds `open_clip_config.json` (open_clip's layout, so `open_clip` itself can load it
through its `local-dir:` scheme), `model.safetensors` and `vocab.json`.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from sana_bench.core import atomic
from sana_bench.core.errors import AssetError
from sana_bench.core.text import read_text
from sana_models.files import first_line, parse_json, plain
from sana_models.libraries import without_torchao

with without_torchao():
    from open_clip import CLIP

__all__ = ["MicroClip", "WordTokenizer", "build_model", "images_to_tensor", "load_clip", "save_clip"]

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "model.safetensors"
VOCABULARY_FILE = "vocab.json"

# Items per forward pass; the last pass is padded to it. Matrix kernels round differently for different batch
# sizes, and a score must not depend on what else was scored with it.
_BATCH = 64
_MEAN = _STD = 0.5
_WORD = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True)
class WordTokenizer:
    """Whole words to ids: 0 is padding, then the words in order, then unknown, start and end of text.

    End of text has the highest id, because open_clip pools the text at the largest token.
    """

    words: tuple[str, ...]
    context_length: int

    def __post_init__(self) -> None:
        if len(set(self.words)) != len(self.words):
            raise ValueError("the vocabulary lists a word twice")
        object.__setattr__(self, "_ids", {word: index for index, word in enumerate(self.words, start=1)})

    @property
    def size(self) -> int:
        """Number of ids, special ones included."""
        return len(self.words) + 4

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Token ids, int64 (len(texts), context_length); too long a text keeps its end-of-text token."""
        unknown, start, end = self.size - 3, self.size - 2, self.size - 1
        ids = torch.zeros(len(texts), self.context_length, dtype=torch.long)
        known: Mapping[str, int] = self._ids  # type: ignore[attr-defined]
        for row, text in enumerate(texts):
            body = [known.get(word, unknown) for word in _WORD.findall(text.lower())]
            tokens = [start, *body[: self.context_length - 2], end]
            ids[row, : len(tokens)] = torch.tensor(tokens)
        return ids

    def cut(self, texts: Sequence[str]) -> list[bool]:
        """Say of each text whether its last words are dropped."""
        return [len(_WORD.findall(text.lower())) + 2 > self.context_length for text in texts]


class MicroClip:
    """A trained CLIP with its tokenizer, computing in fp32 on the CPU."""

    def __init__(self, model: CLIP, tokenizer: WordTokenizer, image_size: int) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.image_size = image_size

    @torch.inference_mode()
    def encode_images(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Unit-length features, float32 (n, d), of RGB images (n, size, size, 3) in 0..255.

        Raises ValueError for another size: the micro world has one, and nothing is resized silently.
        """
        expected = (self.image_size, self.image_size, 3)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != expected:
            raise ValueError(
                f"images must be uint8 of shape (n, {expected}), got {images.dtype} {images.shape}"
            )
        return self._encode(self.model.encode_image, images_to_tensor(images))

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit-length features, float32 (n, d)."""
        return self._encode(self.model.encode_text, self.tokenizer(texts))

    def _encode(self, encode: Callable[..., Tensor], items: Tensor) -> NDArray[np.float32]:
        features = torch.empty(len(items), self.model.text_projection.shape[1])
        for start in range(0, len(items), _BATCH):
            part = items[start : start + _BATCH]
            padding = part[:1].expand(_BATCH - len(part), *part.shape[1:])
            features[start : start + _BATCH] = encode(torch.cat([part, padding]), normalize=True)[: len(part)]
        return features.numpy()


def images_to_tensor(images: NDArray[np.uint8]) -> Tensor:
    """uint8 (n, height, width, 3) to float32 (n, 3, height, width) in [-1, 1]."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
    return (pixels / 255 - _MEAN) / _STD


def build_model(model_config: Mapping[str, Any], tokenizer: WordTokenizer) -> CLIP:
    """A randomly initialised open_clip model whose text tower fits `tokenizer`; draws from torch's global
    generator.

    `model_config` has open_clip's keys `embed_dim`, `vision_cfg` and `text_cfg`; vocabulary and context
    length come from the tokenizer. Raises TypeError for keys that open_clip does not know.
    """
    full = _complete(model_config, tokenizer)
    return CLIP(full["embed_dim"], full["vision_cfg"], full["text_cfg"])


def save_clip(model: CLIP, tokenizer: WordTokenizer, model_config: Mapping[str, Any], folder: Path) -> None:
    """Write the three files of a weights folder, each atomically."""
    config = {
        "model_cfg": _complete(model_config, tokenizer),
        "preprocess_cfg": {"mean": [_MEAN] * 3, "std": [_STD] * 3, "interpolation": "bicubic"},
    }
    tensors = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    atomic.write_text(folder / CONFIG_FILE, json.dumps(config, indent=2) + "\n")
    atomic.write_text(folder / VOCABULARY_FILE, json.dumps({"words": list(tokenizer.words)}, indent=1) + "\n")
    atomic.write_bytes(folder / WEIGHTS_FILE, save(tensors))


def load_clip(folder: Path) -> MicroClip:
    """Load a weights folder written by `save_clip`.

    Raises:
        AssetError: a file is missing, truncated, or does not fit the others; one line that names it.
    """
    config = _read_json(folder / CONFIG_FILE)
    vocabulary = _read_json(folder / VOCABULARY_FILE)
    try:
        model_config = config["model_cfg"]
        tokenizer = WordTokenizer(tuple(vocabulary["words"]), int(model_config["text_cfg"]["context_length"]))
        model = CLIP(model_config["embed_dim"], model_config["vision_cfg"], model_config["text_cfg"])
        image_size = int(model_config["vision_cfg"]["image_size"])
    except (KeyError, TypeError, ValueError) as error:
        raise AssetError(f"{folder / CONFIG_FILE}: not a usable configuration ({error})") from None
    if model.vocab_size != tokenizer.size:
        counts = f"{tokenizer.size} tokens, {CONFIG_FILE} expects {model.vocab_size}"
        raise AssetError(f"{folder / VOCABULARY_FILE} gives {counts}")
    try:
        model.load_state_dict(load_file(plain(folder / WEIGHTS_FILE)))
    except FileNotFoundError:
        raise AssetError(f"{folder / WEIGHTS_FILE} is missing") from None
    except (SafetensorError, RuntimeError, OSError) as error:
        summary = " ".join(str(error).split())[:200]
        raise AssetError(f"{folder / WEIGHTS_FILE}: does not hold this model ({summary})") from None
    return MicroClip(model, tokenizer, image_size)


def _complete(model_config: Mapping[str, Any], tokenizer: WordTokenizer) -> dict[str, Any]:
    text = dict(model_config["text_cfg"]) | {
        "vocab_size": tokenizer.size,
        "context_length": tokenizer.context_length,
        "pad_id": 0,
        "pool_type": "argmax",
    }
    return {
        "embed_dim": int(model_config["embed_dim"]),
        "vision_cfg": dict(model_config["vision_cfg"]),
        "text_cfg": text,
    }


def _read_json(path: Path) -> Any:
    try:
        return parse_json(read_text(path))
    except FileNotFoundError:
        raise AssetError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise AssetError(f"{path}: cannot be read ({first_line(error)})") from None
