"""What a text-to-image training will be given, told before it starts: counts, sizes, buckets, bad files, texts, a batch."""

import csv
import io
import os
import statistics
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sana_models.checkpoints import read_config, refuse_sprint
from sana_models.config import DC_AE_F32C32, DCAEConfig, SanaConfig
from sana_models.dc_ae import DCAE
from sana_models.files import write_whole
from sana_models.hub import locate
from sana_models.image_files import as_rgb
from sana_models.libraries import without_torchao
from sana_models.text import make_word_tokenizer
from sana_models.training.data_folders import read_index
from sana_models.training.data_settings import ImageDataSettings
from sana_models.training.image_text import ImageTextData
from sana_models.training.latents import DAMAGE, stored_latent
from sana_models.training.loop import step_generator
from sana_models.training.parts import source_of
from sana_models.training.pictures import write_sheet
from sana_models.training.records import BadRecords, Record
from sana_models.training.settings import TextToImageSettings

__all__ = ["check_images"]

#: Of more images than these so many are decoded, spread evenly.
_MOST_DECODED = 10_000
#: Of more captions than these so many are tokenized, and a picture of a batch has so many images at most.
_MOST_TOKENIZED, _MOST_SHOWN = 100_000, 64


def check_images(
    settings: TextToImageSettings, data: ImageDataSettings, out: Path, vocabulary: Sequence[str]
) -> Iterator[str]:
    """Yield lines about the images that `data` names, as they become known; reads no weights.

    Writes `out/first_batch.png`, and `out/check_bad_records.csv` when there are bad ones. Raises ValueError, one line, for
    what would stop the training: no images, too large a share of bad ones, a batch that cannot be filled with whole images.
    """
    bad = BadRecords(max_share=1.0)
    records: list[Record] = []
    for path in data.paths:
        found = read_index(
            [path], data.caption_suffixes, bad, keys=data.caption_keys, image_key=data.image_key
        )
        texts = sum(len(record.captions) for record in found)
        yield f"{path}: {len(found):,} images, {texts:,} captions"
        records += found
    parts = _Parts.of(settings, vocabulary)
    with torch.device("meta"):
        autoencoder = DCAE(parts.autoencoder)
    images = ImageTextData(
        records,
        autoencoder,
        stages=data.stages,
        patch_size=parts.patch_size,
        rule=data.rule,
        bad=bad,
        seed=settings.loop.seed,
        use_buckets=data.use_buckets,
        minimum_score=data.minimum_score,
    )
    yield from _sizes(images, settings)
    yield from _texts(images.records, parts.tokenizer, settings.max_length)
    yield _decoded(images.records, parts.autoencoder.latent_channels, bad)
    size = images.batch_size(0, settings.loop.batch_size)
    shown = images.pictures(0, size, step_generator(settings.loop.seed, 0))
    if shown:
        write_sheet(
            out / "first_batch.png", [(_levels(picture), text) for picture, text in shown[:_MOST_SHOWN]]
        )
        yield f"first batch: {out / 'first_batch.png'}"
    bad.total = len({record.key for record in records} | bad.reasons.keys())
    yield from _bad(bad, out, data.max_bad_share)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What the configurations of the networks say, and the tokenizer."""

    patch_size: int
    autoencoder: DCAEConfig
    tokenizer: Any

    @classmethod
    def of(cls, settings: TextToImageSettings, vocabulary: Sequence[str]) -> "_Parts":
        folder = locate(source_of(settings.autoencoder), part="vae", weights=False)
        autoencoder = DCAEConfig.from_dict(read_config(folder)) if folder.is_dir() else DC_AE_F32C32
        if settings.start is None:
            assert settings.model is not None
            tokenizer = make_word_tokenizer(vocabulary, model_max_length=settings.max_length)
            return cls(settings.model.patch_size, autoencoder, tokenizer)
        with without_torchao():
            from transformers import AutoTokenizer

        root = locate(source_of(settings.start), weights=False)
        refuse_sprint(root)
        config = SanaConfig.from_dict(read_config(locate(root, part="transformer")))
        tokenizer = AutoTokenizer.from_pretrained(root / "tokenizer", local_files_only=True)
        return cls(config.patch_size, autoencoder, tokenizer)


def _sizes(images: ImageTextData, settings: TextToImageSettings) -> Iterator[str]:
    sizes = sorted(images.size_of(record) for record in images.records if record.suffix != ".npy")
    latents = len(images.records) - len(sizes)
    if latents:
        yield f"stored latents: {latents:,}"
    if sizes:
        pixels = statistics.median(height * width for height, width in sizes) / 1e6
        least, most = (f(sizes, key=lambda size: size[0] * size[1]) for f in (min, max))
        yield f"sizes: {least[1]}x{least[0]} to {most[1]}x{most[0]}, median {pixels:.2g} megapixels"
    step = 0
    for stage in images.stages:
        size = stage.batch_size or settings.loop.batch_size
        buckets = images.buckets(step, size)
        shown = ", ".join(f"{width}x{height}: {count:,}" for (height, width), count in buckets.items())
        batches = sum(buckets.values()) // size
        yield f"buckets at {stage.image_size} pixels: {shown}; {batches:,} batches of {size} an epoch"
        small = sum(height * width < 0.9 * stage.image_size**2 for height, width in sizes)
        if small:
            yield f"{small:,} images are smaller than {stage.image_size} pixels squared and will be enlarged"
        step = stage.until


def _texts(records: Sequence[Record], tokenizer: Any, max_length: int) -> Iterator[str]:
    texts = list(islice((text for record in records for text in record.captions.values()), _MOST_TOKENIZED))
    limit = min(max_length, int(tokenizer.model_max_length))
    lengths = sorted(len(ids) for ids in tokenizer(texts, verbose=False)["input_ids"])
    cut = sum(length > limit for length in lengths)
    middle, high = lengths[len(lengths) // 2], lengths[int(0.99 * (len(lengths) - 1))]
    yield f"captions: median {middle} tokens, 99% at most {high}, longest {lengths[-1]}; {cut:,} are cut at {limit}"
    unknown = tokenizer.unk_token_id
    if unknown is not None:
        lost = sum(unknown in ids for ids in tokenizer(texts, verbose=False)["input_ids"])
        if lost:
            yield f"{lost:,} captions have words that the tokenizer does not know"


def _decoded(records: Sequence[Record], channels: int, bad: BadRecords) -> str:
    every = -(-len(records) // _MOST_DECODED)
    tried = records[::every]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for record, problem in zip(tried, pool.map(partial(_problem, channels=channels), tried), strict=True):
            if problem is not None:
                bad.add(record.key, problem)
    return f"decoded: {len(tried):,} of {len(records):,} images"


def _problem(record: Record, channels: int) -> Exception | None:
    from PIL import Image

    try:
        if record.suffix == ".npy":
            stored_latent(record, channels)
            return None
        with Image.open(io.BytesIO(record.read())) as image:
            as_rgb(image)
    except DAMAGE as error:
        return error
    return None


def _bad(bad: BadRecords, out: Path, max_share: float) -> Iterator[str]:
    if not bad.reasons:
        yield "bad records: none"
        return
    path = out / "check_bad_records.csv"
    table = io.StringIO(newline="")
    csv.writer(table).writerows(bad.reasons.items())
    write_whole(path, lambda stream: stream.write(table.getvalue().encode()))
    yield f"bad records: {len(bad.reasons):,} of {bad.total:,}, in {path}"
    for key, reason in islice(bad.reasons.items(), 5):
        yield f"  {key}: {reason}"
    bad.max_share = max_share
    bad.check()


def _levels(pixels: Tensor) -> np.ndarray:
    """[-1, 1] (3, H, W) as uint8 (H, W, 3)."""
    levels = ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return levels.permute(1, 2, 0).contiguous().numpy()
