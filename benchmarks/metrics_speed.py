"""Feature extraction against clean-fid and torch-fidelity, and the Fréchet distance against scipy and torch-fidelity.

    python benchmarks/metrics_speed.py [--images 24] [--repetitions 3] [--parts extraction,distance]

Both sides run in one process on the same images, the same random weights and the same number of threads, in turns, and
a time is printed only after the numbers of both sides agreed in this very run. Peers decode in the worker processes
of their own data loaders (clean-fid: one a core, torch-fidelity: its default), our side in threads.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sana_bench.metrics.frechet_sets import FrechetTo, moments_of_blocks
from sana_bench.metrics.inception_features import InceptionFeatures
from tests.metrics.inception_cases import random_state, torchscript_file

_SIDE = 1024
Timed = dict[str, Callable[[], Any]]


def interleaved(sides: Timed, repetitions: int) -> dict[str, list[float]]:
    """Seconds of every side, taken in turns so that a busy machine is busy for all."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repetitions):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def report(title: str, seconds: dict[str, list[float]], aim: float) -> bool:
    """Print medians with their range, and the ratio to each peer; return whether the aim is met."""
    ours = statistics.median(seconds["sana-bench"])
    print(title)
    for name, values in seconds.items():
        median = statistics.median(values)
        ratio = "" if name == "sana-bench" else f"  {median / ours:.2f} times ours (aim {aim:.1f})"
        print(f"  {name:16s} {median:8.3f} s  ({min(values):.3f} to {max(values):.3f}){ratio}", flush=True)
    return all(
        statistics.median(values) >= aim * ours for name, values in seconds.items() if name != "sana-bench"
    )


def agree(title: str, ours: Any, theirs: Any, tolerance: float) -> None:
    """Stop unless both results agree to the tolerance (relative, of the norm)."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    error = float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
    print(f"check: {title}: relative difference {error:.1e} (at most {tolerance:.0e})", flush=True)
    if not error <= tolerance:
        sys.exit(f"{title}: results differ; no time is reported")


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


def extraction(n: int, repetitions: int) -> bool:
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
        agree("features against clean-fid", ours(), clean(), 1e-4)
        agree("network against torch-fidelity", *_without_resize(features, folder / "fidelity.pth"), 1e-5)
        sides: Timed = {"sana-bench": ours, "clean-fid": clean, "torch-fidelity": fidelity}
        title = f"features of {n} PNG files of {_SIDE}x{_SIDE}, {torch.get_num_threads()} threads:"
        return report(title, interleaved(sides, repetitions), 1.3)


def _without_resize(features: InceptionFeatures, weights: Path) -> tuple[np.ndarray, np.ndarray]:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    images = torch.randint(
        0, 256, (4, 3, 299, 299), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)
    )
    with torch.inference_mode():
        theirs = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(weights))(images)[0]
        return features.network((images.float() - 128) / 128).numpy(), theirs.numpy()


def distance(repetitions: int, d: int = 2048) -> bool:
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
    agree("distance against scipy's sqrtm", [value], [scipys()], 1e-7)
    agree("distance against torch-fidelity", [value], [fidelitys()], 1e-6)
    sides: Timed = {"sana-bench": ours, "scipy sqrtm": scipys, "torch-fidelity": fidelitys}
    title = f"one Fréchet distance at {d} dimensions, reference cached:"
    return report(title, interleaved(sides, repetitions), 5.0)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--parts", default="extraction,distance")
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    met = []
    if "extraction" in options.parts:
        met.append(extraction(options.images, options.repetitions))
    if "distance" in options.parts:
        met.append(distance(options.repetitions))
    print("all aims met" if all(met) else "an aim was not met")
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
