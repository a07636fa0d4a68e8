"""Contrastive training of the micro world's CLIP, through the loop that trains SANA.

The loss is CLIP's symmetric cross-entropy with two changes that a small closed world needs. Captions repeat
within a batch, so the distinct captions are the classes and all images of one caption are its positives.
Every caption brings one hard negative (`hard_negatives`), because random captions of a batch rarely differ
in a single attribute.
"""

import math
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from numpy.typing import NDArray
from torch import Tensor, nn

from sana_bench.metrics.clip.card import write_card
from sana_bench.metrics.clip.micro_network import (
    WordTokenizer,
    build_model,
    images_to_tensor,
    load_clip,
    save_clip,
)
from sana_bench.metrics.training import Sections, export_curve, go_on_from, parameter_groups, read_sections
from sana_bench.micro.captions import VOCABULARY, sample_training_batch
from sana_bench.micro.hard_negatives import hard_negative
from sana_models.training.loop import TrainingResult, train
from sana_models.training.loop_config import LoopConfig

__all__ = ["ClipTask", "contrastive_loss", "run_clip_training", "training_batch"]

# What a configuration leaves out, where CLIP trains otherwise than the loop's defaults: the last weights are kept, no average.
_DEFAULTS = {
    "warmup_steps": 50,
    "weight_decay": 0.1,
    "betas": (0.9, 0.98),
    "ema_decay": 0.0,
    "precision": "fp32",
    "checkpoint_every": 50,
    "log_every": 5,
}
# CLIP's ceiling on the learnt temperature: logits of at most 100 times the cosine.
_MAX_LOG_SCALE = math.log(100)


@dataclass(frozen=True, eq=False)
class Batch:
    """Images, the id of each image's caption, and the texts: distinct captions first, then hard negatives."""

    images: NDArray[np.uint8]
    caption_ids: NDArray[np.int64]
    captions: list[str]
    negatives: list[str]


def training_batch(seed: int, step: int, size: int) -> Batch:
    """Batch of one step; a pure function of its arguments."""
    images, texts = sample_training_batch(seed, step, size)
    captions = sorted(set(texts))
    position = {caption: index for index, caption in enumerate(captions)}
    rng = np.random.default_rng([seed, step, 1])
    wrong = {hard_negative(caption, rng) for caption in captions}
    negatives = sorted(text for text in wrong if text is not None and text not in position)
    return Batch(images, np.array([position[text] for text in texts]), captions, negatives)


def contrastive_loss(
    images: Tensor, texts: Tensor, caption_ids: Tensor, n_captions: int, scale: Tensor
) -> Tensor:
    """Mean of image-to-text and text-to-image cross-entropy.

    Args:
        images: unit features (B, D).
        texts: unit features (C + H, D): one per distinct caption, then hard negatives, which no image
        matches. caption_ids: (B,), the caption of each image. Every caption has an image.
        n_captions: C.
        scale: factor on the cosines.
    """
    logits = scale * images @ texts.T
    to_text = F.cross_entropy(logits, caption_ids)
    # Each caption's target is uniform over its images; other images of the same caption are never negatives.
    matches = F.one_hot(caption_ids, n_captions).T.to(logits.dtype)
    to_image = F.cross_entropy(logits[:, :n_captions].T, matches / matches.sum(dim=1, keepdim=True))
    return (to_text + to_image) / 2


class ClipTask:
    """What the loop trains: an image and a text tower that put an image beside its caption."""

    def __init__(self, model_config: Mapping[str, Any], loop: LoopConfig, start: Path | None = None) -> None:
        self._loop = loop
        self.tokenizer = WordTokenizer(VOCABULARY, int(model_config["text_cfg"]["context_length"]))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(loop.seed)
            self.network = build_model(model_config, self.tokenizer)
        if start is not None:
            go_on_from(self.network, load_clip(start).model.state_dict(), start)
        self.modules: dict[str, nn.Module] = {"clip": self.network}
        # One thread renders the next batch while the current one trains: rendering is a sixth of a step.
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._upcoming: dict[int, Future[Batch]] = {}

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Weight decay on matrices and convolutions only, as CLIP trains."""
        return parameter_groups(self.modules, learning_rate)

    def loss(self, step: int, batch_size: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """`contrastive_loss` of `batch_size` pairs, and the share of images that are nearest to their own caption."""
        self.limit_scale()
        batch = self._batch(step, batch_size)
        ids = torch.from_numpy(batch.caption_ids)
        images = self.network.encode_image(images_to_tensor(batch.images), normalize=True)
        texts = self.network.encode_text(self.tokenizer(batch.captions + batch.negatives), normalize=True)
        with torch.autocast("cpu", enabled=False):
            images, texts = images.float(), texts.float()
            scale = self.network.logit_scale.exp()
            loss = contrastive_loss(images, texts, ids, len(batch.captions), scale)
            with torch.no_grad():
                hits = ((images @ texts.T).argmax(dim=1) == ids).float().mean()
        return loss, {"accuracy": hits.item()}

    def limit_scale(self) -> None:
        """Bring the temperature back below its ceiling after a step."""
        with torch.no_grad():
            self.network.logit_scale.clamp_(0, _MAX_LOG_SCALE)

    def _batch(self, step: int, size: int) -> Batch:
        ready = self._upcoming.pop(step, None)
        if step + 1 < self._loop.steps:
            self._upcoming[step + 1] = self._pool.submit(training_batch, self._loop.seed, step + 1, size)
        return ready.result() if ready is not None else training_batch(self._loop.seed, step, size)


def run_clip_training(config: Mapping[str, Any], out: Path, *, fresh: bool = False) -> TrainingResult:
    """Train what `config` describes and export it to `out/clip`; continues an interrupted run in `out`, unless
    `fresh`.

    `out/clip` gets the weights with `curve.csv`, `curve.png` and a model card. Equal configurations give equal weights,
    interrupted or not.

    Raises:
        ValueError: unknown, missing or ill-fitting configuration values, or a state of another configuration in `out`.
        AssetError: the weights to start from are missing or damaged.
        FloatingPointError: as `loop.train`.
    """
    settings = _parse(config)
    task = ClipTask(settings.model, settings.loop, settings.start)
    result = train(task, settings.loop, out, identity=config, fresh=fresh)
    task.limit_scale()
    folder = out / "clip"
    save_clip(task.network, task.tokenizer, settings.model, folder)
    order = ("step", "loss", "accuracy", "seconds")
    export_curve(out, folder, ("loss", "accuracy"), settings.name, order)
    write_card(folder, config=yaml.safe_dump(dict(config), sort_keys=False), result=result)
    return result


def _parse(config: Mapping[str, Any]) -> Sections:
    found = read_sections(config, (), ("embed_dim", "vision_cfg", "text_cfg"), _DEFAULTS)
    if "context_length" not in found.model.get("text_cfg", {}) or "vision_cfg" not in found.model:
        raise ValueError("model needs embed_dim, vision_cfg and text_cfg with context_length")
    if found.loop.batch_size < 2:
        raise ValueError("training.batch_size is at least 2 pairs: each is the other's wrong one")
    return found
