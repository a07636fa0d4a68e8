"""Judges of searches that are a metric's own network: the CLIP score and ImageReward.

They answer no questions and use what metrics are made of, so they are not in `sana_bench.judges`. `yes` is the score and `no` its
negative, so the larger score always wins.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sana_bench.assets.locate import MICRO_SCHEME, micro_weights_root, resolve_folder
from sana_bench.assets.required import found_files
from sana_bench.core.errors import SuiteError
from sana_bench.core.preprocess import batches, clip_pixels
from sana_bench.judges.base import YesNo, needs_fp32
from sana_bench.metrics.clip.micro_features import ClipFeatures
from sana_bench.metrics.image_reward.metric import BATCH, FILES, RewardFiles
from sana_bench.suites.schema import JudgeSpec

__all__ = ["ClipJudge", "ImageRewardJudge", "build_clip_score", "build_image_reward"]

_MICRO_REWARD = f"{MICRO_SCHEME}reward"


class ClipJudge:
    """The micro tier's CLIP score."""

    def __init__(self, folder: Path) -> None:
        self._features = ClipFeatures(folder)

    def load(self) -> None:
        _ = self._features.network

    def identity(self) -> dict[str, Any]:
        return {"judge": "clip_score@1", **self._features.identity()}

    def judge(self, prompts: Sequence[str], images: NDArray[np.uint8]) -> list[YesNo]:
        """Raises `SuiteError` for images of another size than the network reads."""
        network = self._features.network
        size = network.image_size
        if images.shape[1:3] != (size, size):
            found = f"{images.shape[2]}x{images.shape[1]}"
            raise SuiteError(f"judge clip_score reads {size}x{size} pixels, the variant makes {found}")
        seen = network.encode_images(images).astype(np.float64)
        scores = 100 * np.sum(seen * self._features.of_texts(prompts).astype(np.float64), axis=1)
        return [YesNo(float(score), -float(score)) for score in scores]


class ImageRewardJudge:
    """The reward of the metric's network, images prepared as for `image_reward/official@1`."""

    def __init__(self, files: RewardFiles, device: str) -> None:
        self._files = files
        self._device = device

    def load(self) -> None:
        """Raises `AssetError` for files that are not ImageReward's."""
        self._files.network.to(self._device)
        _ = self._files.tokens

    def identity(self) -> dict[str, Any]:
        return {"judge": "image_reward@1", **self._files.identity()}

    def judge(self, prompts: Sequence[str], images: NDArray[np.uint8]) -> list[YesNo]:
        size = self._files.network.image_size
        found: list[YesNo] = []
        for batch in batches(zip(prompts, images, strict=True), BATCH):
            pixels = np.stack([clip_pixels(image, size) for _, image in batch])
            rewards = self._files.rewards(pixels, [prompt for prompt, _ in batch], self._device)
            found += [YesNo(reward, -reward) for reward in rewards]
        return found


def build_clip_score(spec: JudgeSpec, relative_to: Path, device: str) -> ClipJudge:
    """The judge `clip_score`; raises `SuiteError` for weights, of which it has its own."""
    if spec.weights is not None:
        raise SuiteError("best_of_n.judge: clip_score is the micro tier's own and takes no weights")
    return ClipJudge(micro_weights_root() / "clip")


def build_image_reward(spec: JudgeSpec, relative_to: Path, device: str) -> ImageRewardJudge:
    """The judge `image_reward`, of the files that the metric reads or of a folder as this project's training leaves it.

    Raises `SuiteError` for another precision than fp32 and `AssetError` naming every missing file and how to get it.
    """
    needs_fp32(spec)
    if spec.weights is None:
        files = RewardFiles(*found_files("judge image_reward", FILES))
    elif spec.weights == _MICRO_REWARD:
        files = RewardFiles.of_folder(micro_weights_root() / "reward")
    else:
        files = RewardFiles.of_folder(resolve_folder(spec.weights, relative_to))
    return ImageRewardJudge(files, device)
