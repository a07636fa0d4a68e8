"""Low-rank adapters (LoRA, arXiv 2106.09685) of diffusers and PEFT, merged into a transformer's weights when it is loaded.

Of a matrix W the adapter holds A (rank, in) and B (out, rank); merged it is W + scale alpha / rank B A. alpha is the rank where a
file does not say it, as in diffusers.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from sana_models.files import parse_json, plain
from sana_models.hub import locate
from sana_models.transformer import SanaTransformer
from sana_models.weight_files import CheckpointError, StoredTensor, open_safetensors, read_config
from sana_models.weight_names import ADAPTER_CONFIG, lora_file

__all__ = ["locate_lora", "merge_lora"]

# What diffusers, PEFT and older trainers call the two matrices, and put before the module's name.
_FIRST = ("lora_A", "lora_down", "lora.down")
_KEY = re.compile(
    r"(?:base_model\.model\.)?(?:transformer\.)?(?P<module>.+?)\."
    r"(?:alpha|(?P<kind>lora_A|lora_B|lora_down|lora_up|lora\.down|lora\.up)(?:\.\w+)?\.weight)"
)
_METADATA = "lora_adapter_metadata"


@dataclass(frozen=True)
class _Settings:
    """What PEFT's configuration says of the strength; `patterns` has the alpha of modules whose names end so."""

    alpha: float | None = None
    patterns: Mapping[re.Pattern[str], float] = field(default_factory=dict)
    root_of_rank: bool = False

    def scaling(self, module: str, rank: int, alpha: float | None) -> float:
        """What B A is multiplied with; `alpha` is the module's own in the file."""
        if alpha is None:
            matching = (value for key, value in self.patterns.items() if key.fullmatch(module))
            alpha = next(matching, self.alpha)
        return (rank if alpha is None else alpha) / (math.sqrt(rank) if self.root_of_rank else rank)


def locate_lora(source: str | Path) -> Path:
    """Return the file of an adapter: `source` itself, or the one in a folder or hub id; raises CheckpointError, one line."""
    path = locate(source)
    if path.is_file():
        return path
    try:
        return path / lora_file(one.name for one in path.iterdir())
    except ValueError as error:
        raise CheckpointError(f"{source}: {error}") from None


@torch.no_grad()
def merge_lora(transformer: SanaTransformer, source: str | Path, scale: float = 1.0) -> None:
    """Add `scale` times the adapter of a file, folder or hub id to the transformer's weights.

    Sums are in fp32. Raises CheckpointError, one line, before a weight is changed: for files that are no plain LoRA of a
    transformer, and for one of another model or size.
    """
    path = locate_lora(source)
    changes = [_Change(transformer, name, pair, path) for name, pair in _read(path).items()]
    settings = _settings(path)
    strengths = [scale * change.strength(settings, path) for change in changes]
    for change, strength in zip(changes, strengths, strict=True):
        a, b = (one.read().to(change.weight.device, torch.float32).flatten(1) for one in (change.a, change.b))
        change.weight.copy_(change.weight.float() + strength * (b @ a).view_as(change.weight))


class _Change:
    """The adapter of one module, checked against the weight that it belongs to."""

    def __init__(
        self, transformer: SanaTransformer, name: str, found: Mapping[str, StoredTensor], path: Path
    ) -> None:
        """Raises CheckpointError for a module that is not there, of another size, or that an adapter cannot be merged into."""
        self.name = name
        if not {"a", "b"} <= found.keys():
            raise CheckpointError(f"{path}: {name} has one of the two matrices of a LoRA")
        self.a, self.b, self.alpha = found["a"], found["b"], found.get("alpha")
        try:
            module = transformer.get_submodule(name)
        except AttributeError:
            raise CheckpointError(f"{path}: a LoRA of another model, which has a {name}") from None
        if not isinstance(module, nn.Linear | nn.Conv2d) or getattr(module, "groups", 1) > 1:
            raise CheckpointError(f"{path}: {name} is a {type(module).__name__} that no LoRA is merged into")
        self.weight: Tensor = module.weight
        outer, *inner = module.weight.shape
        if len(self.b.shape) < 2 or self.b.shape[0] != outer or self.a.shape[1:] != tuple(inner):
            made = f"{(*self.b.shape[:1], *self.a.shape[1:])}"
            raise CheckpointError(
                f"{path}: a LoRA of another size: {name} is {made} there, {tuple(module.weight.shape)} here"
            )
        if self.a.shape[0] != self.b.shape[1] or math.prod(self.b.shape[2:]) != 1:
            raise CheckpointError(
                f"{path}: the matrices of {name} have ranks {self.a.shape[0]} and {self.b.shape[1]}"
            )
        if not self.a.shape[0] or (self.alpha is not None and math.prod(self.alpha.shape) != 1):
            raise CheckpointError(
                f"{path}: {name} has matrices of rank 0, or an alpha that is not one number"
            )

    def strength(self, settings: _Settings, path: Path) -> float:
        """What the product of the matrices is added with; raises CheckpointError unless all that is read is finite numbers."""
        a, b = self.a.read(), self.b.read()
        alpha = None if self.alpha is None else float(self.alpha.read())
        finite = all(one.is_floating_point() and bool(one.float().isfinite().all()) for one in (a, b))
        if not finite or not math.isfinite(alpha or 0):
            raise CheckpointError(f"{path}: {self.name} holds values that are not finite numbers")
        return settings.scaling(self.name, a.shape[0], alpha)


def _read(path: Path) -> dict[str, dict[str, StoredTensor]]:
    """What a file holds by module: `a`, `b`, and `alpha` where it is there."""
    found: dict[str, dict[str, StoredTensor]] = {}
    for key, tensor in open_safetensors(path).items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise CheckpointError(f"{path}: {key} belongs to no plain LoRA of a transformer")
        kind = "alpha" if match["kind"] is None else "a" if match["kind"] in _FIRST else "b"
        found.setdefault(match["module"], {})[kind] = tensor
    if not found:
        raise CheckpointError(f"{path}: holds no LoRA")
    return found


def _settings(path: Path) -> _Settings:
    """The configuration in the file's header, as diffusers writes it, or beside the file, as PEFT does."""
    with safe_open(plain(path), framework="pt") as file:
        stored = (file.metadata() or {}).get(_METADATA)
    if stored is not None:
        try:
            named = parse_json(stored)
            data = {key.removeprefix("transformer."): value for key, value in named.items()}
        except (ValueError, AttributeError):
            raise CheckpointError(f"{path}: its {_METADATA} is not a JSON object") from None
    elif (path.parent / ADAPTER_CONFIG).is_file():
        data = read_config(path.parent, ADAPTER_CONFIG)
    else:
        return _Settings()
    if data.get("use_dora"):
        raise CheckpointError(f"{path}: a DoRA, which is no plain LoRA")
    alpha, patterns = data.get("lora_alpha"), data.get("alpha_pattern") or {}
    try:
        if not all(math.isfinite(one) for one in (*patterns.values(), alpha or 0)):
            raise ValueError
        compiled = {re.compile(rf"(.*\.)?({key})"): value for key, value in patterns.items()}
    except (AttributeError, TypeError, ValueError, re.error):
        raise CheckpointError(
            f"{path}: lora_alpha and alpha_pattern of its configuration are not numbers by pattern"
        ) from None
    return _Settings(alpha, compiled, bool(data.get("use_rslora")))
