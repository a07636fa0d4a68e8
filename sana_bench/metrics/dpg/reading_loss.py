"""What teaches a decoder to read: where to look for each letter, and what it would say if it looked there alone.

An answer's own loss teaches neither at first: of some seventy tokens that the decoder looks at, one has the letter, and until
looking and naming both work, neither pays.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sana_bench.judges.mplug.layers import BertLayer
from sana_bench.judges.mplug.network import PAD, MPlugVQA

__all__ = ["reading_loss"]

# Below this share of attention nothing more is learnt from how small it is.
_SMALLEST_SHARE = 1e-6


def reading_loss(
    network: MPlugVQA,
    answers: Tensor,
    context: list[tuple[Tensor, Tensor]],
    visible: Tensor,
    glimpses: Tensor,
) -> Tensor:
    """Mean over letters of two cross-entropies: of the last layer's attention against the letter's patch, and of the letter when
    that layer sees nothing but the patch.

    answers (B, T) are ids from start to end; context and visible (B, S) are those of `MPlugVQA.known`; glimpses (B, .) has the
    patch that each token after the start is read from, -1 for none. Zero where nothing is read.
    """
    rows = (glimpses >= 0).any(dim=1).nonzero()[:, 0]
    if not len(rows):
        return visible.new_zeros((), dtype=torch.float32)
    words = answers[rows]
    # To the length of what is predicted: every token but the first.
    patches = F.pad(glimpses[rows], (0, words.shape[1] - 1 - glimpses.shape[1]), value=-1)
    decoder: Any = network.text_decoder.bert
    x = decoder.embeddings(words[:, :-1])[:, None]
    *earlier, last = decoder.encoder.layer.values()
    kept = [(keys[rows], values[rows]) for keys, values in context]
    seen = visible[rows]
    for layer, keys_values in zip(earlier, kept, strict=False):
        x = layer.decode(x, keys_values, seen[:, None, None, :])
    read = patches >= 0
    # The class token stands before the patches.
    places = torch.where(read, patches + 1, 0)
    shares = _attention(last, x[:, 0], kept[-1][0], seen)[read]
    looking = -torch.log(shares.gather(1, places[read][:, None]).clamp_min(_SMALLEST_SHARE)).mean()
    alone = F.one_hot(places, seen.shape[1]).bool()
    hidden = last.decode(x, kept[-1], torch.where(read[..., None], alone, seen[:, None])[:, None])[:, 0]
    targets = torch.where(read, words[:, 1:], PAD)
    naming = F.cross_entropy(network.logits(hidden).transpose(1, 2), targets, ignore_index=PAD)
    return (looking + naming).float()


def _attention(layer: BertLayer, x: Tensor, keys: Tensor, seen: Tensor) -> Tensor:
    """Mean over heads of what a decoder layer's words (B, T, D) look at in a context, (B, T, S)."""
    x = layer.attention(x, None, causal=True)
    cross = layer.crossattention
    queries = cross.self.query(x).unflatten(2, (cross.heads, -1)).transpose(1, 2)
    scores = queries @ keys.transpose(-1, -2) / math.sqrt(queries.shape[-1])
    return scores.masked_fill(~seen[:, None, None, :], -math.inf).softmax(dim=-1).mean(dim=1)
