"""Hyper-parameters of SANA's networks and the named published sizes.

Field names are those of the public `config.json` files, so a configuration read from a checkpoint needs no translation.
Sources: SANA (arXiv 2410.10629) section 2, SANA-1.5 (arXiv 2501.18427) section 2, SANA-Sprint (arXiv 2503.09641), DC-AE
(arXiv 2410.10733).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, Self

__all__ = ["DC_AE_F32C32", "SANA_CONFIGS", "SANA_PIPELINES", "DCAEConfig", "SanaConfig"]

#: What `model_index.json` calls the pipelines that hold these networks.
SANA_PIPELINES = ("SanaPipeline", "SanaPAGPipeline", "SanaSprintPipeline")
#: Largest finite value of fp16.
FP16_MAX = 65504.0
QK_NORM = "rms_norm_across_heads"

# Public files carry fields that do not change the network or that only other model families use.
_IGNORED_SANA_FIELDS = {
    "attention_bias": False,
    "cross_attention_dim": None,
    "dropout": 0.0,
    "norm_elementwise_affine": False,
}
_IGNORED_DCAE_FIELDS = {
    "in_channels": 3,
    "decoder_norm_types": "rms_norm",
}
#: Activations of DC-AE's decoders.
_ACTIVATIONS = ("silu", "relu")


_WHOLE_NUMBERS = (
    "num_layers",
    "num_attention_heads",
    "num_cross_attention_heads",
    "cross_attention_head_dim",
    "attention_head_dim",
    "caption_channels",
    "in_channels",
    "out_channels",
    "patch_size",
    "sample_size",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SanaConfig:
    """Shape of one SANA transformer.

    `sample_size` is the latent side the position table is based on; `interpolation_scale` of None means no position table
    (512 and 1024 pixel models), a number enables the sine-cosine table (2K: 1.0, 4K: 2.0). `attention_clip` is the largest
    magnitude of self-attention's output, in every precision: a model trained in fp16 has never seen more (see `published`).
    `guidance_embeds` makes it a SANA-Sprint: told the guidance scale, times `guidance_embeds_scale`, beside the time.
    Raises ValueError when widths and head counts do not fit together.
    """

    num_layers: int
    num_attention_heads: int
    num_cross_attention_heads: int
    cross_attention_head_dim: int
    attention_head_dim: int = 32
    caption_channels: int = 2304
    in_channels: int = 32
    out_channels: int = 32
    mlp_ratio: float = 2.5
    patch_size: int = 1
    sample_size: int = 32
    interpolation_scale: float | None = None
    qk_norm: str | None = None
    norm_eps: float = 1e-6
    timestep_scale: float = 1.0
    guidance_embeds: bool = False
    guidance_embeds_scale: float = 0.1
    attention_clip: float | None = None

    def __post_init__(self) -> None:
        for name in _WHOLE_NUMBERS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}; it must be a whole number, at least 1")
        cross_width = self.num_cross_attention_heads * self.cross_attention_head_dim
        if cross_width != self.width:
            raise ValueError(f"cross-attention width {cross_width} differs from the model width {self.width}")
        if self.qk_norm not in (None, QK_NORM):
            raise ValueError(f"qk_norm is {self.qk_norm!r}; allowed: None, {QK_NORM!r}")
        if not isinstance(self.guidance_embeds, bool):
            raise ValueError(f"guidance_embeds is {self.guidance_embeds!r}; it must be true or false")
        if self.attention_clip is not None and not self.attention_clip > 0:
            raise ValueError(f"attention_clip is {self.attention_clip}; it must be above 0")

    @property
    def width(self) -> int:
        """Channels of the residual stream."""
        return self.num_attention_heads * self.attention_head_dim

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build from the content of a `config.json`; raises ValueError on unknown or unsupported fields."""
        values = _known_fields(cls, data, _IGNORED_SANA_FIELDS)
        if values.get("out_channels", 0) is None:
            values["out_channels"] = values.get("in_channels", 32)
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields of a `config.json` that other loaders of the format also accept."""
        data = asdict(self)
        if self.attention_clip is None:
            # A field of this package's own: other loaders get it only where they would otherwise be wrong in silence.
            del data["attention_clip"]
        if not self.guidance_embeds:
            del data["guidance_embeds"], data["guidance_embeds_scale"]
        return data | {
            "_class_name": "SanaTransformer2DModel",
            "attention_bias": False,
            "cross_attention_dim": self.width,
            "dropout": 0.0,
            "norm_elementwise_affine": False,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class DCAEConfig:
    """Shape of one deep-compression autoencoder, finest stage first.

    `latents_mean` and `latents_std` (one number a latent channel) replace the single `scaling_factor` when given;
    the published autoencoders use the factor, the micro one normalises per channel.
    Raises ValueError when the per-stage tuples differ in length or do not fit the shortcuts.
    """

    latent_channels: int = 32
    attention_head_dim: int = 32
    encoder_block_types: tuple[str, ...]
    decoder_block_types: tuple[str, ...]
    encoder_block_out_channels: tuple[int, ...]
    decoder_block_out_channels: tuple[int, ...]
    encoder_layers_per_block: tuple[int, ...]
    decoder_layers_per_block: tuple[int, ...]
    encoder_qkv_multiscales: tuple[tuple[int, ...], ...]
    decoder_qkv_multiscales: tuple[tuple[int, ...], ...]
    upsample_block_type: str = "interpolate"
    downsample_block_type: str = "Conv"
    encoder_out_shortcut: bool = True
    decoder_in_shortcut: bool = True
    decoder_act_fns: str | tuple[str, ...] = "silu"
    decoder_conv_act_fn: str = "relu"
    scaling_factor: float = 0.41407
    latents_mean: tuple[float, ...] | None = None
    latents_std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        stages = len(self.encoder_block_out_channels)
        for field in fields(self):
            value = getattr(self, field.name)
            by_stage = isinstance(value, tuple) and field.name.startswith(("encoder_", "decoder_"))
            if by_stage and len(value) != stages:
                raise ValueError(f"{field.name} has {len(value)} entries for {stages} stages")
        for kind in (*self.encoder_block_types, *self.decoder_block_types):
            if kind not in ("ResBlock", "EfficientViTBlock"):
                raise ValueError(f"block type {kind!r}; allowed: 'ResBlock', 'EfficientViTBlock'")
        for act in (*self.stage_activations, self.decoder_conv_act_fn):
            if act not in _ACTIVATIONS:
                raise ValueError(f"activation {act!r} of a decoder; allowed: {', '.join(_ACTIVATIONS)}")
        for name in ("latents_mean", "latents_std"):
            value = getattr(self, name)
            if value is not None and len(value) != self.latent_channels:
                raise ValueError(
                    f"{name} has {len(value)} entries for {self.latent_channels} latent channels"
                )
        if (self.latents_mean is None) != (self.latents_std is None):
            raise ValueError("latents_mean and latents_std must be given together")

    @property
    def stage_activations(self) -> tuple[str, ...]:
        """The activation of the decoder's residual blocks by stage, finest first."""
        found = self.decoder_act_fns
        return (found,) * len(self.decoder_block_out_channels) if isinstance(found, str) else found

    @property
    def spatial_compression(self) -> int:
        """Pixels per latent position along one side."""
        return int(2 ** (len(self.encoder_block_out_channels) - 1))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build from the content of a `config.json`; raises ValueError on unknown or unsupported fields."""
        values = _known_fields(cls, data, _IGNORED_DCAE_FIELDS)
        stages = len(values["encoder_block_out_channels"])
        for name in ("encoder_block_types", "decoder_block_types"):
            if isinstance(values.get(name), str):
                values[name] = (values[name],) * stages
        acts = values.get("decoder_act_fns")
        if isinstance(acts, list | tuple) and len(acts) == stages and len(set(acts)) == 1:
            # One word for all stages, as others write it.
            values["decoder_act_fns"] = acts[0]
        return cls(**{name: _as_tuple(value) for name, value in values.items()})

    def to_dict(self) -> dict[str, Any]:
        """Return the fields of a `config.json`; per-channel statistics appear only when set."""
        data = {name: value for name, value in asdict(self).items() if value is not None}
        return data | {"_class_name": "AutoencoderDC"} | _IGNORED_DCAE_FIELDS


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(item) for item in value) if isinstance(value, (list, tuple)) else value


def _known_fields(cls: type, data: Mapping[str, Any], ignored: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(cls)}
    known: dict[str, Any] = {}
    for name, value in data.items():
        if name in names:
            known[name] = value
        elif name in ignored:
            # Some files have one value a stage.
            listed = list(value) if isinstance(value, list | tuple) else [value]
            if ignored[name] is not None and any(item != ignored[name] for item in listed):
                raise ValueError(f"{name} is {value!r}; only {ignored[name]!r} is supported")
        elif not name.startswith("_"):
            close = get_close_matches(name, names, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise ValueError(f"unknown field {name!r}{hint} in a {cls.__name__}")
    missing = [f.name for f in fields(cls) if f.name not in known and _is_required(f)]
    if missing:
        raise ValueError(f"missing field {missing[0]!r} in a {cls.__name__}")
    return known


def _is_required(field: Any) -> bool:
    from dataclasses import MISSING

    return field.default is MISSING and field.default_factory is MISSING


_SANA_600M = SanaConfig(
    num_layers=28,
    num_attention_heads=36,
    num_cross_attention_heads=16,
    cross_attention_head_dim=72,
    attention_clip=FP16_MAX,
)
_SANA_1600M_BF16 = SanaConfig(
    num_layers=20, num_attention_heads=70, num_cross_attention_heads=20, cross_attention_head_dim=112
)
_SANA_1600M = replace(_SANA_1600M_BF16, attention_clip=FP16_MAX)
_SANA_15 = replace(_SANA_1600M_BF16, qk_norm=QK_NORM)

#: Every published size, by checkpoint family and resolution; the fp16-trained ones have the clip.
SANA_CONFIGS: dict[str, SanaConfig] = {
    "sana-0.6b-512": replace(_SANA_600M, sample_size=16),
    "sana-0.6b-1024": _SANA_600M,
    "sana-1.6b-512": replace(_SANA_1600M, sample_size=16),
    "sana-1.6b-1024": _SANA_1600M,
    "sana-1.6b-1024-bf16": _SANA_1600M_BF16,
    "sana-1.6b-2k": replace(_SANA_1600M_BF16, sample_size=64, interpolation_scale=1.0),
    "sana-1.6b-4k": replace(_SANA_1600M_BF16, sample_size=128, interpolation_scale=2.0),
    "sana1.5-1.6b-1024": _SANA_15,
    "sana1.5-2.4b-1024": replace(_SANA_15, num_layers=30),
    "sana1.5-3.2b-1024": replace(_SANA_15, num_layers=40),
    "sana1.5-4.8b-1024": replace(_SANA_15, num_layers=60),
    "sana-sprint-0.6b-1024": replace(_SANA_600M, qk_norm=QK_NORM, guidance_embeds=True, attention_clip=None),
    "sana-sprint-1.6b-1024": replace(_SANA_15, guidance_embeds=True),
}

_STAGE_TYPES = ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3
_STAGE_WIDTHS = (128, 256, 512, 512, 1024, 1024)
_STAGE_SCALES: tuple[tuple[int, ...], ...] = ((), (), (), (5,), (5,), (5,))

#: The autoencoder of every published SANA (`dc-ae-f32c32-sana-1.0` and `-1.1` share it).
DC_AE_F32C32 = DCAEConfig(
    encoder_block_types=_STAGE_TYPES,
    decoder_block_types=_STAGE_TYPES,
    encoder_block_out_channels=_STAGE_WIDTHS,
    decoder_block_out_channels=_STAGE_WIDTHS,
    encoder_layers_per_block=(2, 2, 2, 3, 3, 3),
    decoder_layers_per_block=(3, 3, 3, 3, 3, 3),
    encoder_qkv_multiscales=_STAGE_SCALES,
    decoder_qkv_multiscales=_STAGE_SCALES,
)
