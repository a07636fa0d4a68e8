"""Copy trained micro weights into the package, in half precision, with a model card made from the training records.

Usage: python scripts/ship_micro_weights.py [--scores results/runs/RUN/report/report.csv]

Reads `results/train/{dc_ae_micro,sana_micro,clip_micro}`, which `make train` leaves. Run it a second time with the scores
of a run on the shipped weights to put them on the card.
"""

import argparse
import csv
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml
from weight_sums import write_sums

from sana_models.checkpoints import (
    load_autoencoder,
    load_flow_shift,
    load_text_encoder,
    load_transformer,
    save_pretrained,
)

ROOT = Path(__file__).resolve().parents[1]
TRAINED = ROOT / "results" / "train"
WEIGHTS = ROOT / "sana_bench" / "micro" / "weights"
VARIANTS = ("sana-micro", "sana-micro-8-steps")

CARD = """# sana-micro

SANA at micro size for the embedded world of coloured shapes: {parameters} parameters in the transformer, {text} in the
Gemma-2-architecture text encoder, {vae} in the DC-AE. It draws 64x64 pictures of shapes and nothing else, and its numbers do not
compare with published ones. Weights are stored in half precision and run in fp32.

| part | command | seed | steps | batch | minutes | last loss |
|---|---|---|---|---|---|---|
{rows}

Trained on two CPU cores without a GPU; minutes are wall-clock on a busy machine. The data is rendered on the fly: no
two-object, position or colour-attribution prompt of the evaluation set is shown, nor the mirror image of the last two.

![Autoencoder curve](curve_dc_ae.png)

![Transformer and text encoder curve](curve_sana.png)

## Scores

{scores}

## Configuration

```yaml
{config}
```
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scores", type=Path, help="report.csv of a run on the shipped weights")
    arguments = parser.parse_args()
    ship_pipeline(arguments.scores)
    clip = TRAINED / "clip_micro"
    if (clip / "clip").is_dir():
        ship_clip(clip)
    write_sums(WEIGHTS, ("sana-micro", "clip"))


def ship_pipeline(scores: Path | None) -> None:
    source, target = TRAINED / "sana_micro" / "pipeline", WEIGHTS / "sana-micro"
    parts = copy_pipeline(source, target)
    shutil.copyfile(TRAINED / "dc_ae_micro" / "curve.png", target / "curve_dc_ae.png")
    shutil.copyfile(TRAINED / "sana_micro" / "curve.png", target / "curve_sana.png")
    for name in ("dc_ae", "sana"):
        shutil.copyfile(TRAINED / f"{name}_micro" / "curve.csv", target / f"curve_{name}.csv")
    card = CARD.format(
        parameters=count(parts["transformer"]),
        text=count(parts["text_encoder"].model),
        vae=count(parts["autoencoder"]),
        rows="\n".join(training_row(name) for name in ("dc_ae_micro", "sana_micro")),
        scores=score_rows(scores, VARIANTS) if scores else "Run `sana-bench run suites/geneval.yaml`.",
        config=(ROOT / "configs" / "train" / "sana_micro.yaml").read_text().strip(),
    )
    (target / "README.md").write_text(card, encoding="utf-8")


def copy_pipeline(source: Path, target: Path) -> dict[str, Any]:
    """Write a trained pipeline to `target` in half precision; return its parts by the names of `save_pretrained`."""
    parts = {
        "transformer": load_transformer(source / "transformer"),
        "autoencoder": load_autoencoder(source / "vae"),
        "text_encoder": load_text_encoder(source),
    }
    save_pretrained(target, **parts, flow_shift=load_flow_shift(source), dtype=torch.float16)
    return parts


def count(module: torch.nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in module.parameters()):,}"


def training_row(name: str) -> str:
    training = yaml.safe_load((ROOT / "configs" / "train" / f"{name}.yaml").read_text())["training"]
    with (TRAINED / name / "curve.csv").open(newline="") as stream:
        last = list(csv.DictReader(stream))[-1]
    command = f"`sana-bench train configs/train/{name}.yaml`"
    minutes = float(last["seconds"]) / 60
    cells = (name, command, training["seed"], int(last["step"]) + 1, training["batch_size"], f"{minutes:.0f}")
    return f"| {' | '.join(map(str, cells))} | {float(last['loss']):.4f} |"


def score_rows(path: Path, variants: tuple[str, ...]) -> str:
    """Return the scores of some variants of a run's report.csv as a Markdown table."""
    with path.open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["variant"] in variants]
    lines = ["| variant | metric | part | value | 95 % interval | images |", "|---|---|---|---|---|---|"]
    for row in rows:
        value, low, high = (f"{float(row[key]):.3f}" for key in ("value", "low", "high"))
        cells = (row["variant"], row["protocol"], row["key"], value, f"[{low}, {high}]", row["n_samples"])
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def ship_clip(source: Path) -> None:
    shutil.copytree(source / "clip", WEIGHTS / "clip", dirs_exist_ok=True)


if __name__ == "__main__":
    main()
