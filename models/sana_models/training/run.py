"""From a training configuration to a finished checkpoint folder."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sana_models.checkpoints import load_autoencoder, save_autoencoder, save_pretrained
from sana_models.dc_ae import DCAE
from sana_models.text import TextEncoder, make_word_tokenizer
from sana_models.training.autoencoder import AutoencoderTask, Source, latent_statistics
from sana_models.training.cache import prepare_cache
from sana_models.training.curve import plot_curve
from sana_models.training.loop import TrainingResult, train
from sana_models.training.settings import AutoencoderSettings, TextToImageSettings
from sana_models.training.text_to_image import TextToImageTask
from sana_models.transformer import SanaTransformer

__all__ = ["run_training"]


def run_training(
    config: Mapping[str, Any], out: Path, *, source: Source, vocabulary: tuple[str, ...] = ()
) -> TrainingResult:
    """Train what `config` describes and export it under `out`; continues a run that was interrupted there.

    `kind: dc_ae` writes `out/vae`, `kind: sana` a complete pipeline folder `out/pipeline`; both leave `curve.csv` and
    `curve.png` in `out`. `source(seed, index, n)` must be a pure function. Raises ValueError on a bad configuration.
    """
    kind = config.get("kind")
    if kind == "dc_ae":
        return _train_autoencoder(AutoencoderSettings.from_dict(config), out, source)
    if kind == "sana":
        return _train_text_to_image(TextToImageSettings.from_dict(config), out, source, vocabulary)
    raise ValueError(f"kind is {kind!r}; allowed: 'dc_ae', 'sana'")


def _train_autoencoder(settings: AutoencoderSettings, out: Path, source: Source) -> TrainingResult:
    torch.manual_seed(settings.loop.seed)
    task = AutoencoderTask(
        DCAE(settings.model),
        source,
        seed=settings.loop.seed,
        latent_noise=settings.latent_noise,
        detail_weight=settings.detail_weight,
    )
    result = train(task, settings.loop, out)
    # A stream of its own, so that the statistics do not come from the last training batches.
    mean, std = latent_statistics(
        task.model, source, seed=settings.loop.seed + 1, count=settings.statistics_images
    )
    save_autoencoder(task.model, out / "vae", latents_mean=mean, latents_std=std)
    plot_curve(out / "curve.csv", out / "curve.png", columns=("loss", "psnr_db"), title=settings.name)
    return result


def _train_text_to_image(
    settings: TextToImageSettings, out: Path, source: Source, vocabulary: tuple[str, ...]
) -> TrainingResult:
    from transformers import Gemma2Model

    autoencoder = load_autoencoder(settings.autoencoder)
    tokenizer = make_word_tokenizer(vocabulary, model_max_length=settings.max_length)
    tokenize = _tokenize_with(tokenizer, settings.max_length)
    torch.manual_seed(settings.loop.seed)
    text_model = Gemma2Model(_gemma_config(settings, len(tokenizer), tokenizer))
    transformer = SanaTransformer(settings.model)
    transformer.initialise(caption_norm=settings.caption_norm_start)
    cache = prepare_cache(
        autoencoder, source, tokenize, out / "cache", seed=settings.loop.seed, count=settings.cached_samples
    )
    if settings.compile:
        transformer.compile()
    task = TextToImageTask(
        transformer,
        text_model,
        cache,
        shift=settings.shift,
        caption_dropout=settings.caption_dropout,
        text_learning_rate_factor=settings.text_learning_rate_factor,
        null_tokens=tokenize([""]),
    )
    result = train(task, settings.loop, out)
    save_pretrained(
        out / "pipeline",
        transformer=transformer,
        autoencoder=autoencoder,
        text_encoder=TextEncoder(tokenizer, text_model),
        flow_shift=settings.shift,
    )
    plot_curve(out / "curve.csv", out / "curve.png", columns=("loss",), title=settings.name)
    shutil.rmtree(out / "cache")
    return result


def _tokenize_with(tokenizer: Any, max_length: int) -> Callable[[list[str]], tuple[Tensor, Tensor]]:
    def tokenize(captions: list[str]) -> tuple[Tensor, Tensor]:
        encoded = tokenizer(
            captions, padding="max_length", max_length=max_length, truncation=True, return_tensors="pt"
        )
        return encoded["input_ids"], encoded["attention_mask"]

    return tokenize


def _gemma_config(settings: TextToImageSettings, vocabulary_size: int, tokenizer: Any) -> Any:
    from transformers import Gemma2Config

    values = settings.text_encoder | {
        "vocab_size": vocabulary_size,
        "max_position_embeddings": settings.max_length,
        "sliding_window": settings.max_length,
        "query_pre_attn_scalar": settings.text_encoder["head_dim"],
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        # Soft-capped scores need the plain attention path.
        "attn_implementation": "eager",
    }
    return Gemma2Config(**values)
