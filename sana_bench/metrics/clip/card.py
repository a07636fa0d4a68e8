"""What is known about a trained micro CLIP: its accuracies and its model card."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import yaml

from sana_bench.metrics import training
from sana_bench.metrics.clip.micro_network import MicroClip, load_clip
from sana_bench.metrics.training import EVALUATION_SEED, CardText
from sana_bench.micro.captions import sample_training_batch, scene_for
from sana_bench.micro.evaluation_set import geneval_prompts
from sana_bench.micro.hard_negatives import wrong_captions
from sana_bench.micro.renderer import render
from sana_models.training.loop import TrainingResult

__all__ = ["attribute_accuracy", "retrieval_accuracy", "write_card"]

_N_RETRIEVAL = 256
_SCENES_PER_PROMPT = 4
_MEASURED = """## Retrieval among 256 fresh pairs

{retrieval}

## Prompt against every caption that is wrong in one word

Evaluation prompts, four rendered scenes each; right when the prompt is closer than all of them.

{attributes}"""


def retrieval_accuracy(clip: MicroClip) -> dict[str, float]:
    """Share of 256 fresh images whose own caption is the closest of the distinct ones, and the reverse."""
    images, texts = sample_training_batch(EVALUATION_SEED, 0, _N_RETRIEVAL)
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
    rng = np.random.default_rng(EVALUATION_SEED)
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


def write_card(folder: Path, *, config: str, result: TrainingResult) -> None:
    """Measure the weights in `folder` and write `README.md` beside them."""
    clip = load_clip(folder)
    settings = yaml.safe_load(config)
    loop = settings["training"]
    text = CardText(
        name=settings["name"],
        about="A small open_clip model of the micro world, used for the CLIP score and as feature network of the Fréchet\n"
        "distance. It knows coloured shapes and nothing else; its numbers do not compare with published ones.",
        parameters=f"{sum(tensor.numel() for tensor in clip.model.parameters()):,}",
        effort=f"Seed {loop.get('seed', 0)}, {{steps}} steps of {loop['batch_size']} pairs, "
        "{minutes:.1f} minutes",
        data="rendered scenes with their captions, streamed. No evaluation prompt of two objects, position or colour\n"
        "  attribution is shown, nor the mirror image of the last two.",
        measured=_MEASURED.format(
            retrieval=_table(("direction", "top-1"), retrieval_accuracy(clip)),
            attributes=_table(("task", "right"), attribute_accuracy(clip)),
        ),
    )
    training.write_card(folder, text, config=config, result=result)


def _table(header: tuple[str, str], values: Mapping[str, float]) -> str:
    rows = [f"| {name} | {value:.3f} |" for name, value in values.items()]
    return "\n".join([f"| {header[0]} | {header[1]} |", "|---|---|", *rows])
