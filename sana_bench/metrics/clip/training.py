"""Contrastive training of the micro world's CLIP: seeded by step, resumable after a kill.

The loss is CLIP's symmetric cross-entropy with two changes that a small closed world needs. Captions repeat
within a batch, so the distinct captions are the classes and all images of one caption are its positives.
Every caption brings one hard negative (`hard_negatives`), because random captions of a batch rarely differ
in a single attribute.
"""

import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from open_clip import CLIP
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from sana_bench.metrics.clip.card import write_card, write_curve
from sana_bench.metrics.clip.micro_network import WordTokenizer, build_model, images_to_tensor, save_clip
from sana_bench.micro.captions import VOCABULARY, sample_training_batch
from sana_bench.micro.hard_negatives import hard_negative
from sana_models.training.state import StateFolder, identity_of

__all__ = ["ClipTraining", "contrastive_loss", "run_clip_training", "training_batch"]

# CLIP's ceiling on the learnt temperature: logits of at most 100 times the cosine.
_MAX_LOG_SCALE = math.log(100)


@dataclass(frozen=True, kw_only=True)
class ClipTraining:
    """Section `training` of the configuration; rate warms up linearly, then follows a cosine to zero."""

    steps: int
    batch_size: int
    learning_rate: float
    seed: int = 0
    warmup_steps: int = 50
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.98)
    gradient_clip: float = 1.0
    precision: str = "fp32"
    checkpoint_every: int = 50
    log_every: int = 5

    def __post_init__(self) -> None:
        if self.precision not in ("fp32", "bf16"):
            raise ValueError(f"training.precision is {self.precision!r}; allowed: fp32, bf16")
        if min(self.steps, self.batch_size - 1, self.checkpoint_every, self.log_every) < 1:
            raise ValueError(
                "training needs at least 1 step, 2 pairs a batch, and intervals of at least 1 step"
            )

    def rate(self, step: int) -> float:
        """Learning rate of `step`, counted from 0."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


@dataclass(frozen=True, eq=False)
class Batch:
    """Images, the id of each image's caption, and the texts: distinct captions first, then hard negatives."""

    images: NDArray[np.uint8]
    caption_ids: NDArray[np.int64]
    captions: list[str]
    negatives: list[str]


@dataclass
class _State:
    step: int = 0
    seconds: float = 0.0
    rows: list[dict[str, float]] = field(default_factory=list)


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


def run_clip_training(config: Mapping[str, Any], out: Path) -> None:
    """Train what `config` describes and export it to `out/clip`; continues an interrupted run in `out`.

    Leaves `state.pt` (atomic, every `checkpoint_every` steps) and the two before it, and in `out/clip` the weights with
    `curve.csv`, `curve.png` and a model card. Equal configurations give equal weights, interrupted or not.

    Raises:
        ValueError: unknown, missing or ill-fitting configuration values, or a state of another configuration in `out`.
        FloatingPointError: the loss or a weight is not finite.
    """
    settings, model_config = _parse(config)
    tokenizer = WordTokenizer(VOCABULARY, int(model_config["text_cfg"]["context_length"]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = build_model(model_config, tokenizer)
    optimizer = torch.optim.AdamW(
        _parameter_groups(model, settings.weight_decay), lr=settings.learning_rate, betas=settings.betas
    )
    states = StateFolder(out, identity_of(config))
    state = _restore(states, model, optimizer)
    if state.step > settings.steps:
        raise ValueError(
            f"{out / 'state.pt'} is at step {state.step}, past the {settings.steps} of the configuration"
        )
    _train(model, tokenizer, optimizer, settings, state, states)
    save_clip(model, tokenizer, model_config, out / "clip")
    write_curve(state.rows, out / "clip", title=str(config["name"]))
    write_card(out / "clip", config=config, steps=state.step, seconds=state.seconds)


def _train(
    model: CLIP,
    tokenizer: WordTokenizer,
    optimizer: torch.optim.Optimizer,
    settings: ClipTraining,
    state: _State,
    states: StateFolder,
) -> None:
    began = time.monotonic() - state.seconds
    # One thread renders the next batch while the current one trains: rendering is a sixth of a step.
    with ThreadPoolExecutor(max_workers=1) as pool, _progress() as progress:
        bar = progress.add_task("training", total=settings.steps, completed=state.step, loss=math.nan)

        def prepare(step: int) -> Any:
            return pool.submit(training_batch, settings.seed, step, settings.batch_size)

        upcoming = prepare(state.step)
        model.train()
        for step in range(state.step, settings.steps):
            batch = upcoming.result()
            if step + 1 < settings.steps:
                upcoming = prepare(step + 1)
            loss, hits = _one_step(model, tokenizer, optimizer, settings, step, batch)
            if not math.isfinite(loss):
                raise FloatingPointError(f"loss is {loss} at step {step}")
            state.step, state.seconds = step + 1, time.monotonic() - began
            last = state.step == settings.steps
            if step % settings.log_every == 0 or last:
                state.rows.append(
                    {"step": step, "loss": loss, "accuracy": hits, "seconds": round(state.seconds, 1)}
                )
            progress.update(bar, completed=state.step, loss=loss)
            if state.step % settings.checkpoint_every == 0 or last:
                _save(states, model, optimizer, state)
                if not progress.console.is_terminal:
                    progress.console.print(
                        f"step {state.step}/{settings.steps}  loss {loss:.4f}  {state.seconds:.0f} s"
                    )


def _one_step(
    model: CLIP,
    tokenizer: WordTokenizer,
    optimizer: torch.optim.Optimizer,
    settings: ClipTraining,
    step: int,
    batch: Batch,
) -> tuple[float, float]:
    for group in optimizer.param_groups:
        group["lr"] = settings.rate(step)
    ids = torch.from_numpy(batch.caption_ids)
    with torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bf16"):
        images = model.encode_image(images_to_tensor(batch.images), normalize=True)
        texts = model.encode_text(tokenizer(batch.captions + batch.negatives), normalize=True)
    images, texts = images.float(), texts.float()
    loss = contrastive_loss(images, texts, ids, len(batch.captions), model.logit_scale.exp())
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_clip)
    optimizer.step()
    with torch.no_grad():
        model.logit_scale.clamp_(0, _MAX_LOG_SCALE)
        hits = ((images @ texts.T).argmax(dim=1) == ids).float().mean()
    return loss.item(), hits.item()


def _parameter_groups(model: CLIP, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices and convolutions only, as CLIP trains."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    plain = [p for name, p in named if p.ndim < 2 or "embedding" in name]
    decayed = [p for name, p in named if not (p.ndim < 2 or "embedding" in name)]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


def _parse(config: Mapping[str, Any]) -> tuple[ClipTraining, Mapping[str, Any]]:
    _only_keys("", config, ("kind", "name", "data", "model", "training"))
    for section in ("model", "training"):
        if not isinstance(config.get(section), Mapping):
            raise ValueError(f"section {section!r} is missing or not a mapping")
    model, training = config["model"], dict(config["training"])
    _only_keys("model.", model, ("embed_dim", "vision_cfg", "text_cfg"))
    _only_keys("training.", training, tuple(entry.name for entry in fields(ClipTraining)))
    if "context_length" not in model.get("text_cfg", {}) or "vision_cfg" not in model:
        raise ValueError("model needs embed_dim, vision_cfg and text_cfg with context_length")
    if "betas" in training:
        training["betas"] = tuple(training["betas"])
    return ClipTraining(**training), model


def _only_keys(prefix: str, section: Mapping[str, Any], allowed: Sequence[str]) -> None:
    unknown = sorted(set(section) - set(allowed))
    if unknown:
        raise ValueError(f"unknown key '{prefix}{unknown[0]}'; allowed: {', '.join(allowed)}")


def _save(states: StateFolder, model: CLIP, optimizer: torch.optim.Optimizer, state: _State) -> None:
    content = {
        "step": state.step,
        "seconds": state.seconds,
        "rows": state.rows,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    states.save(content)


def _restore(states: StateFolder, model: CLIP, optimizer: torch.optim.Optimizer) -> _State:
    content = states.load()
    if content is None:
        return _State()
    model.load_state_dict(content["model"])
    optimizer.load_state_dict(content["optimizer"])
    return _State(content["step"], content["seconds"], content["rows"])


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, disable=not console.is_terminal)
