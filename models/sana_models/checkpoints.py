"""Reading and writing checkpoints: the diffusers folder layout, and the official single-file layout.

Weights are never initialised before they are read: modules are built on the meta device and the file's
tensors assigned.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from torch import nn

from sana_kernels import Backend, Kernels, resolve_backend
from sana_models.config import DC_AE_F32C32, SANA_CONFIGS, SANA_PIPELINES, DCAEConfig, SanaConfig
from sana_models.dc_ae import DCAE
from sana_models.files import first_line, link_or_copy, write_whole
from sana_models.hub import locate
from sana_models.key_maps import autoencoder_pieces, transformer_pieces
from sana_models.libraries import without_torchao
from sana_models.published import with_published_clip
from sana_models.single_files import SINGLE_FILES, open_single_file
from sana_models.text import TextEncoder
from sana_models.transformer import SanaTransformer
from sana_models.weight_files import (
    CheckpointError,
    StoredTensor,
    assign_weights,
    has_variant,
    open_folder,
    read_config,
    take_pieces,
)

__all__ = [
    "CheckpointError",
    "check_pipeline_folder",
    "load_autoencoder",
    "load_flow_shift",
    "load_text_encoder",
    "load_transformer",
    "part_variants",
    "read_config",
    "refuse_sprint",
    "save_autoencoder",
    "save_pretrained",
    "save_transformer",
]

_WEIGHTS = "diffusion_pytorch_model"
_SCM_SCHEDULER = "SCMScheduler"
#: What a configuration of wrong types or sizes raises while a module is built from it.
_BUILD_ERRORS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)

M = TypeVar("M", bound=nn.Module)
N = TypeVar("N", SanaTransformer, DCAE)
T = TypeVar("T")


def load_transformer(
    path: str | Path,
    *,
    config: SanaConfig | str | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    variant: str | None = None,
    kernels: Kernels = "auto",
    ema: bool = False,
) -> SanaTransformer:
    """Load a SANA transformer strictly, frozen and in evaluation mode.

    `path` is a diffusers folder (of the transformer or of a whole pipeline), whose `config.json` is used, the hub id
    `org/name[@revision]` of one, or a single file (see `single_files`): an official `.pth`, one of a trainer, a `state.pt` of
    `sana-bench train`, or a `.safetensors` in either naming. A file says nothing about head counts and needs `config` (or its
    name in `SANA_CONFIGS`), or a `config.json` beside it; `ema` takes its moving average. `variant` picks files such as
    `*.fp16.safetensors` of a folder. Raises CheckpointError naming the file and the first missing, extra or
    misshapen keys, and ValueError for an unknown `config`. `kernels` is resolved for `device` (see
    `sana_kernels.resolve_backend`, which raises KernelError, a ValueError, for kernels that cannot run there); Triton's
    are compared with PyTorch's on the device first, and a difference is a KernelError.
    """
    backend = resolve_backend(kernels, device)
    path = locate(path, part="transformer", variant=variant)
    if not _is_official(path):
        data, tensors = read_config(path), open_folder(path, _WEIGHTS, variant)
        model = _build(
            lambda: SanaTransformer(with_published_clip(SanaConfig.from_dict(data), data, path, tensors)),
            path / "config.json",
        )
        model = assign_weights(model, tensors, path, device, dtype)
        return _use_kernels(model, backend, device, dtype)
    known = _config_of(path, config)
    tensors = open_single_file(path, ema=ema)
    model = _build(lambda: SanaTransformer(known), path)
    model = assign_weights(model, take_pieces(tensors, transformer_pieces(tensors)), path, device, dtype)
    return _use_kernels(model, backend, device, dtype)


def load_autoencoder(
    path: str | Path,
    *,
    config: DCAEConfig = DC_AE_F32C32,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    variant: str | None = None,
    kernels: Kernels = "auto",
) -> DCAE:
    """Load a DC-AE strictly.

    `path` is a diffusers folder or a hub id, of its own or of a whole pipeline, or an official `.pth` file of the
    given `config`, or another single file of one. Raises CheckpointError naming the file and the first missing, extra or
    misshapen keys. `kernels` is as in `load_transformer`.
    """
    backend = resolve_backend(kernels, device)
    path = locate(path, part="vae", variant=variant)
    if not _is_official(path):
        model = _build(lambda: DCAE(DCAEConfig.from_dict(read_config(path))), path / "config.json")
        model = assign_weights(model, open_folder(path, _WEIGHTS, variant), path, device, dtype)
        return _use_kernels(model, backend, device, dtype)
    tensors = open_single_file(path, part="autoencoder")
    model = _build(lambda: DCAE(config), path)
    model = assign_weights(model, take_pieces(tensors, autoencoder_pieces(tensors)), path, device, dtype)
    return _use_kernels(model, backend, device, dtype)


def load_text_encoder(
    root: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    variant: str | None = None,
) -> TextEncoder:
    """Load tokenizer and Gemma-2 decoder from `root/tokenizer` and `root/text_encoder`; raises
    CheckpointError.
    """
    from huggingface_hub.errors import StrictDataclassError

    with without_torchao():
        from transformers import AutoTokenizer, Gemma2Config, Gemma2Model

    root = locate(root, variant=variant)
    folder = root / "text_encoder"
    data = read_config(folder)
    kind = data.get("model_type")
    if kind != "gemma2":
        raise CheckpointError(f"{folder / 'config.json'}: model_type is {kind!r}, expected 'gemma2'")
    if not (root / "tokenizer" / "tokenizer_config.json").exists():
        raise CheckpointError(f"{root / 'tokenizer'}: no tokenizer_config.json")
    try:
        config = Gemma2Config.from_dict(data)
    except (StrictDataclassError, *_BUILD_ERRORS) as error:
        raise CheckpointError(f"{folder / 'config.json'}: {first_line(error)}") from error
    # Soft-capped attention scores are only exact on the plain path.
    config._attn_implementation = "eager"
    model = _build(lambda: Gemma2Model(config), folder / "config.json")
    assign_weights(model, _decoder_weights(open_folder(folder, "model", variant)), folder, device, dtype)
    _restore_gemma_buffers(model, config, device)
    try:
        tokenizer = AutoTokenizer.from_pretrained(root / "tokenizer", local_files_only=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{root / 'tokenizer'}: unreadable tokenizer ({first_line(error)})") from error
    if len(tokenizer) > config.vocab_size:
        found = f"{len(tokenizer)} words for {config.vocab_size} embeddings"
        raise CheckpointError(f"{root / 'tokenizer'}: not the tokenizer of this text encoder, {found}")
    return TextEncoder(tokenizer, model)


def part_variants(root: Path, variant: str | None) -> dict[str, str | None]:
    """Return for each part of a pipeline folder the weight variant to read: `variant`, or None where the part has none of it.

    As diffusers does for mixed folders. Raises CheckpointError when no part has it, naming what there is.
    """
    folders = {part: locate(root, part=part) for part in ("transformer", "vae", "text_encoder")}
    if variant is None:
        return dict.fromkeys(folders)
    found = {part: variant if has_variant(folder, variant) else None for part, folder in folders.items()}
    if not any(found.values()):
        names = sorted({path.name for folder in folders.values() for path in folder.glob("*.safetensors")})
        raise CheckpointError(f"{root}: no weights of variant {variant!r} (found {', '.join(names[:4])})")
    return found


def load_flow_shift(root: str | Path) -> float | None:
    """Return the noise shift stored in `root/scheduler/scheduler_config.json`, None where SANA-Sprint's scheduler is.

    Raises CheckpointError.
    """
    data = read_config(Path(root) / "scheduler", "scheduler_config.json")
    if data.get("_class_name") == _SCM_SCHEDULER:
        return None
    shift = data.get("flow_shift", data.get("shift"))
    if not isinstance(shift, int | float) or isinstance(shift, bool) or shift <= 0:
        raise CheckpointError(f"{Path(root) / 'scheduler'}: no positive flow_shift in scheduler_config.json")
    return float(shift)


def check_pipeline_folder(root: Path) -> None:
    """Raise CheckpointError unless `root/model_index.json` describes a SANA pipeline."""
    kind = read_config(root, "model_index.json").get("_class_name")
    if kind not in SANA_PIPELINES:
        raise CheckpointError(
            f"{root / 'model_index.json'}: pipeline is {kind!r}, expected {SANA_PIPELINES[0]!r}"
        )


def refuse_sprint(root: Path) -> None:
    """Raise CheckpointError for SANA-Sprint, which flow matching would undo, from its configuration alone."""
    if read_config(locate(root, part="transformer")).get("guidance_embeds"):
        raise CheckpointError(
            f"{root}: is SANA-Sprint, distilled for a few steps: training, growing and pruning know flow matching only"
        )


def save_autoencoder(
    model: DCAE,
    folder: Path,
    *,
    latents_mean: list[float] | None = None,
    latents_std: list[float] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write `config.json` and weights; given statistics are stored in the configuration."""
    config = model.config.to_dict()
    if latents_mean is not None and latents_std is not None:
        config |= {"latents_mean": latents_mean, "latents_std": latents_std}
    _write_module(model, config, folder, f"{_WEIGHTS}.safetensors", dtype)


def save_transformer(model: SanaTransformer, folder: Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Write a transformer's `config.json` and weights in the diffusers layout."""
    _write_module(model, model.config.to_dict(), folder, f"{_WEIGHTS}.safetensors", dtype)


def save_pretrained(
    root: Path,
    *,
    transformer: SanaTransformer,
    autoencoder: DCAE,
    text_encoder: TextEncoder,
    flow_shift: float | None,
    dtype: torch.dtype = torch.float32,
    written: Mapping[str, Path] = MappingProxyType({}),
) -> None:
    """Write a complete pipeline folder in the diffusers layout; `flow_shift` is None for SANA-Sprint.

    Parts that are `written` already, folders by name (`vae`, `text_encoder`, `tokenizer`), get a further name for each file.

    An autoencoder with per-channel latent statistics, which diffusers would silently ignore, is recorded as
    this package's own class, so that diffusers refuses the folder.
    """
    root.mkdir(parents=True, exist_ok=True)
    save_transformer(transformer, root / "transformer", dtype=dtype)
    gemma = text_encoder.model.config.to_dict() | {"architectures": ["Gemma2Model"]}
    parts: dict[str, Callable[[Path], object]] = {
        "vae": lambda folder: save_autoencoder(autoencoder, folder, dtype=dtype),
        "text_encoder": lambda folder: _write_module(
            text_encoder.model, gemma, folder, "model.safetensors", dtype
        ),
        "tokenizer": text_encoder.tokenizer.save_pretrained,
    }
    for name, write in parts.items():
        if name in written:
            _link_files(written[name], root / name)
        else:
            write(root / name)
    scheduler: dict[str, Any] = {
        "_class_name": "DPMSolverMultistepScheduler",
        "algorithm_type": "dpmsolver++",
        "solver_order": 2,
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
        "flow_shift": flow_shift,
    }
    if flow_shift is None:
        scheduler = {"_class_name": _SCM_SCHEDULER, "prediction_type": "trigflow", "sigma_data": 0.5}
    _write_json(root / "scheduler" / "scheduler_config.json", scheduler)
    plain = autoencoder.config.latents_mean is None
    index = {
        "_class_name": "SanaPipeline" if flow_shift is not None else "SanaSprintPipeline",
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "text_encoder": ["transformers", "Gemma2Model"],
        "tokenizer": ["transformers", type(text_encoder.tokenizer).__name__],
        "transformer": ["diffusers", "SanaTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderDC"] if plain else ["sana_models", "DCAE"],
    }
    # Written last: a folder with an index is a complete one.
    _write_json(root / "model_index.json", index)


def _use_kernels(model: N, backend: Backend, device: str | torch.device, dtype: torch.dtype) -> N:
    model.use_kernels(backend)
    if backend == "triton":
        from sana_kernels.self_check import check_operations

        check_operations(torch.device(device), dtype)
    return model


def _is_official(path: Path) -> bool:
    return path.suffix in SINGLE_FILES


def _config_of(path: Path, config: SanaConfig | str | None) -> SanaConfig:
    """Return the configuration of a single file: the one given, by name, or that of the `config.json` beside it."""
    if config is None and (path.parent / "config.json").is_file():
        return _build(lambda: SanaConfig.from_dict(read_config(path.parent)), path.parent / "config.json")
    if config is None:
        raise ValueError(f"{path} needs a config; by name: {', '.join(SANA_CONFIGS)}")
    known = SANA_CONFIGS.get(config) if isinstance(config, str) else config
    if known is None:
        raise ValueError(f"config is {config!r}; allowed: {', '.join(SANA_CONFIGS)}")
    return known


def _build(make: Callable[[], T], source: Path) -> T:
    try:
        with torch.device("meta"):
            return make()
    except CheckpointError:
        raise
    except _BUILD_ERRORS as error:
        raise CheckpointError(f"{source}: {first_line(error)}") from error


def _decoder_weights(tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Reduce a causal-LM export to its decoder: its keys carry a prefix, and the language-model head is not
    used.
    """
    return {
        key.removeprefix("model."): value for key, value in tensors.items() if not key.startswith("lm_head.")
    }


def _restore_gemma_buffers(model: Any, config: Any, device: str | torch.device) -> None:
    """Recompute the non-persistent buffers (rotary frequencies, embedding scale) that no checkpoint holds."""
    model.rotary_emb = type(model.rotary_emb)(config).to(device)
    scale = torch.tensor(model.embed_tokens.scalar_embed_scale, device=device)
    model.embed_tokens.embed_scale = nn.Buffer(scale, persistent=False)
    unset = [name for name, buffer in model.named_buffers() if buffer.is_meta]
    if unset:
        raise RuntimeError(f"this transformers version has a Gemma-2 buffer of unknown content: {unset[0]}")


def _write_module(
    model: nn.Module, config: Mapping[str, Any], folder: Path, name: str, dtype: torch.dtype
) -> None:
    from safetensors.torch import save_file

    tensors = {key: value.detach().cpu().to(dtype).contiguous() for key, value in model.state_dict().items()}
    write_whole(folder / name, lambda file: save_file(tensors, file.name, metadata={"format": "pt"}))
    _write_json(folder / "config.json", config)


def _link_files(source: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        link_or_copy(path, folder / path.name)


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    text = json.dumps(data, indent=2, sort_keys=True) + "\n"
    write_whole(path, lambda file: file.write(text.encode()))
