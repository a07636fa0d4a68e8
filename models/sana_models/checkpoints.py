"""Reading and writing checkpoints: the diffusers folder layout, and the official single-file layout of the transformer.

Weights are never initialised before they are read: modules are built on the meta device and the tensors of the file assigned.
Only safetensors and `torch.load(weights_only=True)` touch files, so a checkpoint cannot run code.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sana_models.config import DCAEConfig, SanaConfig
from sana_models.dc_ae import DCAE
from sana_models.text import TextEncoder
from sana_models.transformer import SanaTransformer

__all__ = [
    "CheckpointError",
    "load_autoencoder",
    "load_flow_shift",
    "load_text_encoder",
    "load_transformer",
    "read_config",
    "save_autoencoder",
    "save_pretrained",
]

WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"
_SHOWN_KEYS = 3

M = TypeVar("M", bound=nn.Module)


class CheckpointError(ValueError):
    """A checkpoint that is missing, truncated, of another model or of other shapes; the text is one line."""


def load_transformer(
    folder: str | Path, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> SanaTransformer:
    """Load a SANA transformer from a folder with `config.json` and safetensors weights, strictly.

    Raises CheckpointError naming the file and the first missing, extra or misshapen keys.
    """
    folder = Path(folder)
    config = _parse(SanaConfig, folder)
    with torch.device("meta"):
        model = SanaTransformer(config)
    return _fill(model, _read_weights(folder, WEIGHTS_NAME), folder, device, dtype)


def load_autoencoder(
    folder: str | Path, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> DCAE:
    """Load a DC-AE from a folder with `config.json` and safetensors weights, strictly; raises CheckpointError."""
    folder = Path(folder)
    config = _parse(DCAEConfig, folder)
    with torch.device("meta"):
        model = DCAE(config)
    return _fill(model, _read_weights(folder, WEIGHTS_NAME), folder, device, dtype)


def load_text_encoder(
    root: str | Path, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> TextEncoder:
    """Load tokenizer and Gemma-2 decoder from `root/tokenizer` and `root/text_encoder`; raises CheckpointError."""
    from transformers import AutoTokenizer, Gemma2Config, Gemma2Model

    root = Path(root)
    folder = root / "text_encoder"
    data = read_config(folder)
    if data.get("model_type") != "gemma2":
        raise CheckpointError(f"{folder / 'config.json'}: model_type is {data.get('model_type')!r}, expected 'gemma2'")
    if not (root / "tokenizer" / "tokenizer_config.json").exists():
        raise CheckpointError(f"{root / 'tokenizer'}: no tokenizer_config.json")
    config = Gemma2Config.from_dict(data)
    # Soft-capped attention scores are only exact on the plain path.
    config._attn_implementation = "eager"
    with torch.device("meta"):
        model = Gemma2Model(config)
    # A causal-LM export prefixes the decoder's keys; the language-model head itself is not used.
    weights = {
        key.removeprefix("model."): value
        for key, value in _read_weights(folder, "model.safetensors").items()
        if not key.startswith("lm_head.")
    }
    _fill(model, weights, folder, device, dtype, check_meta_buffers=False)
    _restore_gemma_buffers(model, config, device)
    try:
        tokenizer = AutoTokenizer.from_pretrained(root / "tokenizer", local_files_only=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{root / 'tokenizer'}: unreadable tokenizer ({_first_line(error)})") from error
    return TextEncoder(tokenizer, model)


def load_flow_shift(root: str | Path) -> float:
    """Return the noise shift stored in `root/scheduler/scheduler_config.json`; raises CheckpointError."""
    data = read_config(Path(root) / "scheduler", "scheduler_config.json")
    shift = data.get("flow_shift", data.get("shift"))
    if not isinstance(shift, int | float) or shift <= 0:
        raise CheckpointError(f"{Path(root) / 'scheduler'}: no positive flow_shift in scheduler_config.json")
    return float(shift)


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
    _write_module(model, config, folder, WEIGHTS_NAME, dtype)


def save_pretrained(
    root: Path,
    *,
    transformer: SanaTransformer,
    autoencoder: DCAE,
    text_encoder: TextEncoder,
    flow_shift: float,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a complete pipeline folder in the diffusers layout."""
    root.mkdir(parents=True, exist_ok=True)
    _write_module(transformer, transformer.config.to_dict(), root / "transformer", WEIGHTS_NAME, dtype)
    save_autoencoder(autoencoder, root / "vae", dtype=dtype)
    gemma = text_encoder.model.config.to_dict() | {"architectures": ["Gemma2Model"]}
    _write_module(text_encoder.model, gemma, root / "text_encoder", "model.safetensors", dtype)
    text_encoder.tokenizer.save_pretrained(root / "tokenizer")
    scheduler = {
        "_class_name": "DPMSolverMultistepScheduler",
        "algorithm_type": "dpmsolver++",
        "solver_order": 2,
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
        "flow_shift": flow_shift,
    }
    _write_json(root / "scheduler" / "scheduler_config.json", scheduler)
    index = {
        "_class_name": "SanaPipeline",
        "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
        "text_encoder": ["transformers", "Gemma2Model"],
        "tokenizer": ["transformers", type(text_encoder.tokenizer).__name__],
        "transformer": ["diffusers", "SanaTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderDC"],
    }
    # Written last: a folder with an index is a complete one.
    _write_json(root / "model_index.json", index)


def read_config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """Read a JSON object; raises CheckpointError naming the file."""
    path = folder / name
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({_first_line(error)})") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: expected an object, found {type(data).__name__}")
    return data


def _parse(kind: Any, folder: Path) -> Any:
    try:
        return kind.from_dict(read_config(folder))
    except (ValueError, TypeError, KeyError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{folder / 'config.json'}: {_first_line(error)}") from error


def _read_weights(folder: Path, name: str) -> dict[str, Tensor]:
    index = folder / f"{name}.index.json"
    if index.is_file():
        files = sorted(set(read_config(folder, index.name).get("weight_map", {}).values()))
    else:
        files = [name]
    weights: dict[str, Tensor] = {}
    for file in files:
        weights |= _read_safetensors(folder / file)
    return weights


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: truncated or not a safetensors file ({_first_line(error)})") from error


def _fill(
    model: M,
    weights: Mapping[str, Tensor],
    source: Path,
    device: str | torch.device,
    dtype: torch.dtype,
    *,
    check_meta_buffers: bool = True,
) -> M:
    expected = model.state_dict()
    check_keys(expected, weights, source)
    model.load_state_dict({key: value.to(device, dtype) for key, value in weights.items()}, assign=True)
    if check_meta_buffers:
        unset = [name for name, buffer in model.named_buffers() if buffer.is_meta]
        if unset:
            raise CheckpointError(f"{source}: buffer {unset[0]!r} is not part of the checkpoint")
    return model.eval().requires_grad_(False)


def check_keys(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], source: Path) -> None:
    """Raise CheckpointError, naming the first few keys, unless names and shapes agree."""
    problems = []
    for label, keys in (("missing", expected.keys() - found.keys()), ("unexpected", found.keys() - expected.keys())):
        if keys:
            problems.append(f"{len(keys)} {label} ({_some(sorted(keys))})")
    shapes = [
        f"{key}: {tuple(found[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in sorted(expected.keys() & found.keys())
        if found[key].shape != expected[key].shape
    ]
    if shapes:
        problems.append(f"{len(shapes)} of another shape ({_some(shapes)})")
    if problems:
        raise CheckpointError(f"{source}: weights do not fit the configuration: {'; '.join(problems)}")


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN_KEYS]) + (", ..." if len(names) > _SHOWN_KEYS else "")


def _restore_gemma_buffers(model: Any, config: Any, device: str | torch.device) -> None:
    """Recompute the non-persistent buffers (rotary frequencies, embedding scale) that no checkpoint holds."""
    model.rotary_emb = type(model.rotary_emb)(config).to(device)
    scale = torch.tensor(model.embed_tokens.scalar_embed_scale, device=device)
    model.embed_tokens.embed_scale = nn.Buffer(scale, persistent=False)


def _write_module(
    model: nn.Module, config: Mapping[str, Any], folder: Path, name: str, dtype: torch.dtype
) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.detach().cpu().to(dtype).contiguous() for key, value in model.state_dict().items()}
    temporary = folder / f".{name}.tmp"
    save_file(tensors, temporary, metadata={"format": "pt"})
    temporary.replace(folder / name)
    _write_json(folder / "config.json", config)


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(data, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    temporary.replace(path)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
