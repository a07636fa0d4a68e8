"""What metrics agree on, as text for a terminal and as one HTML file with the images that they judge most differently."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from sana_reports.assets import asset, fill
from sana_reports.files import write_text_atomic
from sana_reports.gallery import image_source
from sana_reports.html_page import INLINE_LIMIT_BYTES
from sana_reports.labels import MICRO_NOTICE, one_line
from sana_reports.terminal import text_lines
from sana_reports.text_table import TextTable

__all__ = ["AgreementData", "Contrast", "ContrastedImage", "agreement_text", "write_agreement"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContrastedImage:
    """An image with what each of two metrics says of it; `said` are lines such as `CLIP score 21.3, better than 92 %`."""

    prompt: str
    where: str
    image_path: Path
    said: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """The images that two metrics judge most differently."""

    title: str
    images: Sequence[ContrastedImage]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementData:
    """`tables` first, then images; `notes` are sentences on what could not be compared."""

    title: str
    tier: str
    tables: Sequence[TextTable]
    contrasts: Sequence[Contrast]
    notes: Sequence[str] = ()


def agreement_text(data: AgreementData) -> str:
    """Tables and images as lines, plain ASCII apart from names."""
    lines = [one_line(data.title), *([MICRO_NOTICE] if data.tier == "micro" else [])]
    for table in data.tables:
        lines += ["", *text_lines(table)]
    for contrast in data.contrasts:
        rows = [[image.where, *image.said, image.prompt] for image in contrast.images]
        columns = max(map(len, rows), default=0)
        header = ["image", *([""] * (columns - 2)), "prompt"]
        lines += ["", *text_lines(TextTable(title=contrast.title, header=header, rows=rows))]
    lines += ["", *map(one_line, data.notes)] if data.notes else []
    return "\n".join(line.rstrip() for line in lines) + "\n"


def write_agreement(data: AgreementData, out_dir: Path) -> Path:
    """Write `agreement.html` into `out_dir`, replaced atomically, and return its path.

    Images go into the file while they are small enough together, as in `write_report`. Raises `OSError` when the directory
    cannot be written.
    """
    images = {image.image_path for contrast in data.contrasts for image in contrast.images}
    inline = sum(path.stat().st_size for path in images if path.is_file()) <= INLINE_LIMIT_BYTES
    page = fill(
        "agreement.html.j2",
        data=data,
        sources={path: image_source(path, out_dir, inline=inline) for path in images},
        inline=inline,
        notices=[MICRO_NOTICE] if data.tier == "micro" else [],
        css=Markup(asset("report.css")),
    )
    path = out_dir / "agreement.html"
    write_text_atomic(path, page)
    return path
