"""Peak memory of FID's feature extraction and distance at 2,000 and 8,000 images: it must not grow with their pixels.

    python benchmarks/fid_memory.py

Every measurement is a process of its own. Images are random 256x256 PNG files, a few of which are linked many times;
the network is the real one with random weights unless `--stand-in` replaces it by colour statistics, which needs
seconds instead of an hour on a small CPU and leaves reading, batching, storing and distances as they are. Writes
`reports/benchmarks/fid_memory.md`.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from side_by_side import environment, table

REPORT = Path(__file__).resolve().parents[1] / "reports" / "benchmarks" / "fid_memory.md"
_SIDE, _DISTINCT = 256, 16


class _StandIn:
    """2,048 numbers of the pixels that the network would see."""

    def __init__(self, mixing: np.ndarray) -> None:
        self._mixing = mixing

    def __call__(self, images):  # as the network is called: a batch of tensors
        import torch

        pooled = torch.nn.functional.adaptive_avg_pool2d(images, 16).flatten(1)
        return pooled @ torch.from_numpy(self._mixing)


def write_images(folder: Path, n: int) -> list[Path]:
    """`n` paths to few distinct files."""
    rng = np.random.default_rng(0)
    paths = []
    for place in range(n):
        path = folder / f"{place:05d}.png"
        if place < _DISTINCT:
            Image.fromarray(rng.integers(0, 256, (_SIDE, _SIDE, 3), dtype=np.uint8)).save(path)
        else:
            path.hardlink_to(paths[place % _DISTINCT])
        paths.append(path)
    return paths


def measure(n: int, stand_in: bool) -> dict[str, float]:
    """Peak resident memory in MiB of features, moments and distance of `n` images, and the seconds it took."""
    import torch

    from sana_bench.metrics.fid.features import InceptionFeatures
    from sana_bench.metrics.fid.frechet import FrechetTo, moments_of_blocks
    from sana_bench.metrics.fid.inception import FidInception, _layers

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "weights").write_bytes(b"random")
        features = InceptionFeatures("fid/clean@1", folder / "weights")
        rng = np.random.default_rng(1)
        if stand_in:
            network = _StandIn(rng.normal(size=(3 * 16 * 16, 2048)).astype(np.float32))
        else:
            folded = {}
            for key, _, layer, inputs in _layers():
                fan_in = inputs * layer.kernel[0] * layer.kernel[1]
                weight = rng.normal(size=(layer.channels, inputs, *layer.kernel)) * np.sqrt(2 / fan_in)
                folded[key] = torch.from_numpy(weight).float(), torch.zeros(layer.channels)
            network = FidInception(folded).eval()
        features.__dict__["network"] = network
        paths = write_images(folder, n)
        start_memory, start = _peak(), time.perf_counter()
        rows = np.concatenate(list(features.stream(paths)))
        extracted = _peak()
        moments = moments_of_blocks(rows)
        FrechetTo(moments).distance(moments)
        return {
            "n": n,
            "before_mib": start_memory,
            "after_features_mib": extracted,
            "after_distance_mib": _peak(),
            "seconds": time.perf_counter() - start,
        }


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write_report(path: Path, found: list[dict[str, float]], growth: str, stand_in: bool) -> None:
    """A page with a row for each number of images."""
    rows = [
        (
            f"{row['n']:,}",
            f"{row['before_mib']:.0f} MiB",
            f"{row['after_features_mib']:.0f} MiB",
            f"{row['after_distance_mib']:.0f} MiB",
            f"{row['seconds']:.0f} s",
        )
        for row in found
    ]
    header = ("images", "before", "peak after features", "peak after the distance", "time")
    command = f"python benchmarks/fid_memory.py{' --stand-in' if stand_in else ''}"
    network = "colour statistics in the network's place" if stand_in else "the network with random weights"
    facts = ", ".join(f"{name} {value}" for name, value in environment().items())
    text = f"# Memory of FID\n\n`{command}`; {network}. {facts}.\n\n{table(header, rows)}\n\n{growth}\n"
    path.write_text(text, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[2000, 8000])
    parser.add_argument("--stand-in", action="store_true")
    parser.add_argument("--to", type=Path, default=REPORT)
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        print(json.dumps(measure(options.measure, options.stand_in)))
        return 0
    found = []
    for n in options.sizes:
        command = [
            sys.executable,
            __file__,
            "--measure",
            str(n),
            *(["--stand-in"] if options.stand_in else []),
        ]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found.append(json.loads(output.splitlines()[-1]))
        row = found[-1]
        print(
            f"{n:6d} images: peak {row['after_features_mib']:.0f} MiB after features, "
            f"{row['after_distance_mib']:.0f} MiB after the distance ({row['before_mib']:.0f} MiB before), "
            f"{row['seconds']:.0f} s",
            flush=True,
        )
    first, last = found[0], found[-1]
    grown = last["after_distance_mib"] - first["after_distance_mib"]
    pixels = (last["n"] - first["n"]) * _SIDE * _SIDE * 3 / 2**20
    features = (last["n"] - first["n"]) * 2048 * 4 / 2**20
    growth = (
        f"Growth {grown:.0f} MiB; the features are {features:.0f} MiB, the images' pixels {pixels:.0f} MiB."
    )
    print(growth)
    write_report(options.to, found, growth, options.stand_in)
    # Features are held twice while they are joined; 64 MiB for the allocator.
    if grown > 2 * features + 64:
        print("memory grows faster than features do", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
