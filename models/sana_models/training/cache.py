"""Latents and caption tokens computed once and read many times.

Shards are written atomically, so an interrupted preparation continues with the first missing one.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sana_models.dc_ae import DCAE
from sana_models.files import plain, read_text, write_whole
from sana_models.training.autoencoder import Source, images_to_tensor
from sana_models.training.progress import training_progress

__all__ = ["LatentCache", "encoded_samples", "prepare_cache"]

_SHARD = 2048
_BATCH = 64


class LatentCache:
    """Normalised latents (n, C, h, w), token ids (n, T) and masks in memory; latents in half precision."""

    def __init__(self, latents: Tensor, ids: Tensor, mask: Tensor) -> None:
        self.latents, self.ids, self.mask = latents, ids, mask
        self._last: list[int] = []

    def batch_size(self, step: int, default: int) -> int:
        """Return `default`: the same at every step."""
        return default

    def batch(
        self, step: int, size: int, rows: slice, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Draw `size` samples with replacement; return the fp32 latents, int64 ids and masks of `rows` of them."""
        index = torch.randint(len(self.latents), (size,), generator=generator)[rows]
        self._last = index.tolist()
        return self.latents[index].float(), self.ids[index].long(), self.mask[index].long()

    def last_names(self) -> list[str]:
        """Return the names of the samples returned last."""
        return [f"cached sample {number}" for number in self._last]


def prepare_cache(
    autoencoder: DCAE,
    source: Source,
    tokenize: Callable[[list[str]], tuple[Tensor, Tensor]],
    folder: Path,
    *,
    seed: int,
    count: int,
    identity: str = "",
) -> LatentCache:
    """Encode `count` samples of `source` (rounded up to whole shards) into `folder` and load them.

    `identity` tells what the samples were made with; raises ValueError for a folder of another one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / "identity.txt"
    wanted = f"{identity} seed {seed}\n"
    if note.is_file() and read_text(note) != wanted:
        raise ValueError(
            f"{folder}: holds the cache of another autoencoder, tokenizer or seed; give another folder"
        )
    note.write_text(wanted, encoding="utf-8")
    shards = -(-count // _SHARD)
    with training_progress(shards, 0) as report:
        for shard in range(shards):
            path = folder / f"{shard:05d}.npz"
            if not path.exists():
                _write_shard(path, autoencoder, source, tokenize, seed=seed, first=shard * (_SHARD // _BATCH))
            report(shard + 1, "shards of latents")
    parts = [np.load(plain(folder / f"{shard:05d}.npz"), allow_pickle=False) for shard in range(shards)]
    stacked = [
        torch.from_numpy(np.concatenate([part[key] for part in parts])) for key in ("latents", "ids", "mask")
    ]
    return LatentCache(*stacked)


@torch.no_grad()
def encoded_samples(
    autoencoder: DCAE, source: Source, seed: int, first: int, count: int
) -> tuple[np.ndarray, list[str]]:
    """Return the normalised latents (n, C, h, w) in half precision, and captions, of `count` samples from batch `first` on."""
    latents, captions = [], []
    device = next(autoencoder.parameters()).device
    for index in range(first, first + -(-count // _BATCH)):
        images, texts = source(seed, index, _BATCH)
        raw = autoencoder.encode(images_to_tensor(images).to(device))
        latents.append(autoencoder.normalise(raw).half().cpu().numpy())
        captions += texts
    return np.concatenate(latents)[:count], captions[:count]


def _write_shard(
    path: Path,
    autoencoder: DCAE,
    source: Source,
    tokenize: Callable[[list[str]], tuple[Tensor, Tensor]],
    *,
    seed: int,
    first: int,
) -> None:
    latents, captions = encoded_samples(autoencoder, source, seed, first, _SHARD)
    ids, mask = tokenize(captions)
    words, used = ids.short().numpy(), mask.to(torch.uint8).numpy()
    write_whole(path, lambda stream: np.savez(stream, latents=latents, ids=words, mask=used))
