"""Sheets of pictures with captions."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sana_models.files import write_whole

__all__ = ["write_sheet"]

_CELL, _MARGIN, _TEXT_HEIGHT, _LINES = 192, 8, 14, 4


def write_sheet(path: Path, shown: Sequence[tuple[np.ndarray, str]]) -> None:
    """Write uint8 (H, W, 3) pictures of any sizes, scaled to one, with the text below each, as a PNG of up to 8 columns."""
    from PIL import Image, ImageDraw, ImageFont

    columns = min(8, max(1, round(len(shown) ** 0.5)))
    rows = -(-len(shown) // columns)
    across, down = _CELL + _MARGIN, _CELL + _MARGIN + _LINES * _TEXT_HEIGHT
    sheet = Image.new("RGB", (columns * across + _MARGIN, rows * down + _MARGIN), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for number, (pixels, caption) in enumerate(shown):
        left, top = _MARGIN + number % columns * across, _MARGIN + number // columns * down
        picture = Image.fromarray(pixels)
        scale = _CELL / max(picture.size)
        kind = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
        width, height = (max(1, round(side * scale)) for side in picture.size)
        sheet.paste(picture.resize((width, height), kind), (left, top))
        lines = textwrap.wrap(caption, _CELL // 6)[:_LINES]
        draw.multiline_text((left, top + _CELL + 1), "\n".join(lines), fill="black", font=font, spacing=1)
    write_whole(path, lambda stream: sheet.save(stream, "PNG"))
