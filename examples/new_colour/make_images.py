"""Draws images of the micro world in which some object has a colour that `sana-micro` never saw, as NAME.png and NAME.txt.

python examples/new_colour/make_images.py data/teal
"""

import argparse
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from sana_bench.micro.captions import jittered, sample_training_pair
from sana_bench.micro.renderer import render
from sana_bench.micro.world import COLORS, Scene

TEAL = (20, 150, 150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=200)
    options = parser.parse_args()
    write_images(options.folder, options.count)


def write_images(folder: Path, count: int, seed: int = 7) -> None:
    """Write `count` images with their captions."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        scene, caption = _teal_pair(rng)
        Image.fromarray(render(scene)).save(folder / f"{number:04d}.png")
        (folder / f"{number:04d}.txt").write_text(caption, encoding="utf-8")


def _teal_pair(rng: np.random.Generator) -> tuple[Scene, str]:
    """A training pair that names a colour, with one of its colours made teal."""
    while True:
        scene, caption = sample_training_pair(rng)
        named = [word for word in caption.split() if word in COLORS]
        if named:
            old = named[int(rng.integers(len(named)))]
            objects = tuple(
                replace(thing, color="teal", rgb=jittered(rng, TEAL)) if thing.color == old else thing
                for thing in scene.objects
            )
            return replace(scene, objects=objects), re.sub(rf"\ban? {old}\b", "a teal", caption)


if __name__ == "__main__":
    main()
