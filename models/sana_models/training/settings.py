"""Validated content of a training configuration file."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from sana_models.config import DCAEConfig, SanaConfig
from sana_models.training.data_settings import ImageDataSettings, RenderedDataSettings
from sana_models.training.loop import LoopConfig

__all__ = ["AutoencoderSettings", "TextToImageSettings"]


def _section(data: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = data.get(name)
    if not isinstance(value, Mapping):
        raise ValueError(f"section {name!r} is missing or not a mapping")
    return dict(value)


def _loop(data: Mapping[str, Any]) -> LoopConfig:
    values = _section(data, "training")
    known = {field.name for field in fields(LoopConfig)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"unknown key 'training.{unknown[0]}'; allowed: {', '.join(sorted(known))}")
    for name in ("betas", "eps"):
        # YAML reads 1e-30, without a dot, as text.
        if isinstance(values.get(name), list):
            values[name] = tuple(float(value) for value in values[name])
        elif values.get(name) is not None:
            if name == "betas":
                raise ValueError(f"training.betas is {values[name]!r}; expected a list")
            values[name] = float(values[name])
    return LoopConfig(**values)


def _check_keys(data: Mapping[str, Any], allowed: set[str]) -> None:
    unknown = sorted(set(data) - allowed)
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}; allowed: {', '.join(sorted(allowed))}")


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
        _check_keys(data, {"kind", "name", "data", "model", "loss", "training"})
        loss = _section(data, "loss")
        return cls(
            name=str(data["name"]),
            model=DCAEConfig.from_dict(_section(data, "model")),
            loop=_loop(data),
            latent_noise=float(loss.get("latent_noise", 0.0)),
            detail_weight=float(loss.get("detail_weight", 0.0)),
            statistics_images=int(loss.get("statistics_images", 4096)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TextToImageSettings:
    """`kind: sana`. With `start`, a pipeline, networks and their shapes come from there."""

    name: str
    start: str | None
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

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Raises ValueError on unknown, missing or ill-fitting values."""
        shapes = {"text_encoder", "model"}
        keys = {"kind", "name", "data", "start", "autoencoder", "flow", "training", "train_text_encoder"}
        _check_keys(data, keys | shapes | {"compile", "gradient_checkpointing"})
        start = data.get("start")
        if start is not None and (given := sorted(shapes & data.keys())):
            raise ValueError(f"section {given[0]!r} cannot be given with 'start', whose networks are used")
        autoencoder = data.get("autoencoder", start)
        if autoencoder is None:
            raise ValueError("'autoencoder' is missing")
        flow, source, loop = _section(data, "flow"), _section(data, "data"), _loop(data)
        settings = (
            ImageDataSettings.from_dict(source, loop.steps)
            if source.get("source") == "images"
            else RenderedDataSettings.from_dict(source)
        )
        return cls(
            name=str(data["name"]),
            start=None if start is None else str(start),
            autoencoder=str(autoencoder),
            text_encoder={} if start is not None else _section(data, "text_encoder"),
            model=None if start is not None else SanaConfig.from_dict(_section(data, "model")),
            data=settings,
            loop=loop,
            max_length=settings.max_length or (16 if start is None else 300),
            shift=float(flow.get("shift", 3.0)),
            caption_dropout=float(flow.get("caption_dropout", 0.1)),
            caption_norm_start=float(flow.get("caption_norm_start", 0.01)),
            text_learning_rate_factor=float(flow.get("text_learning_rate_factor", 1.0)),
            train_text_encoder=bool(data.get("train_text_encoder", True)),
            gradient_checkpointing=bool(data.get("gradient_checkpointing", False)),
            compile=bool(data.get("compile", False)),
        )
