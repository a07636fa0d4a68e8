"""mPLUG directories: the published layout read strictly, and small ones written."""

import json
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save
from torch import Tensor

from sana_bench.assets.checks import DAMAGED
from sana_bench.core import atomic
from sana_bench.core.errors import AssetError
from sana_bench.core.text import lines, read_text
from sana_bench.judges.mplug.config import (
    BERT_FILE,
    CONFIGURATION_FILE,
    NETWORK_FILE,
    PICKLE_FILE,
    SAFETENSORS_FILE,
    VOCABULARY_FILE,
    MPlugConfig,
    read_config,
)
from sana_bench.judges.mplug.network import END, PAD, START, MPlugVQA
from sana_models.files import first_line, plain
from sana_models.layers import with_our_products

__all__ = ["load_network", "read_vocabulary", "save_network"]

# What published weights hold beside the network that answers: momentum copies of training, the text side and
# projection of CLIP, and position numbers that old transformers versions stored.
_NOT_USED = re.compile(
    r"(visual_encoder|text_encoder|fusion_encoder|text_decoder|visn_fc|visn_layer_norm)_m\."
    r"|visual_encoder\.(transformer|token_embedding|ln_final)\."
    r"|visual_encoder\.(positional_embedding|text_projection|logit_scale)$"
    r"|visual_encoder\.visual\.proj$"
    r"|.*\.embeddings\.position_ids$"
)
_FUSION = re.compile(r"fusion_encoder\.encoder\.layer\.(\d+)\.(crossattention\.)?")
_BIAS, _BIAS_ALIAS = "text_decoder.cls.predictions.bias", "text_decoder.cls.predictions.decoder.bias"


def load_network(folder: Path) -> MPlugVQA:
    """The network of a published directory (or one of `save_network`), in float32, ready to answer.

    Raises:
        AssetError: a file is missing or damaged, holds code, or a tensor is missing, unknown or of another shape.
    """
    config = read_config(folder)
    path = folder / (SAFETENSORS_FILE if (folder / SAFETENSORS_FILE).is_file() else PICKLE_FILE)
    state = _used(_tensors(path), config, path)
    with torch.device("meta"):
        network = MPlugVQA(config)
    try:
        network.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        raise AssetError(
            f"{path}: does not hold this network ({' '.join(str(error).split())[:300]})"
        ) from None
    return with_our_products(network.float().eval().requires_grad_(False))


def read_vocabulary(folder: Path, config: MPlugConfig) -> list[str]:
    """The lines of `vocab.txt`; raises `AssetError` when it is missing or not the network's."""
    path = folder / VOCABULARY_FILE
    try:
        # A word may hold what splitlines takes for the end of a line, such as U+0085 and U+2028.
        words = lines(read_text(path))
    except FileNotFoundError:
        raise AssetError(f"{path} is missing") from None
    except (OSError, UnicodeDecodeError) as error:
        raise AssetError(f"{path}: cannot be read ({first_line(error)})") from None
    if len(words) != config.vocab_size:
        raise AssetError(f"{path} has {len(words)} entries, {BERT_FILE} expects {config.vocab_size}")
    for place, word in ((PAD, "[PAD]"), (START, "[CLS]"), (END, "[SEP]")):
        if words[place] != word:
            raise AssetError(f"{path}: entry {place} is {words[place]!r}, the answers need {word!r} there")
    return words


def save_network(network: MPlugVQA, vocabulary: Sequence[str], folder: Path) -> None:
    """Write a directory in the published layout, weights as safetensors in float16, each file atomically."""
    parts, bert = network.config.parts()
    configuration = {"framework": "pytorch", "task": "visual-question-answering", "model": {"type": "mplug"}}
    state = network.state_dict()
    tensors = {name: tensor.detach().half().contiguous() for name, tensor in state.items()}
    atomic.write_text(folder / CONFIGURATION_FILE, json.dumps(configuration, indent=2) + "\n")
    atomic.write_text(folder / NETWORK_FILE, yaml.safe_dump({"bert_config": BERT_FILE, **parts}))
    atomic.write_text(folder / BERT_FILE, json.dumps(bert, indent=2) + "\n")
    atomic.write_text(folder / VOCABULARY_FILE, "".join(f"{word}\n" for word in vocabulary))
    atomic.write_bytes(folder / SAFETENSORS_FILE, save(tensors))


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(plain(path))
        # Mapped, not read: half of the published file is momentum that nobody needs.
        content = torch.load(
            plain(path), map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except FileNotFoundError:
        raise AssetError(f"{path} is missing") from None
    except pickle.UnpicklingError as error:
        reason = str(error).strip().splitlines()[0]
        raise AssetError(f"{path}: not a plain file of tensors ({reason[:200]})") from None
    except DAMAGED as error:
        raise AssetError(f"{path}: damaged ({' '.join(str(error).split())[:200]})") from None
    for wrapper in ("model", "module"):
        if isinstance(content, Mapping) and wrapper in content:
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise AssetError(f"{path}: holds no table of tensors")
    return {str(name).replace("model.", ""): value for name, value in content.items()}


def _used(tensors: dict[str, Tensor], config: MPlugConfig, path: Path) -> dict[str, Any]:
    state = {name: value for name, value in tensors.items() if not _never_runs(name, config)}
    alias = state.pop(_BIAS_ALIAS, None)
    if alias is not None and not torch.equal(alias, state.get(_BIAS, alias)):
        raise AssetError(f"{path}: {_BIAS} and {_BIAS_ALIAS} are one number in the network, but differ")
    return state


def _never_runs(name: str, config: MPlugConfig) -> bool:
    if _NOT_USED.match(name):
        return True
    fusion = _FUSION.match(name)
    if fusion is None:
        return False
    layer = int(fusion[1])
    stored = layer < config.num_hidden_layers
    skipped = layer < config.first_fusion_layer
    return stored and (skipped or (config.is_connected(layer) and fusion[2] is not None))
