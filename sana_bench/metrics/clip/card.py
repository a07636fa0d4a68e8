"""What is known about a trained micro CLIP: its curve, its accuracies and its model card."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sana_bench.core import atomic
from sana_bench.metrics.clip.micro_network import MicroClip, load_clip
from sana_bench.micro.captions import sample_training_batch, scene_for
from sana_bench.micro.evaluation_set import geneval_prompts
from sana_bench.micro.hard_negatives import wrong_captions
from sana_bench.micro.renderer import render

__all__ = ["attribute_accuracy", "retrieval_accuracy", "write_card", "write_curve"]

# A stream that no training run uses: training seeds are small.
_EVALUATION_SEED = 2**31 - 1
_N_RETRIEVAL = 256
_SCENES_PER_PROMPT = 4

_CARD = """# {name}

A small open_clip model of the micro world, used for the CLIP score and as feature network of the Fréchet
distance. It knows coloured shapes and nothing else; its numbers do not compare with published ones.

- Parameters: {parameters}
- Command: `sana-bench train configs/train/clip_micro.yaml`
- Seed {seed}, {steps} steps of {batch_size} pairs, {minutes} minutes
- Data: rendered scenes with their captions, streamed. No evaluation prompt of two objects, position or colour
  attribution is shown, nor the mirror image of the last two.

![Training curve](curve.png)

## Retrieval among 256 fresh pairs

{retrieval}

## Prompt against every caption that is wrong in one word

Evaluation prompts, four rendered scenes each; right when the prompt is closer than all of them.

{attributes}

## Configuration

```yaml
{config}
```
"""


def retrieval_accuracy(clip: MicroClip) -> dict[str, float]:
    """Share of 256 fresh images whose own caption is the closest of the distinct ones, and the reverse."""
    images, texts = sample_training_batch(_EVALUATION_SEED, 0, _N_RETRIEVAL)
    captions = sorted(set(texts))
    own = np.array([captions.index(text) for text in texts])
    cosines = clip.encode_images(images) @ clip.encode_texts(captions).T
    return {
        "image to caption": float(np.mean(cosines.argmax(axis=1) == own)),
        "caption to image": float(np.mean(own[cosines.argmax(axis=0)] == np.arange(len(captions)))),
    }


def attribute_accuracy(clip: MicroClip) -> dict[str, float]:
    """Share of evaluation scenes, by task, that lie closer to their prompt than to every one-step
    falsification.

    The two-object, position and colour-attribution prompts never occur in training.
    """
    rng = np.random.default_rng(_EVALUATION_SEED)
    records = geneval_prompts()
    scenes = [render(scene_for(record, rng)) for record in records for _ in range(_SCENES_PER_PROMPT)]
    images = clip.encode_images(np.stack(scenes)).reshape(len(records), _SCENES_PER_PROMPT, -1)
    choices = [
        [record["prompt"], *(wrong for kind in wrong_captions(record["prompt"]) for wrong in kind)]
        for record in records
    ]
    known = sorted({caption for options in choices for caption in options})
    texts = dict(zip(known, clip.encode_texts(known), strict=True))
    outcomes: dict[str, list[bool]] = {}
    for record, options, own in zip(records, choices, images, strict=True):
        nearest = (own @ np.stack([texts[caption] for caption in options]).T).argmax(axis=1)
        outcomes.setdefault(record["tag"], []).extend((nearest == 0).tolist())
    return {tag: float(np.mean(hits)) for tag, hits in outcomes.items()}


def write_curve(rows: Sequence[Mapping[str, float]], folder: Path, *, title: str) -> None:
    """Write `curve.csv` and `curve.png`: loss and in-batch accuracy against the step."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic.write_text(folder / "curve.csv", text.getvalue())
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, column in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axes.plot([row["step"] for row in rows], [row[column] for row in rows], linewidth=0.8)
        axes.set(xlabel="step", ylabel=column)
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    atomic.write_with(folder / "curve.png", lambda file: figure.savefig(file, format="png", dpi=110))


def write_card(folder: Path, *, config: Mapping[str, Any], steps: int, seconds: float) -> None:
    """Measure the weights in `folder` and write `README.md` beside them."""
    clip = load_clip(folder)
    parameters = sum(tensor.numel() for tensor in clip.model.parameters())
    training = config["training"]
    text = _CARD.format(
        name=config["name"],
        parameters=f"{parameters:,}",
        seed=training.get("seed", 0),
        steps=steps,
        batch_size=training["batch_size"],
        minutes=f"{seconds / 60:.1f}",
        retrieval=_table(("direction", "top-1"), retrieval_accuracy(clip)),
        attributes=_table(("task", "right"), attribute_accuracy(clip)),
        config=yaml.safe_dump(dict(config), sort_keys=False).rstrip(),
    )
    atomic.write_text(folder / "README.md", text)


def _table(header: tuple[str, str], values: Mapping[str, float]) -> str:
    rows = [f"| {name} | {value:.3f} |" for name, value in values.items()]
    return "\n".join([f"| {header[0]} | {header[1]} |", "|---|---|", *rows])
