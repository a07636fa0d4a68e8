"""Validated content of a training configuration file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast, get_args

from sana_kernels import Kernels
from sana_models.config import DCAEConfig, SanaConfig
from sana_models.files import is_there
from sana_models.libraries import without_torchao
from sana_models.training.data_settings import ImageDataSettings, RenderedDataSettings
from sana_models.training.loop_config import LoopConfig
from sana_models.training.reading import Section
from sana_models.training.validation import ValidationSettings

__all__ = ["AutoencoderSettings", "TextToImageSettings"]


_FLOW_KEYS = {"shift", "caption_dropout", "caption_norm_start", "text_learning_rate_factor"}
_TOP = {"kind", "name", "data", "training"}
_ENCODER_NEEDS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
)


def _section(data: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = data.get(name)
    if not isinstance(value, Mapping):
        raise ValueError(f"section {name!r} is missing or not a mapping")
    return dict(value)


def _encoder(data: Mapping[str, Any]) -> dict[str, Any]:
    """Check the shape of a new text encoder against the names that Gemma-2's configuration has."""
    with without_torchao():
        from transformers import Gemma2Config

    section = _section(data, "text_encoder")
    values = Section(section, "text_encoder", Gemma2Config().to_dict().keys())
    for name in _ENCODER_NEEDS:
        values.integer(name)
    return section


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoencoderSettings:
    """`kind: dc_ae`."""

    name: str
    model: DCAEConfig
    loop: LoopConfig
    latent_noise: float
    detail_weight: float
    statistics_images: int

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Raises ValueError on unknown, missing or ill-fitting values."""
        top = Section(data, "", _TOP | {"model", "loss"})
        Section.of(data, "data", {"source"})
        loss = Section.of(data, "loss", {"latent_noise", "detail_weight", "statistics_images"})
        return cls(
            name=top.text("name"),
            model=DCAEConfig.from_dict(_section(data, "model")),
            loop=LoopConfig.from_dict(_section(data, "training")),
            latent_noise=loss.number("latent_noise", 0.0, low=0),
            detail_weight=loss.number("detail_weight", 0.0, low=0),
            statistics_images=loss.integer("statistics_images", 4096),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TextToImageSettings:
    """`kind: sana`. With `start`, a pipeline, networks and their shapes come from there.

    `weights_variant` picks its weight files, such as `*.fp16.safetensors`; parts without such are read from the plain ones.
    """

    name: str
    start: str | None
    weights_variant: str | None
    autoencoder: str
    text_encoder: dict[str, Any]
    model: SanaConfig | None
    data: RenderedDataSettings | ImageDataSettings
    loop: LoopConfig
    max_length: int
    shift: float
    caption_dropout: float
    caption_norm_start: float
    text_learning_rate_factor: float
    train_text_encoder: bool
    gradient_checkpointing: bool
    compile: bool
    kernels: Kernels
    validation: ValidationSettings | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Raises ValueError on unknown, missing or ill-fitting values."""
        shapes = {"text_encoder", "model"}
        keys = {"start", "autoencoder", "flow", "train_text_encoder", "compile", "gradient_checkpointing"}
        keys |= {"weights_variant", "validation", "kernels"}
        top = Section(data, "", _TOP | keys | shapes)
        start = None if data.get("start") is None else top.source("start")
        if start is not None and (given := sorted(shapes & data.keys())):
            raise ValueError(f"section {given[0]!r} cannot be given with 'start', whose networks are used")
        if start is None and "autoencoder" not in data:
            raise ValueError("'autoencoder' is missing")
        if start is not None and is_there(Path(start), Path.is_file):
            raise ValueError(f"start is {start!r}, a file; give the folder or hub id of a pipeline")
        flow = Section(data.get("flow", {}), "flow", _FLOW_KEYS)
        source, loop = _section(data, "data"), LoopConfig.from_dict(_section(data, "training"), large=True)
        settings = (
            ImageDataSettings.from_dict(source, loop.steps)
            if source.get("source") == "images"
            else RenderedDataSettings.from_dict(source)
        )
        return cls(
            name=top.text("name"),
            start=start,
            weights_variant=None if data.get("weights_variant") is None else top.text("weights_variant"),
            autoencoder=top.source("autoencoder", start),
            text_encoder={} if start is not None else _encoder(data),
            model=None if start is not None else SanaConfig.from_dict(_section(data, "model")),
            data=settings,
            loop=loop,
            max_length=settings.max_length or (16 if start is None else 300),
            shift=flow.number("shift", 3.0, low=0, above=True),
            caption_dropout=flow.number("caption_dropout", 0.1, low=0, high=1),
            caption_norm_start=flow.number("caption_norm_start", 0.01, low=0),
            text_learning_rate_factor=flow.number("text_learning_rate_factor", 1.0, low=0),
            train_text_encoder=top.flag("train_text_encoder", True),
            gradient_checkpointing=top.flag("gradient_checkpointing", False),
            compile=top.flag("compile", False),
            kernels=cast(Kernels, top.text("kernels", "auto", choices=get_args(Kernels))),
            validation=ValidationSettings.from_dict(data["validation"]) if "validation" in data else None,
        )
