"""What a published NVILA directory says about itself; what this code does not compute is refused by name."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sana_bench.core.errors import AssetError
from sana_bench.core.text import read_text

__all__ = ["FILES", "LANGUAGE", "PROJECTOR", "VISION", "NVILAConfig", "read_config"]

LANGUAGE, PROJECTOR, VISION = "llm", "mm_projector", "vision_tower"
#: For error messages: the layout.
FILES = f"config.json, {LANGUAGE}/, {VISION}/, {PROJECTOR}/ of NVILA"

_MERGES = {"mlp_downsample_2x2_fix": 2, "mlp_downsample_3x3_fix": 3}
_ASPECTS = ("dynamic", "resize")
# Multi-scale features and high-resolution selection of other members of the family.
_OTHER_FEATURES = ("s2", "dynamic_s2", "ps3")
_STEPS = ("do_resize", "do_rescale", "do_normalize")


@dataclass(frozen=True, kw_only=True)
class NVILAConfig:
    """How images become tokens.

    An image is cut into `min_tiles` to `max_tiles` squares of `image_size` pixels when `tiled`, else squeezed into one. Features
    are the vision tower's hidden states number `select_layer`; `merge` x `merge` neighbours become one token.
    """

    image_size: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    tiled: bool
    min_tiles: int
    max_tiles: int
    select_layer: int
    merge: int
    chat_template: str | None


def read_config(folder: Path) -> NVILAConfig:
    """Read the configuration files of `folder`.

    Raises:
        AssetError: a file is missing or unreadable, or describes a network that this code does not compute.
    """
    top = _mapping(folder / "config.json")
    projector = _mapping(folder / PROJECTOR / "config.json")
    vision = _mapping(folder / VISION / "config.json")
    images = _mapping(folder / VISION / "preprocessor_config.json")
    try:
        return NVILAConfig(
            **_image_part(images, int(vision["image_size"])),
            tiled=_one_of(top, "image_aspect_ratio", _ASPECTS) == "dynamic",
            min_tiles=int(top.get("min_tiles") or 1),
            max_tiles=int(top.get("max_tiles") or 12),
            select_layer=_select_layer(top),
            merge=_MERGES[_one_of(projector, "mm_projector_type", tuple(_MERGES))],
            chat_template=_chat_template(top, folder),
        )
    except (KeyError, TypeError, ValueError) as error:
        what = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise AssetError(f"{folder}: not an NVILA that this judge computes: {what}") from None


def _image_part(images: Mapping[str, Any], size: int) -> dict[str, Any]:
    found = images["size"]
    if (found.get("height"), found.get("width")) != (size, size):
        raise ValueError(f"images are prepared in {found}, the vision tower reads {size} pixels")
    left_out = [step for step in _STEPS if images.get(step, True) is not True]
    if left_out:
        raise ValueError(f"the preparation of images leaves out {', '.join(left_out)}")
    mean, deviation = (tuple(map(float, images[key])) for key in ("image_mean", "image_std"))
    return {"image_size": size, "mean": mean, "deviation": deviation}


def _select_layer(top: Mapping[str, Any]) -> int:
    for key in _OTHER_FEATURES:
        if top.get(key):
            raise ValueError(f"it uses {key}")
    _one_of(top, "mm_vision_select_feature", ("cls_patch",))
    encoder = top.get("image_encoder") or {}
    encoder = json.loads(encoder) if isinstance(encoder, str) else encoder
    if set(encoder) - {"_target_"} or not encoder.get("_target_", "BasicImageEncoder").endswith(
        "BasicImageEncoder"
    ):
        raise ValueError(f"image_encoder is {encoder}; only a plain BasicImageEncoder is known")
    return int(top["mm_vision_select_layer"])


def _chat_template(top: Mapping[str, Any], folder: Path) -> str | None:
    """The template that the directory names beside its tokenizer's own, or None."""
    name = top.get("chat_template")
    if name is None:
        return None
    path = folder / f"{name}.jinja"
    if not path.is_file() or path.parent != folder:
        raise ValueError(f"its chat template {path} is missing")
    # The reference lays templates out over lines and joins them again.
    return read_text(path).replace("\r\n", "\n").replace("    ", "").replace("\n", "")


def _one_of(values: Mapping[str, Any], key: str, known: tuple[str, ...]) -> str:
    value = values[key]
    if value not in known:
        raise ValueError(f"{key} is {value!r}; known: {', '.join(known)}")
    return str(value)


def _mapping(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(read_text(path))
    except FileNotFoundError:
        raise AssetError(f"{path} is missing: part of NVILA") from None
    except (OSError, ValueError) as error:
        raise AssetError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None
    if not isinstance(content, Mapping):
        raise AssetError(f"{path}: expected a mapping")
    return content
