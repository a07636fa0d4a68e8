"""Checks of GenEval: the detector against mmdet's values, the official rules, and the micro world's detector."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sana_bench.metrics.geneval.decision import decide
from sana_bench.metrics.selfcheck import golden_files
from sana_bench.metrics.selfcheck.check import Bench, Check, Tolerance
from sana_bench.metrics.selfcheck.decision_cases import CASES
from sana_bench.metrics.selfcheck.recipes import mask2former as recipe
from sana_models.libraries import without_torchao

if TYPE_CHECKING:
    import torch

__all__ = ["CHECKS", "save_hub", "small_config", "small_state"]

_OFFICIAL = ("geneval/official@1", "geneval/sana@1")
_HUB = "geneval/hf-detector@1"
_FULL = (*_OFFICIAL, _HUB)


def small_config() -> Any:
    """The detector's small configuration, of which mmdet's values are stored."""
    with without_torchao():
        from transformers import Mask2FormerConfig, SwinConfig

    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = SwinConfig(
        embed_dim=16, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 4], window_size=7, out_features=stages
    )
    return Mask2FormerConfig(
        backbone_config=backbone, num_labels=80, num_queries=20, feature_size=64, mask_feature_size=64,
        hidden_dim=64, encoder_feedforward_dim=96, encoder_layers=2, decoder_layers=4, dim_feedforward=80,
        pre_norm=False,
    )  # fmt: skip


def small_state() -> dict[str, "torch.Tensor"]:
    """mmdet's state dict of the small detector."""
    import torch

    return {
        name: torch.zeros(shape, dtype=torch.long)
        if "relative_position_index" in name
        else torch.from_numpy(recipe.weight(name, tuple(shape)))
        for name, shape in golden_files.mask2former_keys()["small"].items()
    }


def _input(_: Bench) -> float:
    from sana_bench.metrics.geneval.mask2former_images import prepare

    stored = golden_files.arrays("mask2former")
    errors = []
    for index, size in enumerate(recipe.SIZES):
        pixels = prepare(recipe.image(index, size), recipe.SCALE).pixels[:, ::16, ::16].numpy()
        errors.append(float(np.abs(pixels - stored[f"{index}/pixels"]).max()))
    return max(errors)


def _network(folder: Path, device: str) -> Any:
    import torch

    from sana_bench.metrics.geneval.mask2former import load_mmdet

    torch.save({"state_dict": small_state()}, folder / "small.pth")
    return load_mmdet(folder / "small.pth", small_config()).to(device)


def save_hub(network: Any, folder: Path) -> Path:
    """Write the network into `folder` as transformers lays out its own repositories, with COCO's classes; returns it."""
    with without_torchao():
        from transformers.utils import logging

    from sana_bench.metrics.geneval.classes import CLASSES

    network.config.id2label = dict(enumerate(CLASSES))
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        network.save_pretrained(folder)
    finally:
        if shown:
            logging.enable_progress_bar()
    return folder


def _logits(bench: Bench) -> float:
    import torch

    from sana_bench.metrics.geneval.mask2former_images import prepare

    network = _network(bench.folder("logits"), bench.device)
    stored = golden_files.arrays("mask2former")
    errors = []
    for index, size in enumerate(recipe.SIZES):
        pixels = prepare(recipe.image(index, size), recipe.SCALE).pixels[None].to(bench.device)
        with torch.inference_mode():
            output = network(pixel_values=pixels)
        classes = output.class_queries_logits[0].cpu().numpy()
        masks = output.masks_queries_logits[0].cpu().numpy()[:, ::4, ::4]
        errors.append(float(np.abs(classes - stored[f"{index}/classes"]).max()))
        errors.append(float(np.abs(masks - stored[f"{index}/masks"]).max()))
    return max(errors)


def _boxes(bench: Bench) -> float:
    return _detections_wrong(_network(bench.folder("boxes"), bench.device))


def _hub_boxes(bench: Bench) -> float:
    from sana_bench.metrics.geneval.mask2former import load_hub

    folder = bench.folder("hub")
    return _detections_wrong(load_hub(save_hub(_network(folder, bench.device), folder / "repository")))


def _detections_wrong(network: "torch.nn.Module") -> float:
    """Detections of the first image, matched by class and rank: how many have another class or box than mmdet's."""
    import torch

    from sana_bench.metrics.geneval.mask2former_images import prepare, read_logits

    prepared = prepare(recipe.image(0, recipe.SIZES[0]), recipe.SCALE)
    with torch.inference_mode():
        output = network(pixel_values=prepared.pixels[None])
    found = read_logits(
        output.class_queries_logits[0], output.masks_queries_logits[0], prepared, min_score=0.0
    )
    ours = sorted((one.label, one.score, *one.box) for one in found)
    theirs = sorted((row[0], row[5], *row[1:5]) for row in golden_files.arrays("mask2former")["0/found"])
    if len(ours) != len(theirs):
        return float(abs(len(ours) - len(theirs)))
    pairs = zip(ours, theirs, strict=True)
    return float(sum((a[0], *a[2:]) != (b[0], *b[2:]) or abs(a[1] - b[1]) > 2e-4 * b[1] for a, b in pairs))


def _decisions(_: Bench) -> float:
    wrong = 0
    for case in CASES:
        verdict = decide(case.metadata, case.detections)
        wrong += verdict.correct != case.correct or len(verdict.reasons) != case.n_reasons
    return float(wrong)


def _crop(_: Bench) -> float:
    from sana_bench.metrics.geneval.colors import crop_object

    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    mask = np.zeros((4, 4), dtype=bool)
    mask[1, 1] = mask[2, 2] = True
    crop = crop_object(image, mask, (1.2, 0.6, 3.0, 3.4), "cat").pixels
    expected = np.full((2, 2, 3), 153, dtype=np.uint8)
    expected[0, 0], expected[1, 1] = image[1, 1], image[2, 2]
    return float("inf") if crop.shape != expected.shape else float((crop != expected).sum())


def _micro_scenes(_: Bench) -> float:
    """Scenes of which the detector reports another set of objects than was drawn."""
    from sana_bench.metrics.geneval.detector import MicroDetector

    detector = MicroDetector()
    stored = golden_files.numbers()["micro"]["scenes"]
    images = golden_files.arrays("micro")["images"]
    wrong = 0
    for image, scene in zip(images, stored, strict=True):
        found = [one for one in detector.detect(image) if one["score"] > 0.9]
        seen = all(any(_same(one, drawn) for one in found) for drawn in scene["objects"])
        wrong += not seen or len(found) != len(scene["objects"])
    return float(wrong)


def _same(found: dict[str, Any], drawn: dict[str, Any]) -> bool:
    """Class and colour agree, and every edge of the box within the pixel that a faint edge may cost."""
    edges = np.abs(np.subtract(found["box"], drawn["box"]))
    return (found["label"], found["color"]) == (drawn["label"], drawn["color"]) and bool((edges <= 1).all())


# A class logit off by e moves a probability by at most 2e of itself, a mask logit off by e a mask's mean certainty, which is
# at least a half, by at most e / 2 of itself; logits differ by some 1e-5 here, and the tolerance above allows 1e-4.
_DETECTIONS = "a score may differ by 2e-4 of itself, as logits in float32 do; class and box not at all"
_TF32 = "convolutions in TF32, torch's default, on logits of about 10; not measured on every device"

CHECKS = (
    Check(
        "GenEval: the official rules",
        ("geneval/micro@1", *_FULL),
        _decisions,
        Tolerance(0, "verdicts that differ", "rules on exact numbers"),
        quick=True,
    ),
    Check(
        "GenEval: micro detector on drawn scenes",
        ("geneval/micro@1",),
        _micro_scenes,
        Tolerance(0, "scenes that differ", "the renderer knows what is there"),
        quick=True,
    ),
    Check(
        "GenEval: an object on grey",
        _FULL,
        _crop,
        Tolerance(0, "values that differ", "integers"),
    ),
    Check(
        "GenEval: mmdet's input",
        _FULL,
        _input,
        Tolerance(1e-6, "deviations", "two float32 operations in either order, of values up to 2.7"),
    ),
    Check(
        "GenEval: mmdet's class and mask logits",
        _FULL,
        _logits,
        Tolerance(1e-4, "absolute", "float32 sums in another order differ by some 1e-5 here"),
        Tolerance(3e-2, "absolute", _TF32),
    ),
    Check(
        "GenEval: mmdet's detections",
        _FULL,
        _boxes,
        Tolerance(0, "detections that differ", _DETECTIONS),
    ),
    Check(
        "GenEval: mmdet's detections by the hub's files",
        (_HUB,),
        _hub_boxes,
        Tolerance(0, "detections that differ", _DETECTIONS),
    ),
)
