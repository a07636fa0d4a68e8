"""ImageReward: what people would say of an image for its prompt, by a network trained on their choices.

`image_reward/official@1` scores images as they are stored; `image_reward/sana-jpeg@1` sends them through the JPEG of
quality 75 that SANA's tools write, which is part of the published numbers. `image_reward/micro@1` is the same
network in small, trained on the micro world.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sana_bench.core.cut_texts import CutTexts
from sana_bench.core.errors import AssetError
from sana_bench.core.fingerprint import file_sha256
from sana_bench.core.preprocess import batches, clip_pixels, load_preset, prefetch
from sana_bench.core.samples import OVERALL, Sample
from sana_bench.metrics.base import (
    MetricAssets,
    ScoreRow,
    Summary,
    check_rows,
    missing_micro_weights,
)
from sana_bench.results.statistics.intervals import clustered_bootstrap
from sana_bench.suites.schema import MetricSpec

if TYPE_CHECKING:
    from sana_bench.metrics.image_reward.network import RewardNetwork, VisionSize, WordPieces

__all__ = ["BATCH", "FILES", "PROTOCOLS", "ImageReward", "RewardFiles", "build_image_reward"]

# What each protocol does to an image before the network's own resizing.
PROTOCOLS = {"image_reward/official@1": "png", "image_reward/sana-jpeg@1": "jpeg"}
MICRO_PROTOCOLS = {"image_reward/micro@1": "png"}

#: Weights, configuration and vocabulary, as assets of the full tier.
FILES = ("image_reward_weights", "image_reward_config", "bert_vocabulary")
#: Pairs that go through the network together.
BATCH = 8
_THREADS = 4


class RewardFiles:
    """The published files, or those of a micro folder; hashed when asked for their identity, loaded on first use."""

    def __init__(
        self, weights: Path, med_config: Path, vocabulary: Path, vision: "VisionSize | Path | None" = None
    ) -> None:
        """`vision` gives the sizes of the vision tower, or the file that does; the published ones by default."""
        self._paths = weights, med_config, vocabulary
        self._vision = vision

    @classmethod
    def of_folder(cls, folder: Path) -> "RewardFiles":
        """The files that the project's training leaves; raises `AssetError` when there is no such folder."""
        if not folder.is_dir():
            raise missing_micro_weights(folder, "image_reward", "configs/train/reward_micro.yaml")
        weights, text, vision = (
            folder / name for name in ("model.safetensors", "med_config.json", "vision_config.json")
        )
        return cls(weights, text, folder / "vocab.txt", vision)

    def identity(self) -> dict[str, Any]:
        """Hashes of all files; raises `AssetError` when one is missing."""
        return dict(self._hashes)

    @cached_property
    def _hashes(self) -> dict[str, str]:
        names = ["weights_sha256", "config_sha256", "vocabulary_sha256"]
        paths = [*self._paths]
        if isinstance(self._vision, Path):
            names, paths = [*names, "vision_sha256"], [*paths, self._vision]
        lacking = [str(path) for path in paths if not path.is_file()]
        if lacking:
            raise AssetError(f"{', '.join(lacking)}: missing; part of the reward network")
        return {name: file_sha256(path) for name, path in zip(names, paths, strict=True)}

    @cached_property
    def network(self) -> "RewardNetwork":
        from sana_bench.metrics.image_reward.network import load_reward_network, read_vision_size

        vision = read_vision_size(self._vision) if isinstance(self._vision, Path) else self._vision
        return load_reward_network(*self._paths[:2], vision)

    @cached_property
    def tokens(self) -> "WordPieces":
        from sana_bench.metrics.image_reward.network import WordPieces

        return WordPieces(self._paths[2])

    def rewards(self, pixels: np.ndarray, texts: Sequence[str], device: str) -> list[float]:
        """Rewards of at most `BATCH` pairs of prepared pixels (n, 3, size, size) and texts.

        Padded to the fixed size: a reward does not depend on what is scored with it.
        """
        import torch

        lacking = BATCH - len(texts)
        padded = np.concatenate([pixels, np.zeros((lacking, *pixels.shape[1:]), np.float32)])
        ids, mask = self.tokens([*texts, *[""] * lacking])
        network = self.network.to(device)
        with torch.inference_mode():
            values = network(torch.from_numpy(padded).to(device), ids.to(device), mask.to(device))
        return [float(value) for value in values[: len(texts)].cpu()]


class ImageReward:
    """One reward an image; the summary is the mean of prompt means."""

    name = "image_reward"
    higher_is_better = True

    def __init__(self, protocol: str, files: RewardFiles, device: str = "cpu") -> None:
        self.protocol = protocol
        self._codec = (PROTOCOLS | MICRO_PROTOCOLS)[protocol]
        self._files = files
        self._device = device

    def identity(self) -> dict[str, Any]:
        return {"metric": self.name, "protocol": self.protocol, **self._files.identity()}

    def cut_texts(self, samples: Sequence[Sample]) -> list[CutTexts]:
        """Prompts that the network reads without their end."""
        from sana_bench.metrics.image_reward.network import MAX_TOKENS

        texts = sorted({sample.prompt.text for sample in samples})
        return [CutTexts.count("its text encoder", MAX_TOKENS, self._files.tokens.cut(texts))]

    def score(self, samples: Sequence[Sample]) -> list[ScoreRow]:
        """One row per sample, in order; raises `ImageError` for a missing or damaged image."""
        size = self._files.network.image_size
        pixels = prefetch(
            lambda sample: clip_pixels(load_preset(sample.image_path, self._codec), size), samples, _THREADS
        )
        rows = []
        for batch in batches(zip(samples, pixels, strict=True), BATCH):
            texts = [sample.prompt.text for sample, _ in batch]
            values = self._files.rewards(np.stack([image for _, image in batch]), texts, self._device)
            rows += [
                ScoreRow(sample.id, sample.prompt.id, sample.prompt.tag, value)
                for (sample, _), value in zip(batch, values, strict=True)
            ]
        return rows

    def summarise(self, rows: Sequence[ScoreRow], n_expected: int, seed: int) -> list[Summary]:
        """The mean of prompt means, with a 95 % bootstrap interval over prompts."""
        check_rows(self.name, rows, n_expected)
        by_prompt: dict[str, list[float]] = {}
        for row in rows:
            by_prompt.setdefault(row.prompt_id, []).append(row.value)
        prompts = sorted(by_prompt)
        means = [float(np.mean(sorted(by_prompt[prompt]))) for prompt in prompts]
        interval = clustered_bootstrap(means, prompts, seed=seed)
        return [
            Summary(
                metric=self.name, protocol=self.protocol, key=OVERALL, value=interval.value, low=interval.low,
                high=interval.high, n_samples=len(rows), n_expected=n_expected, n_prompts=len(prompts),
                unit="reward", higher_is_better=self.higher_is_better, note="mean of prompt means",
            )
        ]  # fmt: skip


def build_image_reward(tier: str, assets: MetricAssets, choice: MetricSpec) -> ImageReward:
    """ImageReward of `tier`, by the protocol of `choice` or the tier's first.

    Raises:
        SuiteError: a protocol that the tier does not have, or parameters, of which it has none.
        AssetError: weights, configuration or vocabulary are missing.
    """
    from sana_bench.assets.required import required

    protocol = choice.pick(tuple(MICRO_PROTOCOLS if tier == "micro" else PROTOCOLS))
    choice.parameters_among({})
    if tier == "micro":
        return ImageReward(protocol, RewardFiles.of_folder(assets.weights_dir / "reward"))
    weights, med_config, vocabulary = required("image_reward", FILES)
    return ImageReward(protocol, RewardFiles(weights, med_config, vocabulary), assets.device)
