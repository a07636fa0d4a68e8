"""Feature extraction, Fréchet distance and GenEval's detections, each beside its peers.

    python benchmarks/metrics_speed.py [--parts extraction,distance,reading,geneval] [--images 24] [--repetitions 3]

- extraction: a folder of 1024x1024 PNG files, against clean-fid and torch-fidelity (aim 1.3 times each);
- distance: 2048 dimensions with a cached reference, against scipy's sqrtm and torch-fidelity (aim 5 times each);
- reading: what the networks of five metrics are given of a set of files, decoded once for all of a run, against each metric
  reading image by image for itself (aim 1.5 times);
- geneval: detections and colours of a set of images, against a loop over single images with the same networks. Without a GPU the
  detector itself takes one image at a time on both sides, and only what is cut out for the colours is batched.

All sides run in one process on the same images, the same random weights and the same number of threads, in turns, and
a time is reported only after the numbers of all sides agreed in this very run. Peers decode in the worker processes
of their own data loaders (clean-fid: one a core, torch-fidelity: its default), our side in threads. Writes
`metrics_speed.{json,md}` to `--to`; parts that were not run keep what the file has.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from side_by_side import environment, interleave, table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sana_bench.metrics.fid.features import InceptionFeatures
from sana_bench.metrics.fid.frechet import FrechetTo, moments_of_blocks
from tests.metrics.fid.inception_cases import random_state, torchscript_file

REPORTS = Path(__file__).resolve().parents[1] / "reports" / "benchmarks"
OURS = "sana-bench"
_SIDE = 1024
# Random class scores lie close together; this makes them as decided as a trained detector's, so that there is something to
# cut out and to name the colour of.
_DECIDED = 60.0
Timed = dict[str, Callable[[], Any]]


def timed(title: str, sides: Timed, repetitions: int, aim: float | None, agreed: str) -> dict[str, Any]:
    """Time all sides in turns and print medians with their spread and the ratio of each peer to ours."""
    found = interleave(sides, repetitions, warm_up=0)
    ours = found[OURS].median
    print(title)
    for name, timing in found.items():
        ratio = "" if name == OURS else f"  {timing.median / ours:.2f} times ours"
        print(f"  {name:16s} {timing}{ratio}", flush=True)
    return {
        "what": title,
        "aim": aim,
        "agreed": agreed,
        "seconds": {name: list(timing.seconds) for name, timing in found.items()},
        "ratios": {name: timing.median / ours for name, timing in found.items() if name != OURS},
        "shown": {name: str(timing) for name, timing in found.items()},
        "environment": environment(),
    }


def agree(title: str, ours: Any, theirs: Any, tolerance: float) -> str:
    """Stop unless both results agree to the tolerance (relative, of the norm); return what was found."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    error = float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
    found = f"{title}: relative difference {error:.1e} (at most {tolerance:.0e})"
    print(f"check: {found}", flush=True)
    if not error <= tolerance:
        sys.exit(f"{title}: results differ; no time is reported")
    return found


def write_images(folder: Path, n: int) -> list[Path]:
    """Photograph-like 1024x1024 PNG files: smooth shapes with fine noise, about 2 MB each."""
    paths = []
    for place in range(n):
        rng = np.random.default_rng(place)
        coarse = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)).astype(np.int16)
        noisy = smooth + rng.integers(-6, 7, (_SIDE, _SIDE, 3))
        paths.append(folder / f"{place:04d}.png")
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(paths[-1])
    return paths


def clean_fid(folder: Path, weights: Path, batch: int) -> Callable[[], np.ndarray]:
    """clean-fid's features of a folder, with our weights in place of its download."""
    from cleanfid.fid import get_folder_features
    from cleanfid.inception_torchscript import InceptionV3W

    network = InceptionV3W(str(weights.parent), download=False)
    return lambda: get_folder_features(
        str(folder), model=network, num_workers=os.cpu_count() or 1, batch_size=batch, device=torch.device("cpu"), mode="clean",
        verbose=False,
    )  # fmt: skip


def torch_fidelity(paths: list[Path], weights: Path, batch: int) -> Callable[[], np.ndarray]:
    """torch-fidelity's features of the same files."""
    from torch_fidelity.datasets import ImagesPathDataset
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    from torch_fidelity.utils import get_featuresdict_from_dataset

    extractor = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(weights))
    files = ImagesPathDataset([str(path) for path in paths])
    return lambda: get_featuresdict_from_dataset(
        files, extractor, batch, False, save_cpu_ram=False, verbose=False
    )["2048"].numpy()


def extraction(n: int, repetitions: int) -> dict[str, Any]:
    """Features of a folder by the clean chain; torch-fidelity's resize is its own, so it is checked without one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        state = random_state()
        torch.save(state, folder / "pt_inception-2015-12-05-6726825d.pth")
        script = torchscript_file(folder / "inception-2015-12-05.pt", state)
        counters = {
            k.replace("running_var", "num_batches_tracked"): torch.tensor(0) for k in state if "_var" in k
        }
        torch.save(state | counters, folder / "fidelity.pth")
        (folder / "images").mkdir()
        paths = write_images(folder / "images", n)
        features = InceptionFeatures("fid/clean@1", script)
        ours = lambda: np.concatenate(list(features.stream(paths)))  # noqa: E731
        clean = clean_fid(folder / "images", script, 16)
        fidelity = torch_fidelity(paths, folder / "fidelity.pth", 16)
        # Pillow sums in double where torch has float: 1e-3 of 255 in the input is allowed.
        checks = (
            agree("features against clean-fid", ours(), clean(), 1e-4),
            agree(
                "network against torch-fidelity", *_without_resize(features, folder / "fidelity.pth"), 1e-5
            ),
        )
        sides: Timed = {OURS: ours, "clean-fid": clean, "torch-fidelity": fidelity}
        return timed(
            f"features of {n} PNG files of {_SIDE}x{_SIDE}", sides, repetitions, 1.3, "; ".join(checks)
        )


def _without_resize(features: InceptionFeatures, weights: Path) -> tuple[np.ndarray, np.ndarray]:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    images = torch.randint(
        0, 256, (4, 3, 299, 299), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)
    )
    with torch.inference_mode():
        theirs = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(weights))(images)[0]
        return features.network((images.float() - 128) / 128).numpy(), theirs.numpy()


def distance(repetitions: int, d: int = 2048) -> dict[str, Any]:
    """One Fréchet distance; our reference is kept from before, as in scoring many variants."""
    from scipy.linalg import sqrtm
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    rng = np.random.default_rng(0)
    spectrum = np.exp(-np.arange(d) / 300).astype(np.float32)
    sets = [rng.normal(size=(3 * d, d)).astype(np.float32) * spectrum + 0.05 * place for place in range(2)]
    first, second = (moments_of_blocks(rows) for rows in sets)
    reference = FrechetTo(first)
    covariances = first.covariance, second.covariance

    def scipys() -> float:
        root = np.real(sqrtm(covariances[0] @ covariances[1]))
        offset = first.mean - second.mean
        return float(offset @ offset + np.trace(covariances[0] + covariances[1] - 2 * root))

    def fidelitys() -> float:
        both = [{"mu": part.mean, "sigma": part.covariance} for part in (first, second)]
        return float(fid_statistics_to_metric(*both, False)["frechet_inception_distance"])

    ours = lambda: reference.distance(second)  # noqa: E731
    value = ours()
    checks = (
        agree("distance against scipy's sqrtm", [value], [scipys()], 1e-7),
        agree("distance against torch-fidelity", [value], [fidelitys()], 1e-6),
    )
    sides: Timed = {OURS: ours, "scipy sqrtm": scipys, "torch-fidelity": fidelitys}
    title = f"one Fréchet distance at {d} dimensions, reference cached"
    return timed(title, sides, repetitions, 5.0, "; ".join(checks))


def reading(n: int, repetitions: int) -> dict[str, Any]:
    """What the networks of five metrics are given of `n` files: decoded once for all of a run, or by each metric for itself."""
    from sana_bench.core.images import SharedImages, load_image
    from sana_bench.core.preprocess import clip_pixels
    from sana_bench.metrics.fid.features import CHAINS
    from sana_bench.metrics.geneval.mask2former_images import prepare

    chain = CHAINS["fid/clean@1"]
    readers: dict[str, Callable[[Path], np.ndarray]] = {
        "GenEval": lambda path: prepare(load_image(path)).pixels.numpy(),
        "CLIP score": lambda path: clip_pixels(load_image(path), 224),
        "FID": lambda path: chain.read(path, chain.parameters),
        "ImageReward": lambda path: clip_pixels(load_image(path), 224),
        "DPG-Bench": lambda path: np.asarray(
            Image.fromarray(load_image(path)).resize((504, 504), Image.Resampling.BICUBIC)
        ),
    }

    def alone() -> list[np.ndarray]:
        return [read(path) for read in readers.values() for path in paths]

    def ours() -> list[np.ndarray]:
        with SharedImages(n * 3 * _SIDE * _SIDE).over(paths):
            return alone()

    with tempfile.TemporaryDirectory() as name:
        paths = write_images(Path(name), n)
        if not all(np.array_equal(*pair) for pair in zip(ours(), alone(), strict=True)):
            sys.exit("reading: pixels differ; no time is reported")
        agreed = f"all {len(readers) * n} inputs equal to the last bit"
        print(f"check: {agreed}", flush=True)
        title = f"inputs of {', '.join(readers)} from {n} PNG files of {_SIDE}x{_SIDE}"
        return timed(title, {OURS: ours, "image by image": alone}, repetitions, 1.5, agreed)


def geneval(n: int, repetitions: int) -> dict[str, Any]:
    """Full-size Mask2Former and ViT-L/14 with random weights on `n` images, colours of two classes asked for."""
    from sana_bench.metrics.geneval.classes import CLASSES
    from sana_bench.metrics.geneval.detector import FullDetector

    rng = np.random.default_rng(0)
    asked = [frozenset(rng.choice(CLASSES, 2, replace=False)) for _ in range(n)]
    with tempfile.TemporaryDirectory() as name:
        images = [np.asarray(Image.open(path)) for path in write_images(Path(name), n)]
    detector = FullDetector(Path("random"), _random_colors())
    detector.__dict__["_network"] = _random_detector()

    def loop() -> list[Any]:
        pairs = zip(images, asked, strict=True)
        return [detector.detect_many([image], [classes])[0] for image, classes in pairs]

    ours = lambda: detector.detect_many(images, asked)  # noqa: E731
    together, alone = ours(), loop()
    if together != alone:
        sys.exit("geneval: detections or colours differ; no time is reported")
    n_found = sum(map(len, together))
    agreed = f"all {n_found} detections equal, scores and colours included"
    print(f"check: {agreed}", flush=True)
    title = f"GenEval's detections and colours of {n} images of {_SIDE}x{_SIDE}"
    return timed(title, {OURS: ours, "image by image": loop}, repetitions, None, agreed)


def _random_detector() -> torch.nn.Module:
    from transformers import Mask2FormerForUniversalSegmentation

    from sana_bench.metrics.geneval.mask2former import official_config

    torch.manual_seed(0)
    network = Mask2FormerForUniversalSegmentation(official_config()).eval()
    with torch.no_grad():
        network.class_predictor.weight *= _DECIDED
    return network


def _random_colors() -> Any:
    import open_clip

    from sana_bench.metrics.clip.features import MODEL
    from sana_bench.metrics.geneval.colors import ColorClassifier

    torch.manual_seed(1)
    model, _, preprocess = open_clip.create_model_and_transforms(MODEL, pretrained=None, load_weights=False)
    colors = ColorClassifier(Path("random"))
    colors.__dict__["_network"] = model.eval(), preprocess, open_clip.get_tokenizer(MODEL)
    return colors


def write_report(path: Path, measured: dict[str, Any]) -> None:
    """Put new measurements beside those that `path` has, and a page for readers."""
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    parts = {**kept, **measured}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(parts, indent=1) + "\n", encoding="utf-8")
    lines = [
        "# Speed of the metrics",
        "",
        "Medians with range, in turns.",
        "",
    ]
    for part in parts.values():
        aim = "none" if part["aim"] is None else f"{part['aim']:g}"
        rows = [
            (name, shown, f"{part['ratios'][name]:.2f}" if name in part["ratios"] else "", aim if name in part["ratios"] else "")
            for name, shown in part["shown"].items()
        ]  # fmt: skip
        lines += [f"## {part['what'][0].upper()}{part['what'][1:]}", "", f"`{part['command']}`", ""]
        lines += [
            table(("side", "seconds", "times ours", "aim"), rows),
            "",
            f"Same run: {part['agreed']}.",
            "",
        ]
        lines += ["; ".join(f"{key}: {value}" for key, value in part["environment"].items()) + ".", ""]
    path.with_suffix(".md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--parts", default="extraction,distance,reading,geneval")
    parser.add_argument("--to", type=Path, default=REPORTS)
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    parts = {
        "extraction": lambda: extraction(options.images, options.repetitions),
        "distance": lambda: distance(options.repetitions),
        "reading": lambda: reading(min(16, options.images), options.repetitions),
        "geneval": lambda: geneval(max(2, options.images // 4), options.repetitions),
    }
    wanted = options.parts.split(",")
    if unknown := set(wanted) - set(parts):
        parser.error(f"unknown part {sorted(unknown)[0]!r}; one of {', '.join(parts)}")
    sizes = f"--images {options.images} --repetitions {options.repetitions}"
    measured = {
        name: {"command": f"python benchmarks/metrics_speed.py --parts {name} {sizes}", **parts[name]()}
        for name in wanted
    }
    write_report(options.to / "metrics_speed.json", measured)
    missed = [
        f"{part['what']}: {name} {ratio:.2f}, aim {part['aim']}"
        for part in measured.values()
        for name, ratio in part["ratios"].items()
        if part["aim"] is not None and ratio < part["aim"]
    ]
    print("\n".join(["aims missed:", *missed]) if missed else "all aims met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
