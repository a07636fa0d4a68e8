"""The networks and the data of a text-to-image training, built as its settings say."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sana_kernels import resolve_backend
from sana_models.checkpoints import (
    load_autoencoder,
    load_text_encoder,
    load_transformer,
    part_variants,
    read_config,
    refuse_sprint,
)
from sana_models.config import SanaConfig
from sana_models.dc_ae import DCAE
from sana_models.files import is_there
from sana_models.hub import locate
from sana_models.libraries import without_torchao
from sana_models.text import make_word_tokenizer
from sana_models.training.autoencoder import Source
from sana_models.training.cache import LatentCache, encoded_samples, prepare_cache
from sana_models.training.caption_texts import CaptionTexts, tokenize_with
from sana_models.training.data_folders import read_index
from sana_models.training.data_settings import ImageDataSettings, RenderedDataSettings
from sana_models.training.distributed import barrier, is_main, share_of
from sana_models.training.image_text import ImageTextData
from sana_models.training.latents import prefetched
from sana_models.training.loop_config import autocast_of
from sana_models.training.progress import training_progress
from sana_models.training.records import BadRecords, Record
from sana_models.training.settings import TextToImageSettings
from sana_models.training.text_to_image import CaptionedLatents
from sana_models.training.validation import HeldOut, ValidationSettings
from sana_models.transformer import SanaTransformer
from sana_models.weight_files import has_variant, open_folder

__all__ = [
    "Networks",
    "encode_images",
    "image_data",
    "load_networks",
    "rendered_data",
    "source_of",
    "tokenize_with",
]


#: Processes that decode images for a GPU, where the configuration does not say.
_GPU_WORKERS = 4


@dataclass(frozen=True, slots=True)
class Networks:
    """Transformer (trained), text decoder (trained or frozen), autoencoder (frozen), and the text length in tokens."""

    transformer: SanaTransformer
    text_model: nn.Module
    tokenizer: Any
    autoencoder: DCAE
    max_length: int


def load_networks(
    settings: TextToImageSettings,
    vocabulary: tuple[str, ...],
    device: torch.device,
    *,
    encoders_only: bool = False,
) -> Networks:
    """Load the networks of `settings.start`, or draw new ones for a tokenizer of `vocabulary`'s words, on `device`.

    What is trained has fp32 weights, which `precision: bf16` computes with in bf16; a frozen text encoder that is stored in bf16
    stays so there. With `encoders_only` the transformer has no weights. Raises ValueError (CheckpointError) for what cannot be
    loaded.
    """
    variant = settings.weights_variant
    autoencoder = load_autoencoder(
        source_of(settings.autoencoder),
        variant=_variant(settings.autoencoder, "vae", variant),
        device=device,
        kernels=settings.kernels,
    )
    if settings.start is not None:
        start = locate(source_of(settings.start), variant=variant)
        refuse_sprint(start)
        variants = part_variants(start, variant)
        text = load_text_encoder(
            start,
            variant=variants["text_encoder"],
            device=device,
            dtype=_text_dtype(settings, start, variants["text_encoder"]),
        )
        if encoders_only:
            transformer = _without_weights(
                SanaConfig.from_dict(read_config(locate(start, part="transformer")))
            )
        else:
            transformer = load_transformer(
                start, variant=variants["transformer"], device=device, kernels=settings.kernels
            )
            transformer.train().requires_grad_(True)
        tokenizer, text_model = text.tokenizer, text.model
        max_length = min(settings.max_length, int(tokenizer.model_max_length))
    else:
        with without_torchao():
            from transformers import Gemma2Model

        if settings.model is None:
            raise ValueError("section 'model' is missing")
        tokenizer, max_length = (
            make_word_tokenizer(vocabulary, model_max_length=settings.max_length),
            settings.max_length,
        )
        torch.manual_seed(settings.loop.seed)
        text_model = Gemma2Model(_gemma_config(settings, len(tokenizer), tokenizer)).to(device)
        if encoders_only:
            transformer = _without_weights(settings.model)
        else:
            transformer = SanaTransformer(settings.model)
            transformer.initialise(caption_norm=settings.caption_norm_start)
            transformer.to(device).use_kernels(resolve_backend(settings.kernels, device))
    text_model.requires_grad_(settings.train_text_encoder).train(settings.train_text_encoder)
    return Networks(transformer, text_model, tokenizer, autoencoder, max_length)


def _without_weights(config: SanaConfig) -> SanaTransformer:
    with torch.device("meta"):
        return SanaTransformer(config)


def _text_dtype(settings: TextToImageSettings, start: Path, variant: str | None) -> torch.dtype:
    """bf16 where nothing is lost by it: a frozen encoder, stored so, in a training that computes so."""
    if settings.train_text_encoder or settings.loop.precision != "bf16":
        return torch.float32
    stored = open_folder(locate(start, part="text_encoder"), "model", variant)
    kinds = {tensor.read().dtype for _, tensor in zip(range(1), stored.values(), strict=False)}
    return torch.bfloat16 if kinds == {torch.bfloat16} else torch.float32


def rendered_data(
    settings: TextToImageSettings, data: RenderedDataSettings, networks: Networks, out: Path, source: Source
) -> tuple[LatentCache, HeldOut]:
    """Encode the samples that `source` makes, or read those of an earlier run; those held out are of a stream of their own."""
    tokenize = tokenize_with(networks.tokenizer, networks.max_length)

    def prepare() -> LatentCache:
        return prepare_cache(
            networks.autoencoder,
            source,
            tokenize,
            data.cache or out / "cache",
            seed=settings.loop.seed,
            count=data.cached_samples,
            identity=_identity(networks),
        )

    if not is_main():
        barrier()
        cache = prepare()
    else:
        cache = prepare()
        barrier()
    if settings.validation is None or not settings.validation.share:
        return cache, HeldOut([], [], tokenize)
    latents, texts = encoded_samples(
        networks.autoencoder, source, settings.loop.seed + 2, 0, settings.validation.images
    )
    return cache, HeldOut(list(torch.from_numpy(latents)), texts, tokenize)


def image_data(
    settings: TextToImageSettings, data: ImageDataSettings, networks: Networks, bad: BadRecords
) -> tuple[CaptionedLatents, tuple[Tensor, Tensor], HeldOut]:
    """Index the images, and take encoders that the cache replaces off their device.

    Returns the data, text and mask of the empty prompt, and what is held out. Raises ValueError as `read_index` does, and when
    the validation asks for images and gets none.
    """
    records, held = _records(settings.validation, data, bad)
    device = next(networks.autoencoder.parameters()).device
    images = ImageTextData(
        records,
        networks.autoencoder,
        stages=data.stages,
        patch_size=networks.transformer.config.patch_size,
        rule=data.rule,
        bad=bad,
        seed=settings.loop.seed,
        use_buckets=data.use_buckets,
        minimum_score=data.minimum_score,
        cache=None if data.cache is None else data.cache / "latents",
        cache_identity=_identity(networks),
        workers=data.workers if data.workers is not None else _GPU_WORKERS if device.type == "cuda" else 0,
    )
    texts = CaptionTexts(
        networks.tokenizer,
        networks.text_model,
        max_length=networks.max_length,
        trained=settings.train_text_encoder,
        cache=None if data.cache is None else data.cache / "text",
        with_instruction=data.instruction == "sana",
    )
    with autocast_of(settings.loop.precision, device):
        latents = [(record, images.latent_of(record)) for record in held]
        found = [(record, latent.half()) for record, latent in latents if latent is not None]
        chosen = [data.rule.choose(entry.captions, entry.scores, 0.5, entry.weights) for entry, _ in found]
        null_text = texts.null()
        if data.cache is not None and not (settings.validation and settings.validation.prompts):
            _park(images, texts, chosen, settings.loop.batch_size)
    return CaptionedLatents(images, texts), null_text, HeldOut([latent for _, latent in found], chosen, texts)


def _records(
    validation: ValidationSettings | None, data: ImageDataSettings, bad: BadRecords
) -> tuple[list[Record], list[Record]]:
    """Return the records to train on, and those held out."""
    options: dict[str, Any] = {"keys": data.caption_keys, "image_key": data.image_key}
    records = read_index(data.paths, data.caption_suffixes, bad, **options)
    if validation is None:
        return records, []
    held = [record for record in records if _place(record) < validation.share]
    if validation.paths:
        own_bad = BadRecords(max_share=data.max_bad_share)
        held += read_index(validation.paths, data.caption_suffixes, own_bad, **options)
    if (validation.share or validation.paths) and not held:
        raise ValueError(f"validation.share {validation.share:g} of {len(records)} images is none")
    trained = [record for record in records if _place(record) >= validation.share]
    if validation.paths:
        # A folder of the training images may be held out.
        apart = {_origin(record) for record in held}
        trained = [record for record in trained if _origin(record) not in apart]
    if not trained:
        raise ValueError("validation.paths holds out every training image")
    return trained, sorted(held, key=_place)[: validation.images]


def encode_images(
    settings: TextToImageSettings, data: ImageDataSettings, networks: Networks, bad: BadRecords
) -> tuple[int, int]:
    """Make every latent and embedding that the training will ask for and the cache lacks, shared by all processes.

    Returns how many latents and captions this process made. What an interrupted call made is kept.
    """
    captioned, _, held_out = image_data(settings, data, networks, bad)
    images, texts = captioned.images, captioned.texts
    device = next(networks.autoencoder.parameters()).device
    with autocast_of(settings.loop.precision, device):
        jobs = [
            (bucket, [record])
            for bucket, record in share_of(images.all_jobs(settings.loop.batch_size))
            if not images.store.stored(record, bucket)
        ]
        wanted = [text for text in share_of(_texts(images, held_out.texts)) if not texts.stored(text)]
        with training_progress(len(jobs) + len(wanted), 0) as report:
            for number, ((bucket, (record,)), ready) in enumerate(
                zip(jobs, prefetched(images.store, jobs), strict=True), start=1
            ):
                prepared = ready[record.key]
                if isinstance(prepared, str):
                    bad.add(record.key, prepared)
                else:
                    images.store.finish(record, bucket, prepared)
                report(number, "latents")
            for number, text in enumerate(wanted, start=len(jobs) + 1):
                texts([text])
                report(number, "captions")
    barrier()
    return len(jobs), len(wanted)


def _texts(images: ImageTextData, further: Sequence[str]) -> list[str]:
    return sorted({text for record in images.records for text in record.captions.values()} | set(further))


def _park(images: ImageTextData, texts: CaptionTexts, held_out: Sequence[str], batch_size: int) -> None:
    """Take the encoders off the device when the cache has all that they would make."""
    if all(images.store.stored(record, bucket) for bucket, record in images.all_jobs(batch_size)):
        images.store.park()
    if all(texts.stored(text) for text in ["", *_texts(images, held_out)]):
        texts.park()


def _origin(record: Record) -> tuple[Any, ...]:
    return record.path.resolve(), record.key.rpartition("/")[2], record.span, record.cell


def _place(record: Record) -> float:
    """A number in [0, 1) that a record's name gives it: the same in every run and process."""
    return int.from_bytes(hashlib.sha256(record.key.encode()).digest()[:6]) / 2**48


def source_of(name: str) -> str | Path:
    """Return what `locate` takes: a path stays a path, which is never looked up on the hub."""
    return Path(name) if is_there(Path(name)) or name.startswith((".", "/")) else name


def _variant(name: str, part: str, variant: str | None) -> str | None:
    """Return the variant where a part has files of it, else None."""
    if variant is None:
        return None
    folder = locate(source_of(name), part=part, variant=variant)
    return variant if folder.is_dir() and has_variant(folder, variant) else None


def _identity(networks: Networks) -> str:
    """What cached latents and tokens depend on: autoencoder weights, tokenizer and text length."""
    # The vocabulary and no more: a tokenizer's own text changes with the padding it was last used with.
    digest = hashlib.sha256(repr(sorted(networks.tokenizer.get_vocab().items())).encode())
    digest.update(str(networks.max_length).encode())
    for name, value in sorted(networks.autoencoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    digest.update(repr(networks.autoencoder.config).encode())
    return digest.hexdigest()


def _gemma_config(settings: TextToImageSettings, vocabulary_size: int, tokenizer: Any) -> Any:
    with without_torchao():
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
