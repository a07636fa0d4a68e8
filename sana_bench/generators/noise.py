"""Initial noise that belongs to the sample: not to the batch, the order, the worker or the device."""

import hashlib
from typing import TYPE_CHECKING

from sana_bench.suites.cells import NOISE_VERSION

__all__ = ["candidate_seed", "sample_noise"]

if TYPE_CHECKING:
    from torch import Tensor


def candidate_seed(seed: int, candidate: int) -> int:
    """Return the seed in [0, 2**63) of one candidate for a sample whose own noise seed is `seed`; candidate 0 has that one."""
    if candidate == 0:
        return seed
    digest = hashlib.sha256(f"{NOISE_VERSION} candidate {seed} {candidate}".encode()).digest()
    return int.from_bytes(digest[:8], "little") & (2**63 - 1)


def sample_noise(seed: int, shape: tuple[int, ...]) -> "Tensor":
    """Return standard normal float32 noise of `shape`, (C, h, w) or (draws, C, h, w), always drawn on the CPU.

    torch's CPU generator starts from the lower 32 bits of the seed, so among n samples about n^2 / 2^33 pairs
    share their noise; the prompts of such a pair differ.
    """
    import torch

    generator = torch.Generator(device="cpu").manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
