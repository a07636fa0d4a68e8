"""ImageReward as a judge of inference-time scaling: the metric's own network, files and preparation of images."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from sana_bench.assets.locate import MICRO_SCHEME, micro_weights_root, resolve_folder
from sana_bench.assets.required import found_files
from sana_bench.core.preprocess import clip_pixels
from sana_bench.generators.best_of_n.tournament import Answer
from sana_bench.metrics.image_reward.metric import BATCH, FILES, RewardFiles

__all__ = ["MICRO_WEIGHTS", "ImageRewardJudge", "find_reward_files"]

MICRO_WEIGHTS = f"{MICRO_SCHEME}reward"


class ImageRewardJudge:
    """`yes` is the reward, `no` its negative, so the larger reward always wins; prepared as for `image_reward/official@1`."""

    def __init__(self, files: RewardFiles, device: str) -> None:
        self._files = files
        self._device = device

    def load(self) -> None:
        """Raises `AssetError` for files that are not ImageReward's."""
        self._files.network.to(self._device)
        _ = self._files.tokens

    def identity(self) -> dict[str, Any]:
        return {"judge": "image_reward@1", **self._files.identity()}

    def judge(self, prompts: Sequence[str], images: np.ndarray) -> list[Answer]:
        size = self._files.network.image_size
        pairs = iter(zip(prompts, images, strict=True))
        answers: list[Answer] = []
        while batch := list(islice(pairs, BATCH)):
            pixels = np.stack([clip_pixels(image, size) for _, image in batch])
            rewards = self._files.rewards(pixels, [prompt for prompt, _ in batch], self._device)
            answers += [Answer(reward, -reward) for reward in rewards]
        return answers


def find_reward_files(weights: str | None, relative_to: Path) -> RewardFiles:
    """Return the files that the metric reads, or those of the folder `weights` in the layout of this project's training.

    Raises `AssetError` naming every missing one and how to get it.
    """
    if weights is None:
        return RewardFiles(*found_files("judge image_reward", FILES))
    if weights == MICRO_WEIGHTS:
        return RewardFiles.of_folder(micro_weights_root() / "reward")
    return RewardFiles.of_folder(resolve_folder(weights, relative_to))
