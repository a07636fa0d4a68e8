"""Depth growth: a deeper transformer that starts as a trained shallower one (SANA-1.5, arXiv 2501.18427, section 2.1).

Three strategies for N kept source blocks and depth D:

- `partial_preservation` (the paper's choice): blocks 0..N-1 are the source's, the others drawn anew;
- `cyclic_replication`: block i is a copy of source block i mod N;
- `block_replication`: source block i becomes blocks r i .. r i + r - 1, r = D / N.

With identity start (the default) the output projections of self-attention, cross-attention and feed-forward of every
block that is not a first copy are zero. Such a block adds exactly nothing, so the grown network computes what the kept
blocks and the output layer compute; its gradients are not zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sana_models.config import QK_NORM
from sana_models.transformer import SanaTransformer

__all__ = ["STRATEGIES", "Growth", "grow_transformer", "take_blocks"]

STRATEGIES = ("partial_preservation", "cyclic_replication", "block_replication")

_BLOCKS = "transformer_blocks"
#: Zero in a block that starts as the identity; the last convolution has no bias.
_OUTPUTS = (
    "attn1.to_out.0.weight",
    "attn1.to_out.0.bias",
    "attn2.to_out.0.weight",
    "attn2.to_out.0.bias",
    "ff.conv_point.weight",
)
_ZERO_BIASES = (
    "attn1.to_out.0.bias",
    "attn2.to_out.0.bias",
    "attn2.to_q.bias",
    "attn2.to_k.bias",
    "attn2.to_v.bias",
)
# Standard deviations of new weights in the published growth code; the paper gives none.
_DEPTHWISE_STD, _STD = 0.2, 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """How to grow: to `depth` blocks from the first `keep` of the source.

    `keep` of None is two fewer than the source has: with its last two blocks, which are specialised to produce the output, new
    ones after them stayed stuck in the paper. `qk_norm` adds the query-key norm to a source without it, which changes
    the function (the paper lets it adapt in training). `seed` is that of the new weights.
    """

    depth: int
    keep: int | None = None
    strategy: str = "partial_preservation"
    identity_start: bool = True
    qk_norm: bool = False
    seed: int = 0

    def kept(self, source_depth: int) -> int:
        """Return how many source blocks are used; raises ValueError when the plan does not fit the source."""
        keep = max(1, source_depth - 2) if self.keep is None else self.keep
        if self.strategy not in STRATEGIES:
            raise ValueError(f"strategy is {self.strategy!r}; allowed: {', '.join(STRATEGIES)}")
        if not 1 <= keep <= source_depth:
            raise ValueError(f"keep is {keep}; the source has {source_depth} blocks")
        if self.depth <= keep:
            raise ValueError(f"depth is {self.depth}; growing from {keep} kept blocks needs more")
        if self.strategy == "block_replication" and self.depth % keep:
            raise ValueError(
                f"depth is {self.depth}; block replication needs a multiple of the {keep} kept blocks"
            )
        return keep

    def sources(self, source_depth: int) -> list[int | None]:
        """Return for every block of the grown model the source block it copies, None for a new one."""
        keep = self.kept(source_depth)
        if self.strategy == "cyclic_replication":
            return [index % keep for index in range(self.depth)]
        if self.strategy == "block_replication":
            return [index // (self.depth // keep) for index in range(self.depth)]
        return [index if index < keep else None for index in range(self.depth)]


def grow_transformer(source: SanaTransformer, growth: Growth) -> SanaTransformer:
    """Return a transformer of `growth.depth` blocks in the source's dtype and on its device, sharing no memory with it.

    Raises ValueError when the plan does not fit the source.
    """
    sources = growth.sources(source.config.num_layers)
    config = replace(source.config, num_layers=growth.depth)
    if growth.qk_norm:
        config = replace(config, qk_norm=QK_NORM)
    with torch.device("meta"):
        grown = SanaTransformer(config)
    old = source.state_dict()
    state = {key: value.clone() for key, value in old.items() if not key.startswith(f"{_BLOCKS}.")}
    example = source.proj_out.weight
    generator = torch.Generator().manual_seed(growth.seed)
    seen: set[int] = set()
    for index, origin in enumerate(sources):
        is_first = origin is not None and origin not in seen
        if origin is not None:
            seen.add(origin)
        for key in _block_keys(grown):
            value = old.get(f"{_BLOCKS}.{origin}.{key}")
            if not is_first and growth.identity_start and key in _OUTPUTS:
                value = torch.zeros(_shape(grown, key))
            elif value is None:
                value = _new_values(key, _shape(grown, key), generator)
            # `to` may return the source's own tensor.
            state[f"{_BLOCKS}.{index}.{key}"] = value.to(example.device, example.dtype, copy=True)
    grown.load_state_dict(state, assign=True)
    return grown.train(source.training).requires_grad_(example.requires_grad)


def take_blocks(source: SanaTransformer, indices: Sequence[int]) -> SanaTransformer:
    """Return a transformer of the source's blocks at `indices`, in that order, and copies of everything else.

    Raises ValueError for no blocks, a repeated one, or one that the source does not have.
    """
    depth = source.config.num_layers
    if not indices or len(set(indices)) != len(indices) or not set(indices) <= set(range(depth)):
        raise ValueError(f"blocks are {list(indices)}; expected different ones of 0 to {depth - 1}")
    with torch.device("meta"):
        model = SanaTransformer(replace(source.config, num_layers=len(indices)))
    state = {}
    for key, value in source.state_dict().items():
        parts = key.split(".")
        if parts[0] != _BLOCKS:
            state[key] = value.clone()
        elif int(parts[1]) in indices:
            position = list(indices).index(int(parts[1]))
            state[".".join([_BLOCKS, str(position), *parts[2:]])] = value.clone()
    model.load_state_dict(state, assign=True)
    return model.train(source.training).requires_grad_(source.proj_out.weight.requires_grad)


def _block_keys(model: SanaTransformer) -> list[str]:
    return list(model.transformer_blocks[0].state_dict())


def _shape(model: SanaTransformer, key: str) -> torch.Size:
    return model.transformer_blocks[0].state_dict()[key].shape


def _new_values(key: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Draw one tensor of a new block as the published growth code does."""
    if key.endswith(("norm_q.weight", "norm_k.weight")):
        return torch.ones(shape)
    if key in _ZERO_BIASES:
        return torch.zeros(shape)
    std = _DEPTHWISE_STD if key.startswith("ff.conv_depth.") else _STD
    return std * torch.randn(shape, generator=generator)
