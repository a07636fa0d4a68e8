"""Checks of the preference scores, with the weights of a recipe that their own packages scored."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sana_bench.core.samples import Prompt, Sample
from sana_bench.metrics.preference.hpsv3 import PROTOCOLS as HPSV3
from sana_bench.metrics.preference.metric import HPS_PROTOCOLS, PICK_PROTOCOLS
from sana_bench.metrics.selfcheck import golden_files
from sana_bench.metrics.selfcheck.check import Bench, Check, Tolerance
from sana_bench.metrics.selfcheck.recipes import preference as recipe
from sana_bench.metrics.selfcheck.recipes.plain import clip_weight, uniform
from sana_models.libraries import without_torchao

__all__ = ["CHECKS", "preference_samples", "write_head", "write_hps", "write_hpsv3", "write_pick"]

_HPS_NAME = "selfcheck-hps"


def preference_samples(folder: Path) -> list[Sample]:
    """The recipe's images, each with each prompt."""
    samples = []
    for name, width, height in recipe.IMAGES:
        path = folder / f"{name}.png"
        Image.fromarray(recipe.image(name, width, height)).save(path)
        samples += [
            Sample("v", "hpdv2", Prompt(f"{name}-{place}", text, "all"), 0, path)
            for place, text in enumerate(recipe.PROMPTS)
        ]
    return samples


def write_hps(folder: Path) -> tuple[Path, str]:
    """A small network in HPS's layout, and the name under which open_clip knows it then."""
    import torch

    with without_torchao():
        import open_clip

    (folder / f"{_HPS_NAME}.json").write_text(json.dumps(recipe.HPS))
    open_clip.add_model_config(folder)
    network = open_clip.CLIP(**recipe.HPS)
    state = _tensors(
        {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}, clip_weight
    )
    torch.save({"state_dict": state}, folder / "hps.pt")
    return folder / "hps.pt", _HPS_NAME


def write_pick(folder: Path) -> tuple[Path, Path, Path]:
    """PickScore's three files, small."""
    from safetensors.torch import save_file

    with without_torchao():
        from transformers import CLIPConfig, CLIPModel

    config = recipe.pick_config()
    network = CLIPModel(CLIPConfig.from_dict(config))
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    save_file(_tensors(shapes, recipe.pick_weight), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(recipe.pick_tokenizer()))
    return folder / "model.safetensors", folder / "config.json", folder / "tokenizer.json"


def write_head(folder: Path) -> Path:
    """The aesthetic head in the published layout."""
    import torch

    torch.save(_tensors(recipe.head_shapes(), recipe.head_weight), folder / "head.pth")
    return folder / "head.pth"


def write_hpsv3(folder: Path, config: Mapping[str, Any] = recipe.HPSV3) -> tuple[Path, Path]:
    """HPSv3's weights and its backbone's configuration, small and in the published layout."""
    from safetensors.torch import save_file

    with without_torchao():
        from transformers import Qwen2VLConfig, Qwen2VLModel

    backbone = Qwen2VLModel(Qwen2VLConfig.from_dict(dict(config)))
    shapes = {
        name.replace("language_model.", "model.", 1): tuple(tensor.shape)
        for name, tensor in backbone.state_dict().items()
    }
    width, hidden = config["hidden_size"], (1024, 16)
    for place, inputs, outputs in ((0, width, hidden[0]), (3, *hidden), (5, hidden[1], 2)):
        shapes |= {f"rm_head.{place}.weight": (outputs, inputs), f"rm_head.{place}.bias": (outputs,)}
    shapes["lm_head.weight"] = (config["vocab_size"], width)
    save_file(_tensors(shapes, recipe.hpsv3_weight), folder / "HPSv3.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder / "HPSv3.safetensors", folder / "config.json"


def _tensors(shapes: dict[str, tuple[int, ...]], weight: Any) -> dict[str, Any]:
    import torch

    return {name: torch.from_numpy(weight(name, shape)) for name, shape in shapes.items()}


def _stored(name: str) -> np.ndarray[Any, Any]:
    return np.array(golden_files.preference()[name])


def _hps(metric: str, protocol: str, name: str, bench: Bench) -> float:
    from sana_bench.metrics.preference.metric import HumanPreferenceScore
    from sana_bench.metrics.preference.networks import HpsFeatures

    folder = bench.folder(name)
    weights, model = write_hps(folder)
    features = HpsFeatures(weights, bench.device, antialias=HPS_PROTOCOLS[metric][protocol], model=model)
    rows = HumanPreferenceScore(metric, protocol, features).score(preference_samples(folder))
    return float(np.abs(np.array([row.value for row in rows]) - _stored(name).ravel()).max())


def _pick(bench: Bench) -> float:
    from sana_bench.metrics.preference.metric import PickScore
    from sana_bench.metrics.preference.networks import PickFeatures

    folder = bench.folder("pick")
    metric = PickScore(PICK_PROTOCOLS[0], PickFeatures(*write_pick(folder), device=bench.device))
    rows = metric.score(preference_samples(folder))
    return float(np.abs(np.array([row.value for row in rows]) - _stored("pick").ravel()).max())


def _head(bench: Bench) -> float:
    from sana_bench.metrics.preference.aesthetic import read_head

    weight, constant = read_head(write_head(bench.folder("aesthetic")))
    features = uniform("aesthetic", (6, 768)).astype(np.float64)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return float(np.abs(features @ weight + constant - _stored("aesthetic")).max())


def _hpsv3(bench: Bench) -> float:
    import torch

    from sana_bench.metrics.preference.hpsv3_network import load_preference_network

    network = load_preference_network(*write_hpsv3(bench.folder("hpsv3")), torch.float32).to(bench.device)
    found = []
    with torch.inference_mode():
        for grid in recipe.HPSV3_GRIDS:
            ids, places = torch.tensor(recipe.hpsv3_ids(grid)), torch.tensor(grid)
            pixels = torch.from_numpy(recipe.hpsv3_pixels(grid))
            asked = (part.to(bench.device) for part in (ids, pixels, places))
            found.append(network(*asked, recipe.HPSV3_REWARD).cpu().numpy())
    return float(np.abs(np.stack(found) - _stored("hpsv3")).max())


_FLOAT32 = "float32 sums in another order, of a scale of 100"
_TF32 = "convolutions in TF32, torch's default: 10 bits of mantissa, not measured on every device"

CHECKS = (
    Check(
        "HPS: the original package's scores",
        ("hpsv2/official@1", "hpsv2.1/official@1"),
        lambda bench: _hps("hpsv2", "hpsv2/official@1", "hps", bench),
        Tolerance(1e-3, "points", _FLOAT32),
        Tolerance(0.3, "points", _TF32),
    ),
    Check(
        "HPS: the original package's scores by a resize without a filter",
        ("hpsv2/aliased@1", "hpsv2.1/aliased@1"),
        lambda bench: _hps("hpsv2.1", "hpsv2.1/aliased@1", "hps_aliased", bench),
        Tolerance(1e-3, "points", _FLOAT32),
        Tolerance(0.3, "points", _TF32),
    ),
    Check(
        "PickScore: the model card's scores",
        PICK_PROTOCOLS,
        _pick,
        Tolerance(1e-3, "points", _FLOAT32),
        Tolerance(0.3, "points", _TF32),
    ),
    Check(
        "HPSv3: the original package's mean and deviation",
        HPSV3,
        _hpsv3,
        Tolerance(1e-5, "of a reward near 1", "float32 sums in another order"),
        Tolerance(3e-3, "of a reward near 1", _TF32),
    ),
    Check(
        "aesthetic head: its layers one by one",
        ("aesthetic/laion@1",),
        _head,
        Tolerance(1e-5, "points", "the layers sum in float32, their product in float64"),
        quick=True,
    ),
)
