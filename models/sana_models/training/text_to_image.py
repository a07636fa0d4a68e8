"""Flow-matching training of the SANA transformer, with its text encoder or with a frozen one."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sana_models.training.caption_texts import CaptionTexts
from sana_models.training.distributed import local_rows
from sana_models.training.flow import flow_matching_pair, sample_noise_levels
from sana_models.training.image_text import ImageTextData
from sana_models.training.meter import Extra
from sana_models.transformer import SanaBlock, SanaTransformer

__all__ = ["LEVELS", "CaptionedLatents", "TextInput", "TextToImageTask", "TrainingData", "level_sums"]

#: Ranges of noise levels whose losses are told apart.
LEVELS = ("0.00-0.25", "0.25-0.50", "0.50-0.75", "0.75-1.00")

#: Captions to token ids (n, T), or embeddings (n, T, C) of a frozen encoder, and masks (n, T).
TextInput = Callable[[list[str]], tuple[Tensor, Tensor]]


class TrainingData(Protocol):
    """Where batches come from; all draws are from the generator that is given."""

    def batch_size(self, step: int, default: int) -> int:
        """Return the size of a step's batch, over all processes."""
        ...

    def batch(
        self, step: int, size: int, rows: slice, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the fp32 latents (n, C, h, w), text and masks (n, T) of the batch's `rows`."""
        ...

    def last_names(self) -> list[str]:
        """Return the names of the records in the rows returned last, in their order."""
        ...


class CaptionedLatents:
    """`ImageTextData` with its captions turned into tokens or embeddings."""

    def __init__(self, images: ImageTextData, texts: CaptionTexts) -> None:
        self.images, self.texts = images, texts

    def batch_size(self, step: int, default: int) -> int:
        return self.images.batch_size(step, default)

    def batch(
        self, step: int, size: int, rows: slice, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        latents, captions = self.images.batch(step, size, rows, generator)
        return latents, *self.texts(captions)

    def last_names(self) -> list[str]:
        return self.images.last_names


class TextToImageTask:
    """Mean squared velocity error over all elements.

    Caption dropout replaces text and mask by those of the empty string: what the null branch of guidance sees later.
    (The official code replaces embeddings only.) The encoder is frozen when none of its weights requires gradients; data of a
    frozen encoder may hold embeddings in place of token ids.
    """

    def __init__(
        self,
        transformer: SanaTransformer,
        text_encoder: nn.Module,
        data: TrainingData,
        *,
        shift: float,
        caption_dropout: float,
        text_learning_rate_factor: float,
        null_text: tuple[Tensor, Tensor],
    ) -> None:
        self.transformer = transformer
        self.text_encoder = text_encoder
        self.modules: dict[str, nn.Module] = {"transformer": transformer}
        self.trains_text = any(parameter.requires_grad for parameter in text_encoder.parameters())
        if self.trains_text:
            self.modules["text_encoder"] = text_encoder
        self.data = data
        self.shift = shift
        self.caption_dropout = caption_dropout
        self.text_factor = text_learning_rate_factor
        self.null_text, self.null_mask = null_text
        #: What a step computes with, in this process: noisy latents, their target, noise levels, text and mask.
        self._drawn: tuple[Tensor, ...] = ()
        self._last: list[tuple[Tensor, Tensor]] = []

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        groups = []
        for name, module in self.modules.items():
            rate = learning_rate * (self.text_factor if name == "text_encoder" else 1.0)
            parameters = [p for p in module.parameters() if p.requires_grad]
            matrices = [p for p in parameters if p.ndim > 1]
            vectors = [p for p in parameters if p.ndim <= 1]
            groups.append({"params": matrices, "lr": rate})
            groups.append({"params": vectors, "lr": rate, "weight_decay": 0.0})
        return groups

    def units(self) -> Iterator[nn.Module]:
        """Yield what is gathered together when the networks are sharded, inner ones first.

        A block's cross-attention is one of its own, for text is projected before the blocks run.
        """
        for block in self.transformer.transformer_blocks:
            yield from (cast(SanaBlock, block).attn2, block)
        yield from (self.transformer.caption_projection, self.transformer.caption_norm, self.transformer)
        if self.trains_text:
            encoder = cast(Any, self.text_encoder)
            yield from (*encoder.layers, encoder.get_input_embeddings(), encoder)

    def loss(
        self, step: int, batch_size: int, generator: torch.Generator, part: int = 0, parts: int = 1
    ) -> tuple[Tensor, Extra]:
        """Loss of one of `parts` equal parts of this process's rows; the first part draws for all."""
        if part == 0:
            self._drawn, self._last = self._draw(step, batch_size, generator), []
        device = self.transformer.proj_out.weight.device
        noisy, target, sigma, text, mask = (rows.chunk(parts)[part] for rows in self._drawn)
        text, mask, times = text.to(device), mask.to(device), (1000 * sigma).floor().to(device)
        velocity = self.transformer(noisy.to(device), times, self.embed(text, mask), mask)
        self._last.append((velocity.detach(), target))
        target = target.to(device)
        sums = level_sums(velocity.detach(), target, sigma).tolist()
        extra = {
            f"loss_{name}": (total, int(count)) for name, (total, count) in zip(LEVELS, sums, strict=True)
        }
        return F.mse_loss(velocity.float(), target), extra

    def _draw(self, step: int, batch_size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        size = self.data.batch_size(step, batch_size)
        # Every process draws for the whole batch and keeps its rows, so that their number changes nothing.
        rows = local_rows(size)
        latents, text, mask = self.data.batch(step, size, rows, generator)
        dropped = (torch.rand(size, generator=generator) < self.caption_dropout)[rows]
        sigma = sample_noise_levels(size, shift=self.shift, generator=generator)[rows]
        noise = torch.randn((size, *latents.shape[1:]), generator=generator)[rows]
        noisy, target = flow_matching_pair(latents, sigma, noise)
        text = torch.where(dropped.view(-1, *[1] * (text.ndim - 1)), self.null_text.to(text), text)
        return noisy, target, sigma, text, torch.where(dropped[:, None], self.null_mask.to(mask), mask)

    def suspects(self) -> list[str]:
        """Name the records in this process's rows of the last batch whose own error is not finite."""
        finite: list[bool] = []
        for velocity, target in self._last:
            errors = (velocity.float() - target.to(velocity.device)).square().flatten(1).mean(1)
            finite += torch.isfinite(errors).tolist()
        return [name for name, good in zip(self.data.last_names(), finite, strict=True) if not good]

    def batch_names(self) -> list[str]:
        """Name all records in this process's rows of the last batch."""
        return self.data.last_names()

    def embed(self, text: Tensor, mask: Tensor) -> Tensor:
        """Return embeddings: `text` itself, or what the encoder makes of token ids."""
        if text.is_floating_point():
            return text
        with torch.set_grad_enabled(self.trains_text and torch.is_grad_enabled()):
            return self.text_encoder(input_ids=text, attention_mask=mask).last_hidden_state


def level_sums(velocity: Tensor, target: Tensor, sigma: Tensor) -> Tensor:
    """Return sum and number of the images' mean squared errors in each of `LEVELS`, float64 (levels, 2) on the CPU."""
    errors = (velocity.float() - target).square().flatten(1).mean(1).double().cpu()
    level = (sigma * len(LEVELS)).long().clamp(max=len(LEVELS) - 1)
    sums = torch.zeros(len(LEVELS), 2, dtype=torch.float64)
    return sums.index_add_(0, level, torch.stack([errors, torch.ones_like(errors)], dim=1))
