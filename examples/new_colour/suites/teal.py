"""A metric of one's own: how much of what an image shows is teal."""

import numpy as np

from sana_bench.micro.world import COLORS

TEAL = (20, 150, 150)
PALETTE = np.array([TEAL, *COLORS.values()], float)


def teal_share(image: np.ndarray, prompt: str) -> float:
    """Share of the pixels unlike the background that are nearer to teal than to any colour of the micro world."""
    pixels = image.reshape(-1, 3).astype(float)
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    shown = pixels[np.abs(pixels - np.median(border, axis=0)).max(axis=1) > 48]
    if not len(shown):
        return 0.0
    nearest = np.square(shown[:, None] - PALETTE).sum(axis=2).argmin(axis=1)
    return float((nearest == 0).mean())
