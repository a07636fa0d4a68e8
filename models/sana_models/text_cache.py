"""Text embeddings on disk, by content: each prompt is encoded once for all pipelines that share an encoder."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from sana_models.files import parse_json, read_bytes, write_whole
from sana_models.text import Conditioning, TextEncoder

__all__ = ["CachedTextEncoder", "encoder_identity", "working_precision"]

_FORMAT = "text embeddings v1"
# About 0.5 GB of full-length Gemma-2-2B embeddings in fp32.
_KEPT_IN_MEMORY = 192


def encoder_identity(encoder: TextEncoder) -> str:
    """SHA-256 over the tokenizer and every weight, with names and dtypes: equal for equal encoders, wherever stored."""
    tokenizer = encoder.tokenizer.backend_tokenizer.to_str().encode()
    return _digest(encoder.model.state_dict(), tokenizer)


def working_precision(weight: Tensor, device: torch.device | None = None) -> str:
    """Name the precision that a network computes in at this moment: autocast's on its device, else its weights', and TF32.

    `device` is where it computes when its weights lie elsewhere.
    """
    kind = (device or weight.device).type
    if torch.is_autocast_enabled(kind):
        return f"autocast {torch.get_autocast_dtype(kind)}"
    in_tf32 = kind == "cuda" and weight.dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32
    return f"{weight.dtype} in TF32" if in_tf32 else str(weight.dtype)


class CachedTextEncoder(TextEncoder):
    """A `TextEncoder` that looks into a folder first; without one, among the prompts it encoded last.

    Prompts that are not there are encoded one by one, so that an embedding never depends on which others happened to
    be in its batch. Files appear whole or not at all; a damaged one is made again.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        folder: str | Path | None = None,
        write: Callable[[Path, Callable[[BinaryIO], object]], None] = write_whole,
    ) -> None:
        """`write` creates or replaces a file of the folder with what it is handed puts into it."""
        super().__init__(encoder.tokenizer, encoder.model)
        self._write_file = write
        self.folder = None if folder is None else Path(folder)
        # Where the model computes while it is parked elsewhere.
        self._device: torch.device | None = None
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

    def park(self) -> None:
        """Take the model off its device; it goes back when a prompt has to be encoded after all."""
        self._device = next(self.model.parameters()).device
        self.model.to("cpu")

    def stored(self, prompt: str, **options: Any) -> bool:
        """Whether the folder has a prompt, with the options of `encode`, all of them and in their order."""
        name = self._name(prompt, options)
        return self.folder is not None and (self.folder / name[:2] / f"{name}.safetensors").is_file()

    def forget(self) -> None:
        """Drop the prompts kept in memory; a folder keeps what it has."""
        self._recent.clear()

    def _row(self, prompt: str, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
        name = self._name(prompt, options)
        path = None if self.folder is None else self.folder / name[:2] / f"{name}.safetensors"
        row = self._recent.get(name) if path is None else _read(path)
        if row is None:
            if self._device is not None:
                self.model.to(self._device)
                self._device = None
            embeddings, mask = super().encode([prompt], **options)
            row = (embeddings[0].cpu(), mask[0].cpu())
            if path is not None:
                content = _packed(name, *row, keep_padding=options["keep_padding"])
                self._write_file(path, lambda stream: stream.write(content))
        if path is None:
            self._recent[name] = row
            self._recent.move_to_end(name)
            if len(self._recent) > _KEPT_IN_MEMORY:
                self._recent.popitem(last=False)
        return row

    def _name(self, prompt: str, options: dict[str, Any]) -> str:
        # Without a folder there is one encoder only, whose weights need not be read for a name.
        identity = self.identity if self.folder is not None else ""
        precision = working_precision(next(self.model.parameters()), self._device)
        content = json.dumps([_FORMAT, identity, precision, prompt, *options.values()])
        return hashlib.sha256(content.encode()).hexdigest()


def _read(path: Path) -> tuple[Tensor, Tensor] | None:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        content = read_bytes(path)
        stored = load(content)
        if _digest(stored, path.stem.encode()) != _metadata(content).get("sha256"):
            return None
        mask = stored["mask"]
        embedding = stored["embedding"].new_zeros(len(mask), stored["embedding"].shape[1])
        embedding[: len(stored["embedding"])] = stored["embedding"]
        return embedding, mask
    except (
        OSError,
        SafetensorError,
        KeyError,
        ValueError,
    ):  # not there, damaged, or no file at all: made again
        return None


def _packed(name: str, embedding: Tensor, mask: Tensor, *, keep_padding: bool) -> bytes:
    """The file of an embedding, with a hash of name and tensors: the format has none, and a changed bit would change images."""
    from safetensors.torch import save

    if not keep_padding:
        # A prompt fills a tenth of its 300 positions or less; the rest is zero.
        embedding = embedding[: int(mask.nonzero().max()) + 1]
    content = {"embedding": embedding.cpu().contiguous(), "mask": mask.cpu().contiguous()}
    return save(content, {"sha256": _digest(content, name.encode())})


def _metadata(content: bytes) -> dict[str, str]:
    """The metadata in the header of a safetensors file that was read without complaint."""
    length = int.from_bytes(content[:8], "little")
    return dict(parse_json(content[8 : 8 + length]).get("__metadata__") or {})


def _digest(tensors: Mapping[str, Tensor], first: bytes = b"") -> str:
    """SHA-256 over names, dtypes, shapes and values, after `first`."""
    digest = hashlib.sha256(first)
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
