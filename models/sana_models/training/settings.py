"""Validated content of a training configuration file."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from sana_models.config import DCAEConfig, SanaConfig
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
    if "betas" in values:
        values["betas"] = tuple(values["betas"])
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
    """`kind: sana`."""

    name: str
    autoencoder: Path
    text_encoder: dict[str, Any]
    model: SanaConfig
    loop: LoopConfig
    cached_samples: int
    max_length: int
    shift: float
    caption_dropout: float
    caption_norm_start: float
    text_learning_rate_factor: float
    compile: bool

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Raises ValueError on unknown, missing or ill-fitting values."""
        _check_keys(
            data,
            {"kind", "name", "data", "autoencoder", "text_encoder", "model", "flow", "training", "compile"},
        )
        flow, source = _section(data, "flow"), _section(data, "data")
        return cls(
            name=str(data["name"]),
            autoencoder=Path(str(data["autoencoder"])),
            text_encoder=_section(data, "text_encoder"),
            model=SanaConfig.from_dict(_section(data, "model")),
            loop=_loop(data),
            cached_samples=int(source.get("cached_samples", 65536)),
            max_length=int(source.get("max_length", 16)),
            shift=float(flow.get("shift", 3.0)),
            caption_dropout=float(flow.get("caption_dropout", 0.1)),
            caption_norm_start=float(flow.get("caption_norm_start", 0.01)),
            text_learning_rate_factor=float(flow.get("text_learning_rate_factor", 1.0)),
            compile=bool(data.get("compile", False)),
        )
