"""Classifier-free guidance: velocity of a prompt, pushed away from that of the empty prompt.

Source: Classifier-Free Diffusion Guidance (arXiv 2207.12598), on velocities: v = v_u + w (v_c - v_u).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sana_models.transformer import SanaTransformer

__all__ = ["TextCondition", "guided_velocity", "uses_guidance"]


@dataclass(frozen=True, slots=True)
class TextCondition:
    """What the transformer attends to: embeddings (B, T, D) and the mask (B, T) of tokens that take part."""

    embeddings: Tensor
    mask: Tensor


def uses_guidance(guidance_scale: float) -> bool:
    """Whether a scale asks for the second, unconditional branch; at 1 the two cancel, and less is off by
    convention.
    """
    return guidance_scale > 1


def guided_velocity(
    transformer: SanaTransformer,
    prompt: TextCondition,
    null: TextCondition | None,
    guidance_scale: float,
) -> Callable[[Tensor, float], Tensor]:
    """Bind text and guidance: return (x, t) -> fp32 velocity, x being fp32 (B, C, h, w).

    Both branches run as one batch in the order [unconditional, conditional]; with `null` None there is only
    the second.
    """
    dtype = transformer.proj_out.weight.dtype
    embeddings, mask = prompt.embeddings, prompt.mask
    if null is not None:
        embeddings, mask = torch.cat([null.embeddings, embeddings]), torch.cat([null.mask, mask])

    def velocity(x: Tensor, t: float) -> Tensor:
        batch = x if null is None else torch.cat([x, x])
        times = torch.full((len(batch),), t, device=x.device)
        predicted = transformer(batch.to(dtype), times, embeddings, mask).float()
        if null is None:
            return predicted
        unconditional, conditional = predicted.chunk(2)
        return unconditional + guidance_scale * (conditional - unconditional)

    return velocity
