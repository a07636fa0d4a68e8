"""What a search has found so far, on disk: answers after every batch, and at the end the winners' images and the cost."""

import io
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sana_bench.core import atomic
from sana_bench.core.fingerprint import sealed, unsealed
from sana_bench.core.text import read_text
from sana_bench.judges.base import YesNo
from sana_models.files import read_bytes

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Cost", "Search", "load_search", "save_search", "total_cost"]

_FILE = "search.json"


@dataclass
class Cost:
    """What was spent: images generated and judged, seconds of both, and FLOPs of both (0 where not counted)."""

    images: int = 0
    generation_seconds: float = 0.0
    judge_seconds: float = 0.0
    generation_flops: float = 0.0
    judge_flops: float = 0.0

    def add(self, other: "Cost") -> None:
        """Add another cost to this one."""
        self.images += other.images
        self.generation_seconds += other.generation_seconds
        self.judge_seconds += other.judge_seconds
        self.generation_flops += other.generation_flops
        self.judge_flops += other.judge_flops


@dataclass
class Search:
    """Answers by candidate number so far (None for a candidate that could not be made), and the winners once there are any."""

    answers: list[YesNo | None] = field(default_factory=list)
    winners: list[int] = field(default_factory=list)
    images: "list[np.ndarray]" = field(default_factory=list)
    cost: Cost = field(default_factory=Cost)


def load_search(folder: Path) -> Search:
    """Return what is in a search's folder; an empty search for none, and for damaged files."""
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    try:
        data = unsealed(read_text(folder / _FILE), folder.name)
        answers = [
            None if pair is None else YesNo(float(pair[0]), float(pair[1])) for pair in data["answers"]
        ]
        search = Search(answers, [int(number) for number in data["winners"]], [], Cost(**data["cost"]))
        for number in search.winners:
            with Image.open(io.BytesIO(read_bytes(folder / f"{number}.png"))) as image:
                search.images.append(np.asarray(image.convert("RGB")))
    except (OSError, ValueError, KeyError, TypeError, UnidentifiedImageError):
        return Search()
    return search


def save_search(folder: Path, search: Search) -> None:
    """Write a search durably, images before the file that tells of them."""
    from PIL import Image

    for number, image in zip(search.winners, search.images, strict=True):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG", compress_level=3)
        atomic.write_bytes(folder / f"{number}.png", buffer.getvalue())
    answers = [None if answer is None else [answer.yes, answer.no] for answer in search.answers]
    data = {"answers": answers, "winners": search.winners, "cost": asdict(search.cost)}
    atomic.write_text(folder / _FILE, sealed(data, folder.name))


def total_cost(folder: Path) -> Cost:
    """Return the cost of all searches below a folder."""
    total = Cost()
    for path in sorted(folder.rglob(_FILE)):
        total.add(load_search(path.parent).cost)
    if not math.isfinite(total.generation_seconds):
        raise ValueError(f"{folder}: a recorded cost is not finite")
    return total
