"""The networks and the data of a text-to-image training, built as its settings say."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sana_models.checkpoints import (
    load_autoencoder,
    load_text_encoder,
    load_transformer,
    part_variants,
    refuse_sprint,
)
from sana_models.dc_ae import DCAE
from sana_models.files import is_there
from sana_models.hub import locate
from sana_models.libraries import without_torchao
from sana_models.text import TextEncoder, complex_human_instruction, make_word_tokenizer, tell_cut
from sana_models.text_cache import CachedTextEncoder
from sana_models.training.autoencoder import Source
from sana_models.training.cache import LatentCache, encoded_samples, prepare_cache
from sana_models.training.data_folders import read_index
from sana_models.training.data_settings import ImageDataSettings, RenderedDataSettings
from sana_models.training.distributed import barrier, is_main
from sana_models.training.image_text import ImageTextData
from sana_models.training.loop_config import autocast_of
from sana_models.training.records import BadRecords, Record
from sana_models.training.settings import TextToImageSettings
from sana_models.training.text_to_image import CaptionedLatents, TextInput
from sana_models.training.validation import HeldOut
from sana_models.transformer import SanaTransformer
from sana_models.weight_files import has_variant

__all__ = ["Networks", "image_data", "load_networks", "rendered_data", "source_of", "tokenize_with"]


@dataclass(frozen=True, slots=True)
class Networks:
    """Transformer (trained), text decoder (trained or frozen), autoencoder (frozen), and the text length in tokens."""

    transformer: SanaTransformer
    text_model: nn.Module
    tokenizer: Any
    autoencoder: DCAE
    max_length: int

    def to(self, device: torch.device) -> None:
        """Move all networks."""
        for module in (self.transformer, self.text_model, self.autoencoder):
            module.to(device)


def load_networks(settings: TextToImageSettings, vocabulary: tuple[str, ...]) -> Networks:
    """Load the networks of `settings.start`, or draw new ones for a tokenizer of `vocabulary`'s words.

    Raises ValueError (CheckpointError) for what cannot be loaded.
    """
    variant = settings.weights_variant
    autoencoder = load_autoencoder(
        source_of(settings.autoencoder), variant=_variant(settings.autoencoder, "vae", variant)
    )
    if settings.start is not None:
        start = locate(source_of(settings.start), variant=variant)
        refuse_sprint(start)
        variants = part_variants(start, variant)
        text = load_text_encoder(start, variant=variants["text_encoder"])
        transformer = load_transformer(start, variant=variants["transformer"])
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
        text_model = Gemma2Model(_gemma_config(settings, len(tokenizer), tokenizer))
        transformer = SanaTransformer(settings.model)
        transformer.initialise(caption_norm=settings.caption_norm_start)
    text_model.requires_grad_(settings.train_text_encoder).train(settings.train_text_encoder)
    return Networks(transformer, text_model, tokenizer, autoencoder, max_length)


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
    """Index the images; return the data, text and mask of the empty prompt, and what is held out.

    Raises ValueError as `read_index` does, and when the validation asks for images and gets none.
    """
    options: dict[str, Any] = {"keys": data.caption_keys, "image_key": data.image_key}
    records = read_index(data.paths, data.caption_suffixes, bad, **options)
    validation = settings.validation
    held: list[Record] = []
    if validation is not None:
        held = [record for record in records if _place(record) < validation.share]
        if validation.paths:
            held += read_index(
                validation.paths, data.caption_suffixes, BadRecords(max_share=data.max_bad_share), **options
            )
        if (validation.share or validation.paths) and not held:
            raise ValueError(f"validation.share {validation.share:g} of {len(records)} images is none")
        records = [record for record in records if _place(record) >= validation.share]
        held = sorted(held, key=_place)[: validation.images]
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
    )
    text_input, null_text = _text_input(settings, data, networks)
    device = networks.transformer.proj_out.weight.device
    with autocast_of(settings.loop.precision, device):
        latents = [(record, images.latent_of(record)) for record in held]
    found = [(record, latent.half()) for record, latent in latents if latent is not None]
    texts = [data.rule.choose(entry.captions, entry.scores, 0.5, entry.weights) for entry, _ in found]
    held_out = HeldOut([latent for _, latent in found], texts, text_input)
    return CaptionedLatents(images, text_input), null_text, held_out


def _place(record: Record) -> float:
    """A number in [0, 1) that a record's name gives it: the same in every run and process."""
    return int.from_bytes(hashlib.sha256(record.key.encode()).digest()[:6]) / 2**48


def _text_input(
    settings: TextToImageSettings, data: ImageDataSettings, networks: Networks
) -> tuple[TextInput, tuple[Tensor, Tensor]]:
    """Return what makes tokens or embeddings of captions, and text and mask of the empty prompt."""
    if settings.train_text_encoder:
        tokenize = tokenize_with(networks.tokenizer, networks.max_length)
        return tokenize, tokenize([""])
    encoder = TextEncoder(networks.tokenizer, networks.text_model)
    if data.cache is not None:
        encoder = CachedTextEncoder(encoder, data.cache / "text")
    instruction = complex_human_instruction() if data.instruction == "sana" else None

    def embed(captions: list[str], instruction: str | None = instruction) -> tuple[Tensor, Tensor]:
        # One by one, so that an embedding does not depend on the batch; the mask hides the padding.
        rows = [
            encoder.encode(
                [text], max_length=networks.max_length, instruction=instruction, keep_padding=False
            )
            for text in captions
        ]
        return torch.cat([row[0] for row in rows]).float().cpu(), torch.cat([row[1] for row in rows]).cpu()

    return embed, embed([""], None)


def tokenize_with(tokenizer: Any, max_length: int) -> Callable[[list[str]], tuple[Tensor, Tensor]]:
    """Return a function from captions to token ids and masks (n, max_length)."""

    told: set[str] = set()

    def tokenize(captions: list[str]) -> tuple[Tensor, Tensor]:
        encoded = tokenizer(
            captions, padding="max_length", max_length=max_length, truncation=True, return_tensors="pt"
        )
        tell_cut(tokenizer, captions, encoded["attention_mask"], captions, told)
        return encoded["input_ids"], encoded["attention_mask"]

    return tokenize


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
