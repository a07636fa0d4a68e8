"""The micro tier's SANA-1.5 family as shipped: what its suite names is there, fits its name, and is small."""

import re
from pathlib import Path

import pytest
import torch
import yaml

from sana_bench.cli.doctor import changed_files
from sana_models.checkpoints import load_transformer
from tests import ROOT

WEIGHTS = ROOT / "sana_bench" / "micro" / "weights"
SUITE = yaml.safe_load((ROOT / "suites" / "sana15_micro.yaml").read_text(encoding="utf-8"))
VARIANTS = {
    name: yaml.safe_load((ROOT / "suites" / "variants" / f"{name}.yaml").read_text(encoding="utf-8"))
    for name in SUITE["variants"]["micro"]
}
DEPTHS = {"base": 4, "scratch": 8, "grown": 8, "pruned75": 6, "pruned50": 4}


def folder(variant: str) -> Path:
    return WEIGHTS / VARIANTS[variant]["model"]["weights"].removeprefix("micro://")


def transformer(variant: str) -> torch.nn.Module:
    return load_transformer(folder(variant) / "transformer")


def test_all_shipped_weights_together_stay_small():
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) < 80_000_000


def test_the_autoencoder_is_shipped_once():
    assert list(WEIGHTS.glob("*/vae/*.safetensors")) == [
        WEIGHTS / "sana-micro" / "vae" / "diffusion_pytorch_model.safetensors"
    ]


def test_no_shipped_file_differs_from_its_sum():
    assert changed_files(WEIGHTS) == []
    summed = {line.split(maxsplit=1)[1] for line in (WEIGHTS / "SHA256SUMS").read_text("utf-8").splitlines()}
    there = {f"./{path.relative_to(WEIGHTS)}" for path in WEIGHTS.rglob("*.safetensors")}
    assert there <= summed


@pytest.mark.parametrize("name", [name for name in VARIANTS if "best-of" not in name])
def test_every_member_has_a_card_and_the_depth_of_its_name(name):
    card = (folder(name) / "README.md").read_text(encoding="utf-8")
    assert card.startswith(f"# {name}\n")
    assert "geneval/micro@1" in card
    depth = DEPTHS[name.removeprefix("sana15-micro-").removesuffix("-unrecovered")]
    assert len(transformer(name).transformer_blocks) == depth


@pytest.mark.parametrize("name", [name for name in VARIANTS if "best-of" in name])
def test_a_search_is_over_what_its_name_says(name):
    base, _, candidates = name.partition("-best-of-")
    variant, origin = VARIANTS[name], VARIANTS[base]
    assert variant["derived_from"] == base
    assert re.fullmatch(rf"{base}(-best-of-4)?", variant["extends"])
    assert not {"model", "sampler"} & set(variant)
    assert variant["best_of_n"]["candidates"] == int(candidates)
    assert VARIANTS[f"{base}-best-of-4"]["best_of_n"]["generator"] == "sana"
    assert variant["best_of_n"].get("generator", "sana") == origin.get("generator", "sana") == "sana"


@pytest.mark.parametrize("share", ["75", "50"])
def test_pruning_only_left_blocks_out(share):
    """Without recovery, each block is one of the grown model's, in its order, and everything else is equal."""
    whole = transformer("sana15-micro-grown").state_dict()
    pruned = transformer(f"sana15-micro-pruned{share}-unrecovered").state_dict()
    kept = []
    for block in range(DEPTHS[f"pruned{share}"]):
        parts = {
            key.split(".", 2)[2]: value
            for key, value in pruned.items()
            if key.startswith(f"transformer_blocks.{block}.")
        }
        kept += [
            source
            for source in range(DEPTHS["grown"])
            if all(torch.equal(value, whole[f"transformer_blocks.{source}.{key}"]) for key, value in parts.items())
        ]  # fmt: skip
    assert len(kept) == DEPTHS[f"pruned{share}"]
    assert kept == sorted(set(kept))
    rest = {key: value for key, value in pruned.items() if not key.startswith("transformer_blocks.")}
    assert all(torch.equal(value, whole[key]) for key, value in rest.items())


@pytest.mark.parametrize("name", ["scratch", "pruned75", "pruned50"])
def test_training_changed_what_it_trained(name):
    start = {"scratch": "grown"}.get(name, f"{name}-unrecovered")
    trained, before = (transformer(f"sana15-micro-{key}").state_dict() for key in (name, start))
    assert trained.keys() == before.keys()
    assert not any(torch.equal(trained[key], before[key]) for key in trained if key.endswith("to_q.weight"))
