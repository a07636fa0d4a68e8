"""From a training configuration to a finished checkpoint folder."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sana_models.checkpoints import save_autoencoder, save_pretrained
from sana_models.dc_ae import DCAE
from sana_models.files import whole_folder
from sana_models.pipeline import SanaPipeline
from sana_models.text import TextEncoder, complex_human_instruction
from sana_models.training.autoencoder import AutoencoderTask, Source, latent_statistics
from sana_models.training.cache import LatentCache
from sana_models.training.caption_texts import tokenize_with
from sana_models.training.curve import Observer, plot_curve
from sana_models.training.data_settings import ImageDataSettings
from sana_models.training.distributed import barrier, is_main, local_device, local_rows, process_group
from sana_models.training.loop import TrainingResult, train
from sana_models.training.parts import (
    Networks,
    encode_images,
    image_data,
    load_networks,
    rendered_data,
)
from sana_models.training.records import BadRecords
from sana_models.training.settings import AutoencoderSettings, TextToImageSettings
from sana_models.training.sharding import whole
from sana_models.training.state import StateFolder
from sana_models.training.text_to_image import CaptionedLatents, TextToImageTask
from sana_models.training.validation import HeldOut, Validation, forget_validation

__all__ = ["run_encoding", "run_training"]


def run_training(
    config: Mapping[str, Any],
    out: Path,
    *,
    source: Source,
    vocabulary: tuple[str, ...] = (),
    device: str = "cpu",
    fresh: bool = False,
    observer: Observer | None = None,
) -> TrainingResult:
    """Train what `config` describes and export it under `out`; continues a run that was interrupted there.

    `kind: dc_ae` writes `out/vae`, `kind: sana` a complete pipeline folder `out/pipeline`; both leave `curve.csv` and
    `curve.png` in `out`. `source(seed, index, n)` must be a pure function. Under `torchrun` the processes train together.
    `fresh` removes what an earlier run left in `out` to continue from. `observer` hears of every row of the curve.

    Raises ValueError on a bad configuration or a state of
    another one, and FloatingPointError when the training cannot go on (see `loop.train`).
    """
    kind = config.get("kind")
    with process_group(device):
        if kind == "dc_ae":
            settings = AutoencoderSettings.from_dict(config)
            if fresh:
                _forget(out)
            return _train_autoencoder(settings, config, out, source, local_device(device), observer)
        if kind == "sana":
            text_settings = TextToImageSettings.from_dict(config)
            _check_batches(text_settings)
            if fresh:
                _forget(out)
            return _train_text_to_image(
                text_settings, config, out, source, vocabulary, local_device(device), observer
            )
    raise ValueError(f"kind is {kind!r}; allowed: 'dc_ae', 'sana'")


def run_encoding(
    config: Mapping[str, Any], out: Path, *, vocabulary: tuple[str, ...] = (), device: str = "cpu"
) -> tuple[int, int]:
    """Fill the cache of what `config` trains on; return how many latents and captions this process made.

    A cache that has all lets the training do without the encoders. Raises ValueError as `run_training`, and for a configuration
    without images or cache.
    """
    if config.get("kind") != "sana":
        raise ValueError(f"kind is {config.get('kind')!r}; only 'sana' has something to encode")
    settings = TextToImageSettings.from_dict(config)
    data = settings.data
    if not isinstance(data, ImageDataSettings) or data.cache is None:
        raise ValueError("encoding needs data.source 'images' and data.cache, a folder")
    with process_group(device):
        _check_batches(settings)
        networks = load_networks(settings, vocabulary, local_device(device), encoders_only=True)
        bad = BadRecords(max_share=data.max_bad_share, path=out / "bad_records.csv" if is_main() else None)
        return encode_images(settings, data, networks, bad)


def _check_batches(settings: TextToImageSettings) -> None:
    """Raise ValueError, before anything is loaded, for a batch of any stage that the processes cannot share evenly."""
    parts = settings.loop.gradient_accumulation
    local_rows(settings.loop.batch_size, parts)
    stages = settings.data.stages if isinstance(settings.data, ImageDataSettings) else ()
    for number, stage in enumerate(stages):
        try:
            local_rows(stage.batch_size or settings.loop.batch_size, parts)
        except ValueError as error:
            raise ValueError(f"data.stages[{number}]: {error}") from None


def _forget(out: Path) -> None:
    """Remove states, the list of bad records, and the run's own cache."""
    if is_main():
        StateFolder(out, {}).clear()
        (out / "bad_records.csv").unlink(missing_ok=True)
        shutil.rmtree(out / "cache", ignore_errors=True)
        forget_validation(out)
    barrier()


def _train_autoencoder(
    settings: AutoencoderSettings,
    config: Mapping[str, Any],
    out: Path,
    source: Source,
    device: torch.device,
    observer: Observer | None,
) -> TrainingResult:
    torch.manual_seed(settings.loop.seed)
    task = AutoencoderTask(
        DCAE(settings.model).to(device),
        source,
        seed=settings.loop.seed,
        latent_noise=settings.latent_noise,
        detail_weight=settings.detail_weight,
    )
    result = train(task, settings.loop, out, identity=config, observer=observer)
    if not is_main():
        return result
    # A stream of its own, so that the statistics do not come from the last training batches.
    mean, std = latent_statistics(
        task.model, source, seed=settings.loop.seed + 1, count=settings.statistics_images
    )
    save_autoencoder(task.model, out / "vae", latents_mean=mean, latents_std=std)
    plot_curve(out / "curve.csv", out / "curve.png", columns=("loss", "psnr_db"), title=settings.name)
    return result


def _train_text_to_image(
    settings: TextToImageSettings,
    config: Mapping[str, Any],
    out: Path,
    source: Source,
    vocabulary: tuple[str, ...],
    device: torch.device,
    observer: Observer | None,
) -> TrainingResult:
    networks = load_networks(settings, vocabulary, device)
    bad = BadRecords(max_share=1.0)
    data: CaptionedLatents | LatentCache
    if isinstance(settings.data, ImageDataSettings):
        bad = BadRecords(
            max_share=settings.data.max_bad_share, path=out / "bad_records.csv" if is_main() else None
        )
        data, null_text, held_out = image_data(settings, settings.data, networks, bad)
    else:
        data, held_out = rendered_data(settings, settings.data, networks, out, source)
        null_text = tokenize_with(networks.tokenizer, networks.max_length)([""])
    networks.transformer.gradient_checkpointing = settings.gradient_checkpointing
    if settings.compile:
        networks.transformer.compile()
    task = TextToImageTask(
        networks.transformer,
        networks.text_model,
        data,
        shift=settings.shift,
        caption_dropout=settings.caption_dropout,
        text_learning_rate_factor=settings.text_learning_rate_factor,
        null_text=null_text,
    )
    exports = _Exports(settings, networks)
    watch = _validation(settings, networks, task, held_out, out, exports)
    result = train(task, settings.loop, out, identity=config, watch=watch, observer=observer)
    exports.write(out / "pipeline")
    if is_main():
        plot_curve(out / "curve.csv", out / "curve.png", columns=_plotted(watch), title=settings.name)
        # A cache of this run's own; one that the configuration names is kept.
        shutil.rmtree(out / "cache", ignore_errors=True)
    barrier()
    return replace(result, bad_records=len(bad.reasons))


def _validation(
    settings: TextToImageSettings,
    networks: Networks,
    task: TextToImageTask,
    held_out: HeldOut,
    out: Path,
    exports: "_Exports",
) -> Validation | None:
    if settings.validation is None:
        return None
    data = settings.data
    with_instruction = isinstance(data, ImageDataSettings) and data.instruction == "sana"
    pipeline = SanaPipeline(
        networks.transformer,
        networks.autoencoder,
        TextEncoder(networks.tokenizer, networks.text_model),
        flow_shift=settings.shift,
        max_length=networks.max_length,
        instruction=complex_human_instruction() if with_instruction else None,
    )
    return Validation(settings.validation, held_out, pipeline, task.embed, exports.write, out)


def _plotted(watch: Validation | None) -> tuple[str, ...]:
    return ("loss", "validation_loss") if watch is not None and watch.has_loss else ("loss",)


class _Exports:
    """Writes whole pipeline folders; what is not trained is written once, and its files have further names in later ones."""

    def __init__(self, settings: TextToImageSettings, networks: Networks) -> None:
        self._settings, self._networks = settings, networks
        self._frozen = {"vae", "tokenizer"} | ({"text_encoder"} if not settings.train_text_encoder else set())
        self._last: Path | None = None

    def write(self, folder: Path) -> None:
        """Create or replace a folder, as it is or not at all: the first process does, of what all of them hold."""
        last = {name: self._last / name for name in self._frozen} if self._last is not None else {}
        networks = self._networks
        transformer, text_model = whole(networks.transformer), whole(networks.text_model)
        if not is_main():
            return
        with whole_folder(folder) as new:
            save_pretrained(
                new,
                transformer=transformer,
                autoencoder=networks.autoencoder,
                text_encoder=TextEncoder(networks.tokenizer, text_model),
                flow_shift=self._settings.shift,
                written={name: path for name, path in last.items() if path.is_dir()},
            )
        self._last = folder
