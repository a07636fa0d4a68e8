"""A small MJHQ-30K, images beside it, and a stand-in for Inception: enough for distances between sets."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from sana_bench.core.samples import Prompt, Sample

CATEGORIES = ("animals", "art", "people")
PER_CATEGORY = 14


class Colours:
    """Stands for Inception where the network does not matter: six numbers of an image's colours."""

    def __init__(self, weights="w1"):
        self.read, self.key = 0, f"colours/{weights}"
        self._weights = weights

    def identity(self):
        return {"chain": "colours@1", "parameters": {}, "weights_sha256": self._weights}

    def of_samples(self, samples):
        return np.concatenate(list(self.stream([sample.image_path for sample in samples])))

    def stream(self, paths):
        for path in paths:
            self.read += 1
            pixels = np.asarray(Image.open(path), np.float32).reshape(-1, 3)
            yield np.concatenate([pixels.mean(axis=0), pixels.std(axis=0)])[None]


def write_mjhq(root: Path) -> Path:
    """A small MJHQ-30K in the published layout."""
    rng = np.random.default_rng(0)
    meta = {}
    for place, category in enumerate(CATEGORIES):
        (root / "mjhq30k_imgs" / category).mkdir(parents=True)
        for index in range(PER_CATEGORY):
            name = f"{category}{index:03d}"
            pixels = rng.normal(90 + 40 * place, 30, (8, 8, 3)) + rng.normal(0, 20, 3)
            path = root / "mjhq30k_imgs" / category / f"{name}.jpg"
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
            meta[name] = {"category": category, "prompt": f"a picture of {category} {index}"}
    (root / "meta_data.json").write_text(json.dumps(meta))
    return root


def write_samples(folder: Path, mjhq: Path) -> list[Sample]:
    """One image of other colours for every prompt."""
    rng = np.random.default_rng(1)
    out = []
    for name, entry in json.loads((mjhq / "meta_data.json").read_text()).items():
        pixels = rng.normal(120, 40, (8, 8, 3)) + rng.normal(0, 20, 3)
        path = folder / f"{name}.png"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
        out.append(Sample("v", "mjhq30k", Prompt(name, entry["prompt"], entry["category"]), 0, path))
    return out
