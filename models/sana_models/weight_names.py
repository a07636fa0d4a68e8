"""Which weight files of a folder or repository are read, by their names alone.

A folder may hold its weights several times: `model.safetensors`, `model.fp16.safetensors`, and each of them in shards with an
index. Loaders read those of one variant, or the plain ones where a folder has none of it, and the shards where there is an index.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

__all__ = [
    "ADAPTER_CONFIG",
    "WeightFile",
    "files_to_read",
    "is_mixed",
    "lora_file",
    "refuse_variant",
    "weight_file",
]

_SUFFIX = ".safetensors"
# Shards are named in two ways: model.fp16-00001-of-00002.safetensors, and model-00001-of-00002.fp16.safetensors before.
_NAME = re.compile(
    r"(?:diffusion_pytorch_model|model)(?:\.(?P<early>[\w-]+?))?(?P<shard>-\d{5}-of-\d{5})?(?:\.(?P<late>[\w-]+))?"
    r"\.safetensors(?P<index>\.index(?:\.(?P<named>[\w-]+))?\.json)?"
)
_SHOWN = 4
# Where diffusers and PEFT put a LoRA, and what PEFT says of it beside it.
_LORA_NAMES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class WeightFile:
    """What a name says: the variant (None for a plain file), and whether the file is a shard or an index of shards."""

    variant: str | None
    is_shard: bool
    is_index: bool


def weight_file(name: str) -> WeightFile | None:
    """Read a file name without its folder; None for a file that holds no weights that a loader looks for."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    variant = match["early"] or match["late"] or match["named"]
    return WeightFile(variant, match["shard"] is not None, match["index"] is not None)


def files_to_read(names: Iterable[str], variant: str | None = None) -> list[str]:
    """Those of `names`, relative paths in a folder or repository, that its readers open for `variant`; what holds no weights too.

    In a pipeline, weights outside of its parts (a single file of everything, say) are read by nobody.
    """
    names = list(names)
    is_pipeline = "model_index.json" in names
    kept: set[str] = set()
    for folder, inside in _by_folder(names).items():
        found = {name: weights for name, weights in inside.items() if weights is not None}
        files = [one for one in found.values() if not one.is_index]
        chosen = variant if any(one.variant == variant for one in files) else None
        own = [one for one in found.values() if one.variant == chosen]
        whole = any(not one.is_shard and not one.is_index for one in own)
        sharded = any(one.is_shard for one in own) and (any(one.is_index for one in own) or not whole)
        unread = is_pipeline and "config.json" not in inside
        for name, weights in inside.items():
            if weights is not None:
                keep = weights.variant == chosen and (weights.is_index or weights.is_shard == sharded)
            else:
                keep = not name.endswith(_SUFFIX) or not files
            if keep and not (unread and name.endswith(_SUFFIX)):
                kept.add(f"{folder}{name}")
    return [name for name in names if name in kept]


def refuse_variant(names: Iterable[str], variant: str | None) -> None:
    """Raise ValueError, in one line, where `files_to_read` would leave a folder without weights or the variant is nowhere."""
    names = list(names)
    variants = {
        folder: {one.variant for one in inside.values() if one is not None and not one.is_index}
        for folder, inside in _by_folder(names).items()
    }
    if variant is not None and not any(variant in own for own in variants.values()):
        weights = sorted(name.rpartition("/")[2] for name in names if name.endswith(_SUFFIX))
        raise ValueError(f"no weights of variant {variant!r} (found {', '.join(weights[:_SHOWN]) or 'none'})")
    for folder, own in variants.items():
        if own and not {variant, None} & own:
            where, there = folder.rstrip("/") or "the folder", ", ".join(sorted(map(str, own)))
            raise ValueError(
                f"{where} has weights of variant {there} alone: say so (weights_variant, --weights-variant)"
            )


def is_mixed(names: Iterable[str], variant: str) -> bool:
    """Whether some folder has weights, and none of them of the variant."""
    folders = (filter(None, inside.values()) for inside in _by_folder(names).values())
    variants = ({one.variant for one in found if not one.is_index} for found in folders)
    return any(own and variant not in own for own in variants)


def lora_file(names: Iterable[str]) -> str:
    """The file of a folder that holds its LoRA: of the name that diffusers or PEFT gives it, or the only one.

    Raises ValueError, in one line, where there is none or several.
    """
    found = sorted(name for name in names if name.endswith(_SUFFIX))
    known = [name for name in _LORA_NAMES if name in found] or found
    if len(known) != 1:
        there = ", ".join(found[:_SHOWN]) or "none"
        raise ValueError(f"one file of a LoRA is needed, *{_SUFFIX} (found {there})")
    return known[0]


def _by_folder(names: Iterable[str]) -> Mapping[str, dict[str, WeightFile | None]]:
    """File names by folder, which ends in a slash unless it is the top."""
    found: dict[str, dict[str, WeightFile | None]] = {}
    for path in names:
        folder, slash, name = path.rpartition("/")
        found.setdefault(folder + slash, {})[name] = weight_file(name)
    return found
