"""What a published mPLUG directory says about its network: three files, of which nothing is assumed."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import yaml

from sana_bench.core.errors import AssetError
from sana_bench.core.text import read_text
from sana_models.files import parse_json

__all__ = [
    "BERT_FILE",
    "CONFIGURATION_FILE",
    "NETWORK_FILE",
    "PICKLE_FILE",
    "SAFETENSORS_FILE",
    "VOCABULARY_FILE",
    "MPlugConfig",
    "read_config",
]

CONFIGURATION_FILE = "configuration.json"
NETWORK_FILE = "config.yaml"
BERT_FILE = "config_bert.json"
VOCABULARY_FILE = "vocab.txt"
PICKLE_FILE = "pytorch_model.bin"
SAFETENSORS_FILE = "model.safetensors"

_TASK = "visual-question-answering"


@dataclass(frozen=True, kw_only=True)
class MPlugConfig:
    """Sizes of the network and of its beam search, under the names of the published files.

    The first group stands in `config.yaml`, whose defaults are modelscope's; the second in `config_bert.json`.
    """

    image_res: int = 504
    vision_width: int = 1024
    clip_vision_layers: int = 24
    clip_vision_width: int = 1024
    clip_vision_patch_size: int = 14
    beam_size: int = 5
    min_length: int = 1
    max_length: int = 10

    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_hidden_layers: int
    vocab_size: int
    text_encoder_layers: int
    fusion_layers: int
    text_decode_layers: int
    encoder_width: int
    stride_layer: int = 100
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12

    @property
    def image_tokens(self) -> int:
        """Patches and the class token."""
        return (self.image_res // self.clip_vision_patch_size) ** 2 + 1

    @property
    def vision_heads(self) -> int:
        """Heads of 64, as in CLIP."""
        return self.clip_vision_width // 64

    @property
    def first_fusion_layer(self) -> int:
        """Stored fusion layers below this one never run."""
        return max(0, self.num_hidden_layers - self.fusion_layers)

    def is_connected(self, layer: int) -> bool:
        """Whether stored fusion layer `layer` attends over image and text together, without cross-attention."""
        place = layer - self.first_fusion_layer
        return place > 0 and place % self.stride_layer == 0

    @classmethod
    def from_parts(cls, network: Mapping[str, Any], bert: Mapping[str, Any]) -> Self:
        """Raises ValueError for values that this network does not have, TypeError for missing ones."""
        for key, only in (("hidden_act", "gelu"), ("position_embedding_type", "absolute")):
            if bert.get(key, only) != only:
                raise ValueError(f"{key} is {bert[key]!r}; only {only!r} is known")
        if isinstance(network.get("clip_vision_layers", 24), list):
            raise ValueError("clip_vision_layers is a list: a residual tower, which answers no questions")
        known = {field.name for field in fields(cls)}
        return cls(**{key: value for part in (network, bert) for key, value in part.items() if key in known})

    def parts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The content of `config.yaml` and `config_bert.json`, as `from_parts` takes them."""
        values = asdict(self)
        names = [field.name for field in fields(self)]
        split = names.index("hidden_size")
        return {key: values[key] for key in names[:split]}, {key: values[key] for key in names[split:]}


def read_config(folder: Path) -> MPlugConfig:
    """Read the three configuration files of `folder`.

    Raises:
        AssetError: a file is missing, cannot be parsed, or describes another kind of network.
    """
    configuration = _mapping(folder / CONFIGURATION_FILE, parse_json)
    if configuration.get("task") != _TASK:
        raise AssetError(
            f"{folder / CONFIGURATION_FILE}: task is {configuration.get('task')!r}, not {_TASK!r}"
        )
    network = _mapping(folder / NETWORK_FILE, yaml.safe_load)
    bert_file = folder / str(network.get("bert_config", BERT_FILE))
    if bert_file.parent != folder:
        raise AssetError(f"{folder / NETWORK_FILE}: bert_config {bert_file} lies outside the folder")
    try:
        return MPlugConfig.from_parts(network, _mapping(bert_file, parse_json))
    except (TypeError, ValueError) as error:
        raise AssetError(
            f"{folder}: {NETWORK_FILE} and {bert_file.name} do not fit mPLUG ({error})"
        ) from None


def _mapping(path: Path, parse: Any) -> Mapping[str, Any]:
    try:
        content = parse(read_text(path))
    except FileNotFoundError:
        raise AssetError(f"{path} is missing") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise AssetError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None
    if not isinstance(content, Mapping):
        raise AssetError(f"{path}: expected a mapping")
    return content
