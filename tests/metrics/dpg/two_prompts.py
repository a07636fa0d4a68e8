"""DPG-Bench of two prompts: its table, and images for them."""

from pathlib import Path

import numpy as np

from sana_bench.micro.renderer import render
from sana_bench.micro.vqa_data import sample_scene
from tests.suite_files import write_images

TEXTS = ("A red ring", "A blue star")
TABLE = """\
item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,question_natural_language
7,A red ring,,1,0,entity,whole,"entity - whole (ring)",Is there a ring?
7,,,2,1,attribute,color,"attribute - color (ring, red)",Is the ring red?
8,A blue star,,1,0,entity,whole,"entity - whole (star)",Is there a star?
8,,,2,1,attribute,color,"attribute - color (star, blue)",Is the star blue?
"""


def scenes(count: int, seed: int = 0) -> list[list[np.ndarray]]:
    """`count` random scenes for each prompt."""
    rng = np.random.default_rng(seed)
    return [[render(sample_scene(rng)) for _ in range(count)] for _ in TEXTS]


def write_scenes(folder: Path, count: int, seed: int = 0, height: int = 64) -> None:
    """Write `count` random scenes for each prompt, cut to `height` rows, and their manifest."""
    write_images(
        folder,
        (
            ({"prompt": text, "index": index, "file": f"{place}-{index}.png"}, picture[:height])
            for place, (text, pictures) in enumerate(zip(TEXTS, scenes(count, seed), strict=True))
            for index, picture in enumerate(pictures)
        ),
    )
