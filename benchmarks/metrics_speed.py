"""Feature extraction and Fréchet distance, each beside its peers; scores of images are in `scoring_speed.py`.

    python benchmarks/metrics_speed.py [--parts extraction,distance] [--images 24] [--repetitions 3]

- extraction: a folder of 1024x1024 PNG files, against clean-fid and torch-fidelity (aim 1.3 times each);
- distance: 2048 dimensions with a cached reference, against scipy's sqrtm and torch-fidelity (aim 5 times each).

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
from collections.abc import Callable, Mapping
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
SIDE = 1024
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
        smooth = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC)).astype(np.int16)
        noisy = smooth + rng.integers(-6, 7, (SIDE, SIDE, 3))
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
            f"features of {n} PNG files of {SIDE}x{SIDE}", sides, repetitions, 1.3, "; ".join(checks)
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


def write_report(path: Path, title: str, measured: dict[str, Any]) -> None:
    """Put new measurements beside those that `path` has, and a page for readers."""
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    parts = {**kept, **measured}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(parts, indent=1) + "\n", encoding="utf-8")
    lines = [
        f"# {title}",
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


Parts = Mapping[str, Callable[[argparse.Namespace], dict[str, Any]]]


def run_parts(name: str, title: str, description: str | None, parts: Parts) -> int:
    """The command line of a script: measure the parts that are asked for, write `NAME.{json,md}`, say which aims were missed."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--parts", default=",".join(parts))
    parser.add_argument("--to", type=Path, default=REPORTS)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    wanted = options.parts.split(",")
    if unknown := set(wanted) - set(parts):
        parser.error(f"unknown part {sorted(unknown)[0]!r}; one of {', '.join(parts)}")
    sizes = f"--images {options.images} --repetitions {options.repetitions} --threads {options.threads}"
    measured = {
        part: {"command": f"python benchmarks/{name}.py --parts {part} {sizes}", **parts[part](options)}
        for part in wanted
    }
    write_report(options.to / f"{name}.json", title, measured)
    missed = [
        f"{part['what']}: {peer} {ratio:.2f}, aim {part['aim']}"
        for part in measured.values()
        for peer, ratio in part["ratios"].items()
        if part["aim"] is not None and ratio < part["aim"]
    ]
    print("\n".join(["aims missed:", *missed]) if missed else "all aims met")
    return 1 if missed else 0


def main() -> int:
    parts: Parts = {
        "extraction": lambda options: extraction(options.images, options.repetitions),
        "distance": lambda options: distance(options.repetitions),
    }
    return run_parts("metrics_speed", "Speed of the metrics", __doc__, parts)


if __name__ == "__main__":
    sys.exit(main())
