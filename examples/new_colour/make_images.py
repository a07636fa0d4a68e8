"""Draws images of the micro world, as NAME.png and NAME.txt: in `teal` some object has a colour that `sana-micro` never saw.

In `known` all is as the model learnt it: seen in between, they keep it from forgetting the rest.

python examples/new_colour/make_images.py data
"""

import argparse
import re
from collections.abc import Callable
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
    parser.add_argument("--teal", type=int, default=200, help="images of the new colour")
    parser.add_argument("--known", type=int, default=1000, help="images of what the model knows")
    options = parser.parse_args()
    write_images(options.folder / "teal", options.teal, teal_pair, 7)
    write_images(options.folder / "known", options.known, sample_training_pair, 8)


def write_images(
    folder: Path, count: int, pair: Callable[[np.random.Generator], tuple[Scene, str]], seed: int
) -> None:
    """Write `count` images with their captions, drawn by `pair`."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        scene, caption = pair(rng)
        Image.fromarray(render(scene)).save(folder / f"{number:04d}.png")
        (folder / f"{number:04d}.txt").write_text(caption, encoding="utf-8")


def teal_pair(rng: np.random.Generator) -> tuple[Scene, str]:
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
