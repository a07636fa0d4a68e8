"""Guidance: velocity of a prompt, pushed away from that of the empty prompt and of a perturbed network.

With v_c the conditional, v_u the unconditional and v_p the perturbed velocity,

    v = v_u + w (v_c - v_u) + p (v_c - v_p)

Sources: Classifier-Free Diffusion Guidance (arXiv 2207.12598); Self-Rectifying Diffusion Sampling with
Perturbed-Attention Guidance (arXiv 2403.17377), where chosen blocks attend by the identity; limited intervals
(arXiv 2404.07724).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sana_models.transformer import SanaTransformer, TextContext

__all__ = ["Guidance", "TextCondition", "guided_velocity"]


@dataclass(frozen=True, slots=True)
class TextCondition:
    """What the transformer attends to: embeddings (B, T, D) and the mask (B, T) of tokens that take part."""

    embeddings: Tensor
    mask: Tensor

    @property
    def used(self) -> int:
        """Positions up to the last one that takes part in any row, and up to the next multiple of 16 that there is.

        Attention to a length that fills vectors is up to three times as fast; what the mask leaves out has weight 0.
        """
        last = int(self.mask.any(0).nonzero().max()) + 1
        return min(-(-last // 16) * 16, self.mask.shape[1])

    def shortened(self, length: int) -> "TextCondition":
        """Only the first `length` positions."""
        return TextCondition(self.embeddings[:, :length], self.mask[:, :length])


@dataclass(frozen=True, slots=True, kw_only=True)
class Guidance:
    """How strongly, and at which noise levels, sampling is guided.

    `scale` is w; 1 or less turns classifier-free guidance off, because the branches cancel there and less is
    off by convention. `pag_scale` is p, 0 for none, acting in the transformer blocks `pag_blocks`;
    `pag_adaptive_scale` lowers p by that much for every unit of time below 1000, never under 0. Both kinds act
    only at noise levels strictly inside `interval`; outside, the conditional velocity is used as it is.
    Raises ValueError on settings that make no sense.
    """

    scale: float = 4.5
    interval: tuple[float, float] = (0.0, 1.0)
    pag_scale: float = 0.0
    pag_blocks: tuple[int, ...] = ()
    pag_adaptive_scale: float = 0.0

    def __post_init__(self) -> None:
        low, high = self.interval
        if not 0 <= low < high <= 1:
            raise ValueError(f"guidance interval is [{low}, {high}]; expected 0 <= low < high <= 1")
        if self.pag_scale < 0 or self.pag_adaptive_scale < 0:
            raise ValueError(
                f"pag_scale is {self.pag_scale}, pag_adaptive_scale {self.pag_adaptive_scale}; both must be >= 0"
            )
        if self.pag_scale > 0 and not self.pag_blocks:
            raise ValueError("pag_scale needs pag_blocks, the transformer blocks that it acts in")

    @property
    def uses_null(self) -> bool:
        """Whether any step needs the unconditional branch."""
        return self.scale > 1

    def acts(self, t: float) -> bool:
        """Whether the noise level of time `t` in [0, 1000] lies inside the interval.

        0 and 1 are ends of the range and bound nothing: flow-Euler starts at noise level 1 exactly.
        """
        low, high = self.interval
        level = t / 1000
        return (low == 0 or low < level) and (high == 1 or level < high)

    def pag_scale_at(self, t: float) -> float:
        """Return p at time `t`."""
        return max(0.0, self.pag_scale - self.pag_adaptive_scale * (1000 - t))


def guided_velocity(
    transformer: SanaTransformer, prompt: TextCondition, null: TextCondition | None, guidance: Guidance
) -> Callable[[Tensor, float], Tensor]:
    """Bind text and guidance: return (x, t) -> fp32 velocity, x being fp32 (B, C, h, w).

    The branches that a step needs run as one batch in the order [unconditional, conditional, perturbed]. `null`
    is required when `guidance.uses_null`. A transformer that embeds the scale is told it and runs one branch, so it has no use
    for `null`. Raises ValueError for a block that the transformer does not have, and for an interval or perturbed attention of
    a transformer that embeds the scale.
    """
    embeds = transformer.config.guidance_embeds
    if embeds and (guidance.interval != (0.0, 1.0) or guidance.pag_scale > 0):
        raise ValueError(
            "this model is told its guidance scale; it takes no interval and no perturbed attention"
        )
    depth = len(transformer.transformer_blocks)
    outside = [block for block in guidance.pag_blocks if not 0 <= block < depth]
    if outside:
        raise ValueError(f"pag_blocks has {outside[0]}; this transformer has blocks 0 to {depth - 1}")
    uses_null = guidance.uses_null and not embeds
    if uses_null and null is None:
        raise ValueError("guidance needs the unconditional text")
    dtype = transformer.proj_out.weight.dtype
    contexts: dict[tuple[bool, bool], TextContext] = {}

    def context_of(branches: list[TextCondition], key: tuple[bool, bool]) -> TextContext:
        if key not in contexts:
            contexts[key] = transformer.text_context(
                torch.cat([branch.embeddings for branch in branches]),
                torch.cat([branch.mask for branch in branches]),
            )
        return contexts[key]

    def velocity(x: Tensor, t: float) -> Tensor:
        acts = guidance.acts(t)
        use_null = null if uses_null and acts else None
        pag = guidance.pag_scale_at(t) if acts else 0.0
        branches = [*([use_null] if use_null else []), prompt, *([prompt] if pag > 0 else [])]
        batch = torch.cat([x] * len(branches))
        predicted = transformer(
            batch.to(dtype),
            torch.full((1,), t, device=x.device),
            context_of(branches, (use_null is not None, pag > 0)),
            guidance=torch.full((1,), guidance.scale, device=x.device) if embeds else None,
            identity_rows=len(x) if pag > 0 else 0,
            identity_blocks=guidance.pag_blocks if pag > 0 else (),
        ).float()
        parts = list(predicted.chunk(len(branches)))
        conditional = parts[1 if use_null else 0]
        result = parts[0] + guidance.scale * (conditional - parts[0]) if use_null else conditional
        return result + pag * (conditional - parts[-1]) if pag > 0 else result

    return velocity
