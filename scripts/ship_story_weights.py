"""Copy the micro tier's SANA-1.5 models into the package, in half precision, each with a card of how it was made.

Usage: python scripts/ship_story_weights.py [--scores results/runs/RUN/report/report.csv]

Reads `results/train/sana15_micro_*`, which `make train-story` leaves. Run it a second time with the scores of a run of
`suites/sana15_micro.yaml` on the shipped weights to put them on the cards. Renews `SHA256SUMS`.
"""

import argparse
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from ship_micro_weights import ROOT, TRAINED, WEIGHTS, copy_pipeline, count, score_rows, training_row
from weight_sums import write_sums

from sana_bench.core.fingerprint import directory_sha256
from sana_models.shared_parts import SHARED_PARTS


@dataclass(frozen=True)
class Model:
    """One shipped folder: where training left it, what it is, and which of `trainings` it went through."""

    name: str
    source: str
    text: str
    trainings: tuple[str, ...]
    made_by: str | None = None


_BASE = ("sana15_micro_base",)
_GROWN = (*_BASE, "sana15_micro_grown")
MODELS = (
    Model("sana15-micro-base", "sana15_micro_base/pipeline", "A small base: 4 blocks.", _BASE),
    Model(
        "sana15-micro-grown",
        "sana15_micro_grown/pipeline",
        "Grown from the base: its first 3 blocks, then 5 new ones that start as the identity, trained on.",
        _GROWN,
        "sana15_micro_grown_start",
    ),
    Model(
        "sana15-micro-scratch",
        "sana15_micro_scratch/pipeline",
        "The grown model's 8 blocks, trained from scratch for as many steps as the grown model after its growth.",
        ("sana15_micro_scratch",),
    ),
    *(
        model
        for share, blocks in (("75", 6), ("50", 4))
        for model in (
            Model(
                f"sana15-micro-pruned{share}",
                f"sana15_micro_pruned{share}/pipeline",
                f"The grown model pruned to its {blocks} most important blocks, with a short recovery training.",
                (*_GROWN, f"sana15_micro_pruned{share}"),
                f"sana15_micro_pruned{share}_start",
            ),
            Model(
                f"sana15-micro-pruned{share}-unrecovered",
                f"sana15_micro_pruned{share}_start",
                f"The grown model pruned to its {blocks} most important blocks, nothing trained after that.",
                _GROWN,
                f"sana15_micro_pruned{share}_start",
            ),
        )
    ),
)

CARD = """# {name}

{text}

SANA-1.5's ideas (arXiv 2501.18427) at micro size, for the embedded world of coloured shapes: {parameters} parameters in the
transformer, {encoder} in the text encoder; the autoencoder is sana-micro's. It draws 64x64 pictures of shapes and nothing
else, and its numbers do not compare with published ones. Stored in half precision, run in fp32.

| part | command | seed | steps | batch | minutes | last loss |
|---|---|---|---|---|---|---|
{rows}

Trained on two CPU cores without a GPU, beside other work. `suites/sana15_micro.yaml` compares the family; docs/sana15.md has
the outcome.
{made}
## Scores

{scores}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scores", type=Path, help="report.csv of a run on the shipped weights")
    arguments = parser.parse_args()
    for model in MODELS:
        ship(model, arguments.scores)
    write_sums(WEIGHTS, [model.name for model in MODELS])


def ship(model: Model, scores: Path | None) -> None:
    source, target = TRAINED / model.source, WEIGHTS / model.name
    parts = copy_pipeline(source, target)
    share_autoencoder(target, "sana-micro")
    made = ""
    if model.made_by:
        facts = json.loads((TRAINED / model.made_by / "provenance.json").read_text(encoding="utf-8"))
        made = "\n## Made from\n\n" + made_from(facts)
        picture = TRAINED / model.made_by / "importance.png"
        if picture.is_file():
            shutil.copyfile(picture, target / "importance.png")
            made += "\n![Importance of the source's blocks by depth](importance.png)\n"
    card = CARD.format(
        name=model.name,
        text=model.text,
        parameters=count(parts["transformer"]),
        encoder=count(parts["text_encoder"].model),
        rows="\n".join(training_row(name) for name in model.trainings),
        made=made,
        scores=score_rows(scores, (model.name,))
        if scores
        else "Run `sana-bench run suites/sana15_micro.yaml`.",
    )
    (target / "README.md").write_text(card, encoding="utf-8")


def share_autoencoder(folder: Path, neighbour: str) -> None:
    """Leave to the neighbour the autoencoder, which must be the same to the byte."""
    own = folder / "vae"
    other = WEIGHTS / neighbour / "vae"
    if directory_sha256(own) != directory_sha256(other):
        raise SystemExit(f"{own} is another autoencoder than {other}; ship {neighbour} again first")
    shutil.rmtree(own)
    (folder / SHARED_PARTS).write_text(json.dumps({"vae": neighbour}) + "\n", encoding="utf-8")


def made_from(facts: dict[str, object]) -> str:
    """Return the facts of growing or pruning as a list, the versions left to the source's own record."""
    kept = {key: value for key, value in facts.items() if key not in ("sana_bench", "torch", "dtype")}
    return "".join(f"- {key.replace('_', ' ')}: {json.dumps(value)}\n" for key, value in kept.items())


if __name__ == "__main__":
    main()
    print(f"shipped to {WEIGHTS.relative_to(ROOT)}")
