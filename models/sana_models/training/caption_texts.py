"""Captions as the networks take them: token ids, or embeddings of a frozen encoder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sana_models.text import TextEncoder, complex_human_instruction, tell_cut
from sana_models.text_cache import CachedTextEncoder

__all__ = ["CaptionTexts", "tokenize_with"]


class CaptionTexts:
    """Makes tokens of captions, or embeddings of a frozen encoder, kept in the cache where there is one."""

    def __init__(
        self,
        tokenizer: Any,
        model: nn.Module,
        *,
        max_length: int,
        trained: bool,
        cache: Path | None = None,
        with_instruction: bool = False,
    ) -> None:
        """`trained` is whether the encoder is, which then takes ids; `cache` is a folder for embeddings."""
        self._tokenize = tokenize_with(tokenizer, max_length)
        self._encoder: TextEncoder | None = None
        if not trained:
            self._encoder = TextEncoder(tokenizer, model)
            if cache is not None:
                self._encoder = CachedTextEncoder(self._encoder, cache)
        self._max_length = max_length
        self._instruction = complex_human_instruction() if with_instruction else None

    def __call__(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Return ids or fp32 embeddings, and masks, on the CPU."""
        return self._made(captions, self._instruction)

    def null(self) -> tuple[Tensor, Tensor]:
        """Return the same of the empty prompt, which has no instruction."""
        return self._made([""], None)

    def stored(self, text: str) -> bool:
        """Whether nothing needs to be encoded for a caption."""
        if self._encoder is None:
            return True
        options = self._options(self._instruction if text else None)
        return isinstance(self._encoder, CachedTextEncoder) and self._encoder.stored(text, **options)

    def park(self) -> None:
        """Take the encoder off its device."""
        if isinstance(self._encoder, CachedTextEncoder):
            self._encoder.park()

    def _made(self, captions: list[str], instruction: str | None) -> tuple[Tensor, Tensor]:
        if self._encoder is None:
            return self._tokenize(captions)
        # One by one, so that an embedding does not depend on the batch; the mask hides the padding.
        rows = [self._encoder.encode([text], **self._options(instruction)) for text in captions]
        return torch.cat([row[0] for row in rows]).float().cpu(), torch.cat([row[1] for row in rows]).cpu()

    def _options(self, instruction: str | None) -> dict[str, Any]:
        return {
            "max_length": self._max_length,
            "instruction": instruction,
            "conditioning": "diffusers",
            "keep_padding": False,
        }


def tokenize_with(tokenizer: Any, max_length: int) -> Callable[[list[str]], tuple[Tensor, Tensor]]:
    """Return a function from captions to token ids and masks (n, max_length)."""

    told: set[str] = set()

    def tokenize(captions: list[str]) -> tuple[Tensor, Tensor]:
        encoded = tokenizer(
            captions, padding="max_length", max_length=max_length, truncation=True, return_tensors="pt"
        )
        tell_cut(tokenizer, captions, encoded["attention_mask"], captions, told)
        return encoded["input_ids"], encoded["attention_mask"]

    return tokenize
