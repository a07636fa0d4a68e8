"""NVILA's three parts put together: SigLIP, a projector that merges neighbours, and Qwen2 that reads tokens of both kinds."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sana_models.libraries import without_torchao

with without_torchao():
    from transformers import Qwen2ForCausalLM, SiglipVisionModel

__all__ = ["NVILA", "Projector", "merge_neighbours"]

# Tiles that go through the vision tower together; all its hidden states are kept that long.
_TILES_AT_ONCE = 8


def merge_neighbours(x: Tensor, merge: int) -> Tensor:
    """Put the channels of `merge` x `merge` neighbours side by side: (B, S * S, C) to (B, ceil(S / merge)^2, merge^2 C).

    Tokens stand row by row, and so do neighbours in the result; the grid is filled with zeros on the right and below.
    Raises ValueError when the tokens form no square.
    """
    n, length, channels = x.shape
    side = math.isqrt(length)
    if side * side != length:
        raise ValueError(f"{length} tokens do not make a square")
    lacking = -side % merge
    grid = F.pad(x.reshape(n, side, side, channels), (0, 0, 0, lacking, 0, lacking))
    grid = grid.unflatten(2, (-1, merge)).unflatten(1, (-1, merge))
    return grid.transpose(2, 3).reshape(n, -1, merge * merge * channels)


class Projector(nn.Module):
    """Vision features to the language model's vectors. Layers have the numbers of the published weights; 0 is the merging."""

    def __init__(self, merge: int, vision_width: int, width: int) -> None:
        super().__init__()
        self.merge = merge
        merged = merge * merge * vision_width
        # The published 3x3 projector has a stage in between, the 2x2 one none.
        middle = 3 * vision_width if merge == 3 else None
        layers: list[nn.Module] = [nn.Identity(), nn.LayerNorm(merged)]
        if middle is not None:
            layers += [nn.Linear(merged, middle), nn.GELU(), nn.LayerNorm(middle)]
        layers += [nn.Linear(middle or merged, width), nn.GELU(), nn.Linear(width, width)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S * S, vision width) to (B, ceil(S / merge)^2, width)."""
        return self.layers(merge_neighbours(x, self.merge))


class NVILA(nn.Module):
    """Source: NVlabs/VILA, `llava/remote_code` (Apache-2.0), as it runs for one question about one image."""

    def __init__(
        self,
        llm: Qwen2ForCausalLM,
        vision_tower: SiglipVisionModel,
        mm_projector: Projector,
        *,
        select_layer: int,
    ) -> None:
        super().__init__()
        self.llm, self.vision_tower, self.mm_projector = llm, vision_tower, mm_projector
        self.select_layer = select_layer

    def see(self, tiles: Tensor) -> Tensor:
        """Normalised tiles (T, 3, S, S) to vectors (T, N, D) of the language model."""
        found = []
        for part in tiles.split(_TILES_AT_ONCE):
            states = self.vision_tower(part, output_hidden_states=True).hidden_states
            found.append(self.mm_projector(states[self.select_layer]))
        return torch.cat(found)

    def splice(self, ids: Tensor, image_id: int, seen: Tensor, end: Tensor) -> Tensor:
        """Token ids (L,) to vectors: the k-th `image_id` becomes `seen[k]` (of (T, N, D)) and the tokens `end` (E,).

        Returns (L + T * (N + E - 1), D). Raises ValueError unless `ids` holds `image_id` T times.
        """
        embed = self.llm.get_input_embeddings()
        places = (ids == image_id).nonzero()[:, 0].tolist()
        if len(places) != len(seen):
            raise ValueError(f"{len(places)} image tokens for {len(seen)} tiles")
        closing = embed(end)
        pieces, start = [], 0
        for place, block in zip(places, seen, strict=True):
            pieces += [embed(ids[start:place]), block, closing]
            start = place + 1
        return torch.cat([*pieces, embed(ids[start:])])

    def first_logits(self, sequences: Sequence[Tensor]) -> Tensor:
        """Logits (B, vocabulary) of the token after each sequence of vectors (L_b, D)."""
        longest = max(map(len, sequences))
        vectors = torch.stack([F.pad(one, (0, 0, longest - len(one), 0)) for one in sequences])
        mask = torch.zeros(vectors.shape[:2], dtype=torch.long, device=vectors.device)
        for row, one in zip(mask, sequences, strict=True):
            row[longest - len(one) :] = 1
        # Positions count from each sequence's own start.
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        found = self.llm(
            inputs_embeds=vectors,
            attention_mask=mask,
            position_ids=positions,
            use_cache=False,
            logits_to_keep=1,
        )
        return found.logits[:, -1]
