"""Text embeddings on disk, by content: each prompt is encoded once for all pipelines that share an encoder."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sana_models.files import read_bytes, write_whole
from sana_models.text import Conditioning, TextEncoder

__all__ = ["CachedTextEncoder", "encoder_identity", "working_precision"]

_FORMAT = "text embeddings v1"
# About 0.5 GB of full-length Gemma-2-2B embeddings in fp32.
_KEPT_IN_MEMORY = 192


def encoder_identity(encoder: TextEncoder) -> str:
    """SHA-256 over the tokenizer and every weight, with names and dtypes: equal for equal encoders, wherever stored."""
    digest = hashlib.sha256(encoder.tokenizer.backend_tokenizer.to_str().encode())
    for name, value in sorted(encoder.model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def working_precision(weight: Tensor) -> str:
    """Name the precision that a network computes in at this moment: autocast's on its device, else its weights'."""
    kind = weight.device.type
    autocast = torch.is_autocast_enabled(kind)
    return f"autocast {torch.get_autocast_dtype(kind)}" if autocast else str(weight.dtype)


class CachedTextEncoder(TextEncoder):
    """A `TextEncoder` that looks into a folder first; without one, among the prompts it encoded last.

    Prompts that are not there are encoded one by one, so that an embedding never depends on which others happened to
    be in its batch. Files appear whole or not at all; a damaged one is made again.
    """

    def __init__(self, encoder: TextEncoder, folder: str | Path | None = None) -> None:
        super().__init__(encoder.tokenizer, encoder.model)
        self.folder = None if folder is None else Path(folder)
        self._recent: OrderedDict[str, tuple[Tensor, Tensor]] = OrderedDict()

    @cached_property
    def identity(self) -> str:
        """What the stored embeddings belong to; read once, so the weights must not change afterwards."""
        return encoder_identity(self)

    @torch.no_grad()
    def encode(
        self,
        prompts: Sequence[str],
        *,
        max_length: int = 300,
        instruction: str | None = None,
        conditioning: Conditioning = "diffusers",
        keep_padding: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """As `TextEncoder.encode`, from the folder where possible."""
        options: dict[str, Any] = {
            "max_length": max_length,
            "instruction": instruction,
            "conditioning": conditioning,
            "keep_padding": keep_padding,
        }
        rows = [self._row(prompt, options) for prompt in prompts]
        device = next(self.model.parameters()).device
        return (
            torch.stack([embedding.to(device) for embedding, _ in rows]),
            torch.stack([mask.to(device) for _, mask in rows]),
        )

    def forget(self) -> None:
        """Drop the prompts kept in memory; a folder keeps what it has."""
        self._recent.clear()

    def _row(self, prompt: str, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
        name = self._name(prompt, options)
        path = None if self.folder is None else self.folder / name[:2] / f"{name}.safetensors"
        row = self._recent.get(name) if path is None else _read(path)
        if row is None:
            embeddings, mask = super().encode([prompt], **options)
            row = (embeddings[0].cpu(), mask[0].cpu())
            if path is not None:
                _write(path, *row, keep_padding=options["keep_padding"])
        if path is None:
            self._recent[name] = row
            self._recent.move_to_end(name)
            if len(self._recent) > _KEPT_IN_MEMORY:
                self._recent.popitem(last=False)
        return row

    def _name(self, prompt: str, options: dict[str, Any]) -> str:
        # Without a folder there is one encoder only, whose weights need not be read for a name.
        identity = self.identity if self.folder is not None else ""
        precision = working_precision(next(self.model.parameters()))
        content = json.dumps([_FORMAT, identity, precision, prompt, *options.values()])
        return hashlib.sha256(content.encode()).hexdigest()


def _read(path: Path) -> tuple[Tensor, Tensor] | None:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        stored = load(read_bytes(path))
        mask = stored["mask"]
        embedding = stored["embedding"].new_zeros(len(mask), stored["embedding"].shape[1])
        embedding[: len(stored["embedding"])] = stored["embedding"]
        return embedding, mask
    except (FileNotFoundError, SafetensorError, KeyError):
        return None


def _write(path: Path, embedding: Tensor, mask: Tensor, *, keep_padding: bool) -> None:
    from safetensors.torch import save

    if not keep_padding:
        # A prompt fills a tenth of its 300 positions or less; the rest is zero.
        embedding = embedding[: int(mask.nonzero().max()) + 1]

    content = {"embedding": embedding.cpu().contiguous(), "mask": mask.cpu().contiguous()}
    write_whole(path, lambda stream: stream.write(save(content)))
