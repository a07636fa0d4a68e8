"""What the trainings of the micro tier's scorers share: their configuration, their pictures, and what they leave."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from numpy.typing import NDArray
from torch import Tensor, nn

from sana_bench.assets.locate import MICRO_SCHEME, resolve_folder
from sana_bench.core import atomic
from sana_bench.core.preprocess import CLIP_MEAN, CLIP_STD
from sana_bench.micro.world import COLORS, SHAPES
from sana_models.files import read_bytes
from sana_models.training.curve import plot_curve
from sana_models.training.loop import TrainingResult
from sana_models.training.loop_config import LoopConfig
from sana_models.training.reading import read_path

__all__ = [
    "EVALUATION_SEED",
    "CardText",
    "PatchTeacher",
    "Sections",
    "export_curve",
    "go_on_from",
    "only_keys",
    "parameter_groups",
    "read_sections",
    "training_pixels",
    "write_card",
]

#: Seed of the scenes by which cards measure: a stream that no training run uses, whose seeds are small.
EVALUATION_SEED = 2**31 - 1

_CARD = """# {name}

{about}

- Parameters: {parameters}
- Command: `{command}`
- {effort}
- Data: {data}

![Training curve](curve.png)

{measured}

## Configuration

```yaml
{config}
```
"""


@dataclass(frozen=True)
class Sections:
    """A training configuration, its keys checked; `data` and `model` are as the file gives them.

    start: folder of the weights to go on from, where the file names one.
    """

    name: str
    data: dict[str, Any]
    model: dict[str, Any]
    loop: LoopConfig
    start: Path | None = None


def read_sections(
    config: Mapping[str, Any],
    data_keys: Sequence[str],
    model_keys: Sequence[str],
    defaults: Mapping[str, Any] | None = None,
) -> Sections:
    """`defaults` are for `training`, before the loop's own.

    Raises ValueError for a missing section, an unknown key, or ill-fitting values of `training`.
    """
    only_keys("", config, ("kind", "name", "start", "data", "model", "training"))
    found: dict[str, dict[str, Any]] = {}
    for name in ("data", "model", "training"):
        section = config.get(name)
        if not isinstance(section, Mapping):
            raise ValueError(f"section {name!r} is missing or not a mapping")
        found[name] = dict(section)
    only_keys("data.", found["data"], ("source", *data_keys))
    only_keys("model.", found["model"], model_keys)
    training = found["training"]
    loop = LoopConfig.from_dict({**(defaults or {}), **training})
    start = config.get("start")
    start = None if config.get("start") is None else read_path("start", config["start"])
    if start is not None and config["start"].startswith(MICRO_SCHEME):
        start = resolve_folder(config["start"], Path())
    return Sections(str(config.get("name")), found["data"], found["model"], loop, start)


def only_keys(prefix: str, section: Mapping[str, Any], allowed: Sequence[str]) -> None:
    """Raise ValueError for the first key of `section` that is not among `allowed`."""
    unknown = sorted(set(section) - set(allowed))
    if unknown:
        raise ValueError(f"unknown key '{prefix}{unknown[0]}'; allowed: {', '.join(allowed)}")


def go_on_from(network: nn.Module, state: Mapping[str, Tensor], start: Path) -> None:
    """Give `network` the weights of `state`, from `start`; raises ValueError when the sizes differ."""
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ValueError(f"start: {start} is not of the size that `model` asks for") from error


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
    """Heads of the training alone, thrown away afterwards: they teach an image tower what a patch shows and where it is.

    Without the second half a tower keeps of a patch's place only what the first questions need, and those for places are
    never learnt.
    """

    def __init__(self, vision_width: int, side: int, more: Mapping[str, int] | None = None) -> None:
        """`more`: further labels of a patch by name, with the number of their values, 0 included."""
        super().__init__()
        self._side = side
        self.rows = nn.Linear(vision_width, side)
        self.columns = nn.Linear(vision_width, side)
        self.shapes = nn.Linear(vision_width, len(SHAPES) + 1)
        self.colors = nn.Linear(vision_width, len(COLORS) + 1)
        self.more = nn.ModuleDict(
            {name: nn.Linear(vision_width, count) for name, count in (more or {}).items()}
        )

    def patch_loss(
        self, patches: Tensor, shapes: Tensor, colors: Tensor, more: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Cross-entropies of image tokens (n, side * side, width) against labels (n, side * side) and places, added."""
        places = torch.arange(self._side * self._side).expand_as(shapes)
        parts = (
            (self.shapes, shapes),
            (self.colors, colors),
            (self.rows, places // self._side),
            (self.columns, places % self._side),
        )
        losses = [F.cross_entropy(head(patches).flatten(0, 1), labels.flatten()) for head, labels in parts]
        # Few patches have such a label: those that have and those that have none count alike.
        for name, labels in (more or {}).items():
            found = self.more[name](patches)
            losses += [
                F.cross_entropy(found[those], labels[those])
                for those in (labels > 0, labels == 0)
                if bool(those.any())
            ]
        return torch.stack(losses).sum()


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


def export_curve(
    out: Path, folder: Path, columns: tuple[str, ...], title: str, order: tuple[str, ...] | None = None
) -> None:
    """Put `curve.csv` of the finished run in `out` beside the exported weights, and a picture of `columns`.

    `order` are the columns of the copy, by default as the loop wrote them.
    """
    content = read_bytes(out / "curve.csv")
    if order is not None:
        rows = csv.DictReader(io.StringIO(content.decode(), newline=""))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, order, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        content = text.getvalue().encode()
    atomic.write_bytes(folder / "curve.csv", content)
    plot_curve(folder / "curve.csv", folder / "curve.png", columns=columns, title=title)


@dataclass(frozen=True, kw_only=True)
class CardText:
    """What a model card says of one kind of scorer: what it is, its parameters, its data, and how right it is (Markdown).

    effort: the line on what it took, with places for `steps` and `minutes`.
    """

    name: str
    about: str
    parameters: str
    data: str
    measured: str
    effort: str = "{steps} steps, {minutes:.0f} minutes"


def write_card(folder: Path, text: CardText, *, config: str, result: TrainingResult) -> None:
    """Write the model card `README.md` beside the weights in `folder`; `config` is the training's configuration, YAML."""
    settings = yaml.safe_load(config)
    start = f", from the weights in `{settings['start']}`" if settings.get("start") else ""
    effort = text.effort.format(steps=result.steps, minutes=result.seconds / 60) + start
    card = _CARD.format(
        **vars(text) | {"effort": effort},
        command=f"sana-bench train configs/train/{settings['name'].replace('-', '_')}.yaml",
        config=config.rstrip(),
    )
    atomic.write_text(folder / "README.md", card)
