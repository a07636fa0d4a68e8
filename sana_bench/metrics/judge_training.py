"""What the trainings of the micro world's judges share: their configuration, their pictures, and what they leave."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sana_bench import atomic
from sana_bench.metrics.pixels import CLIP_MEAN, CLIP_STD
from sana_bench.micro.world import COLORS, SHAPES
from sana_models.training.curve import plot_curve
from sana_models.training.loop import LoopConfig

__all__ = [
    "PatchTeacher",
    "Sections",
    "export_curve",
    "only_keys",
    "parameter_groups",
    "read_sections",
    "training_pixels",
]


@dataclass(frozen=True)
class Sections:
    """A training configuration, its keys checked; `data` and `model` are as the file gives them."""

    name: str
    data: dict[str, Any]
    model: dict[str, Any]
    loop: LoopConfig


def read_sections(config: Mapping[str, Any], data_keys: Sequence[str], model_keys: Sequence[str]) -> Sections:
    """Raises ValueError for a missing section, an unknown key, or ill-fitting values of `training`."""
    only_keys("", config, ("kind", "name", "data", "model", "training"))
    found: dict[str, dict[str, Any]] = {}
    for name in ("data", "model", "training"):
        section = config.get(name)
        if not isinstance(section, Mapping):
            raise ValueError(f"section {name!r} is missing or not a mapping")
        found[name] = dict(section)
    only_keys("data.", found["data"], ("source", *data_keys))
    only_keys("model.", found["model"], model_keys)
    training = found["training"]
    only_keys("training.", training, tuple(entry.name for entry in fields(LoopConfig)))
    if "betas" in training:
        training["betas"] = tuple(training["betas"])
    try:
        loop = LoopConfig(**training)
    except TypeError as error:
        raise ValueError(f"training: {error}") from None
    return Sections(str(config.get("name")), found["data"], found["model"], loop)


def only_keys(prefix: str, section: Mapping[str, Any], allowed: Sequence[str]) -> None:
    """Raise ValueError for the first key of `section` that is not among `allowed`."""
    unknown = sorted(set(section) - set(allowed))
    if unknown:
        raise ValueError(f"unknown key '{prefix}{unknown[0]}'; allowed: {', '.join(allowed)}")


def parameter_groups(modules: Mapping[str, nn.Module], learning_rate: float) -> list[dict[str, Any]]:
    """Weight decay on matrices only."""
    named = [pair for module in modules.values() for pair in module.named_parameters()]
    plain = [p for name, p in named if p.ndim < 2 or "embedding" in name]
    decayed = [p for name, p in named if not (p.ndim < 2 or "embedding" in name)]
    return [
        {"params": decayed, "lr": learning_rate},
        {"params": plain, "lr": learning_rate, "weight_decay": 0.0},
    ]


class PatchTeacher(nn.Module):
    """Heads of the training alone, which teach an image tower what a patch shows; both are thrown away afterwards."""

    def __init__(self, vision_width: int) -> None:
        super().__init__()
        self.shapes = nn.Linear(vision_width, len(SHAPES) + 1)
        self.colors = nn.Linear(vision_width, len(COLORS) + 1)

    def patch_loss(self, patches: Tensor, shapes: Tensor, colors: Tensor) -> Tensor:
        """Cross-entropies of image tokens (n, patches, width) against labels (n, patches), added."""
        return F.cross_entropy(self.shapes(patches).flatten(0, 1), shapes.flatten()) + F.cross_entropy(
            self.colors(patches).flatten(0, 1), colors.flatten()
        )


def training_pixels(images: NDArray[np.uint8], blur: float, generator: torch.Generator) -> Tensor:
    """RGB (n, height, width, 3) as CLIP-normalised (n, 3, height, width), edges softened at random.

    Each picture is mixed with its 3x3 mean by a share of up to `blur`: generated edges are soft, rendered ones are
    not.
    """
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    share = blur * torch.rand(len(pixels), 1, 1, 1, generator=generator)
    padded = nn.functional.pad(pixels, (1, 1, 1, 1), mode="replicate")
    softened = pixels + share * (nn.functional.avg_pool2d(padded, 3, stride=1) - pixels)
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
    return (softened - mean) / deviation


def export_curve(out: Path, folder: Path, columns: tuple[str, ...], title: str) -> None:
    """Put `curve.csv` of the finished run in `out` beside the exported weights, and its picture."""
    atomic.write_bytes(folder / "curve.csv", (out / "curve.csv").read_bytes())
    plot_curve(folder / "curve.csv", folder / "curve.png", columns=columns, title=title)
