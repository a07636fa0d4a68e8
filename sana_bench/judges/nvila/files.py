"""A published NVILA directory, read strictly: every tensor has its place, and every place its tensor."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sana_bench.assets.checks import check_fit
from sana_bench.core.errors import AssetError
from sana_bench.judges.nvila.config import LANGUAGE, PROJECTOR, VISION, NVILAConfig
from sana_bench.judges.nvila.network import NVILA, Projector
from sana_models.files import first_line, plain
from sana_models.layers import with_our_products
from sana_models.libraries import without_torchao

with without_torchao():
    from transformers import AutoTokenizer, PreTrainedModel, Qwen2ForCausalLM, SiglipVisionModel

__all__ = ["IMAGE_TOKEN", "MEDIA_TOKENS", "load_network", "load_tokenizer"]

IMAGE_TOKEN = "<image>"
#: Tokens that the reference takes out of texts, since they stand for images and videos.
MEDIA_TOKENS = (IMAGE_TOKEN, "<vila/video>")
# The reference adds these to the tokenizer, in this order, where it lacks them.
_ADDED = ("<vila/sentinel>", *MEDIA_TOKENS)
_PROJECTOR_FILE = "model.safetensors"


def load_network(folder: Path, config: NVILAConfig, dtype: torch.dtype) -> NVILA:
    """The network of `folder` in `dtype`, ready to answer.

    Raises:
        AssetError: a file is missing or damaged, or a tensor is missing, left over or of another shape.
    """
    llm = _load_part(Qwen2ForCausalLM, folder / LANGUAGE, dtype)
    _check_tied(llm, folder / LANGUAGE)
    tower = _load_part(SiglipVisionModel, folder / VISION, dtype)
    with torch.device("meta"):
        projector = Projector(config.merge, tower.config.hidden_size, llm.config.hidden_size)
    path = folder / PROJECTOR / _PROJECTOR_FILE
    state = {name: tensor.to(dtype) for name, tensor in _tensors(path).items()}
    _check_keys(path, projector.state_dict(), state)
    projector.load_state_dict(state, strict=True, assign=True)
    network = NVILA(llm, tower, projector, select_layer=config.select_layer)
    return with_our_products(network.eval().requires_grad_(False))


def load_tokenizer(folder: Path, config: NVILAConfig) -> Any:
    """The language model's tokenizer with the reference's media tokens and chat template.

    Raises `AssetError` when there is none, when it has no chat template, or when it cuts `yes` or `no` into pieces.
    """
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder / LANGUAGE, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise AssetError(f"{folder / LANGUAGE}: no tokenizer ({first_line(error)})") from None
    tokenizer.add_tokens(list(_ADDED), special_tokens=True)
    if config.chat_template is not None:
        tokenizer.chat_template = config.chat_template
    if not tokenizer.chat_template:
        raise AssetError(f"{folder / LANGUAGE}: the tokenizer has no chat template")
    for word in ("yes", "no"):
        if len(tokenizer.encode(word, add_special_tokens=False)) != 1:
            raise AssetError(f"{folder / LANGUAGE}: the tokenizer has no single token for {word!r}")
    return tokenizer


def _load_part(kind: type[PreTrainedModel], folder: Path, dtype: torch.dtype) -> Any:
    if not (folder / "config.json").is_file():
        raise AssetError(f"{folder / 'config.json'} is missing: part of NVILA")
    try:
        model, info = kind.from_pretrained(
            folder, dtype=dtype, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise AssetError(f"{folder}: weights cannot be read ({first_line(error)})") from None
    check_fit(folder, "NVILA", info)
    return model


def _check_tied(llm: Any, folder: Path) -> None:
    words, head = llm.get_input_embeddings().weight, llm.get_output_embeddings().weight
    if llm.config.tie_word_embeddings and head is not words and not torch.equal(head, words):
        raise AssetError(f"{folder}: lm_head and embed_tokens are one tensor in the network, but differ")


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(plain(path))
    except FileNotFoundError:
        raise AssetError(f"{path} is missing: part of NVILA") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise AssetError(f"{path}: damaged ({first_line(error)})") from None


def _check_keys(path: Path, expected: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    odd = {"missing_keys": set(expected) - set(state), "unexpected_keys": set(state) - set(expected)}
    check_fit(path, "NVILA", odd)
    for name, tensor in expected.items():
        if state[name].shape != tensor.shape:
            shapes = f"{tuple(state[name].shape)}, expected {tuple(tensor.shape)}"
            raise AssetError(f"{path}: {name!r} has shape {shapes}")
