"""Joint flow-matching training of the SANA transformer and its text encoder on cached latents."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sana_models.training.cache import LatentCache
from sana_models.training.flow import flow_matching_pair, sample_noise_levels
from sana_models.transformer import SanaTransformer

__all__ = ["TextToImageTask"]


class TextToImageTask:
    """Mean squared velocity error over all elements.

    Caption dropout replaces the tokens and the mask by those of the empty string: what the null branch of guidance sees later.
    (The official code trains with a frozen encoder and replaces embeddings only; here the encoder learns too.)
    """

    def __init__(
        self,
        transformer: SanaTransformer,
        text_encoder: nn.Module,
        cache: LatentCache,
        *,
        shift: float,
        caption_dropout: float,
        text_learning_rate_factor: float,
        null_tokens: tuple[Tensor, Tensor],
    ) -> None:
        self.transformer = transformer
        self.text_encoder = text_encoder
        self.modules: dict[str, nn.Module] = {"transformer": transformer, "text_encoder": text_encoder}
        self.cache = cache
        self.shift = shift
        self.caption_dropout = caption_dropout
        self.text_factor = text_learning_rate_factor
        self.null_ids, self.null_mask = null_tokens

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        groups = []
        for module, factor in ((self.transformer, 1.0), (self.text_encoder, self.text_factor)):
            parameters = [p for p in module.parameters() if p.requires_grad]
            matrices = [p for p in parameters if p.ndim > 1]
            vectors = [p for p in parameters if p.ndim <= 1]
            groups.append({"params": matrices, "lr": learning_rate * factor})
            groups.append({"params": vectors, "lr": learning_rate * factor, "weight_decay": 0.0})
        return groups

    def loss(self, step: int, batch_size: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        latents, ids, mask = self.cache.batch(batch_size, generator)
        dropped = torch.rand(batch_size, generator=generator) < self.caption_dropout
        ids = torch.where(dropped[:, None], self.null_ids, ids)
        mask = torch.where(dropped[:, None], self.null_mask, mask)
        sigma = sample_noise_levels(batch_size, shift=self.shift, generator=generator)
        noise = torch.randn(latents.shape, generator=generator)
        noisy, target = flow_matching_pair(latents, sigma, noise)
        embeddings = self.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        velocity = self.transformer(noisy, (1000 * sigma).floor(), embeddings, mask)
        return F.mse_loss(velocity.float(), target), {}
