"""Published times, quoted: reference rows that are never ranked with measured ones.

Beside what `published` has of the papers' tables, these are the sizes beyond 1024 pixels (SANA, Table 14) and a consumer GPU
(Table 5). Left out: SANA's own latencies at 512 and 4096 pixels, which look swapped between 0.6B and 1.6B in the paper.
"""

from dataclasses import dataclass

from sana_reports.labels import MISSING
from sana_reports.published import PUBLISHED, row_title
from sana_reports.text_table import TextTable

__all__ = ["PUBLISHED_SPEED", "PUBLISHED_TITLES", "SpeedRow", "quoted_speed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedRow:
    """One model on one device as a source reports it; None where it gives no number.

    `parameters_b` are those of the denoising network in 1e9, `resolution` is in pixels.
    `latency_s` is for one image, `throughput` in images a second in batches of `batch` (empty where the source does not say).
    """

    model: str
    parameters_b: float | None
    resolution: int
    hardware: str
    precision: str
    latency_s: float | None
    throughput: float | None
    batch: str
    source: str

    @property
    def title(self) -> str:
        """Model and resolution."""
        return row_title(self.model, self.resolution)


_SANA = "SANA, arXiv:2410.10629"
# model, pixels, images/s, latency (s)
_TABLE_14 = (
    ("FLUX-dev", 512, 0.15, 7.9), ("FLUX-dev", 2048, 0.008, 117.0), ("FLUX-dev", 4096, 0.001, 1023.0),
    ("FLUX-schnell", 512, 1.58, 0.7), ("FLUX-schnell", 2048, 0.09, 10.5), ("FLUX-schnell", 4096, 0.013, 76.0),
    ("SD3-medium", 512, 1.14, 1.4), ("SD3-medium", 2048, 0.04, 22.0), ("SD3-medium", 4096, 0.004, 230.0),
    ("Hunyuan-DiT", 512, 0.20, 5.1), ("Hunyuan-DiT", 2048, 0.01, 96.0), ("Hunyuan-DiT", 4096, 0.001, 861.0),
    ("PixArt-Sigma", 2048, 0.06, 18.1), ("PixArt-Sigma", 4096, 0.005, 186.0),
    ("Sana-0.6B", 2048, 0.43, 2.5), ("Sana-0.6B", 4096, 0.104, None),
    ("Sana-1.6B", 2048, 0.25, 4.1), ("Sana-1.6B", 4096, 0.066, None),
)  # fmt: skip
_BATCHES = {"SANA, arXiv:2410.10629": "16", "SANA-1.5, arXiv:2501.18427v4": "10"}


def _rows() -> tuple[SpeedRow, ...]:
    rows = []
    for row in PUBLISHED:
        if row.resolution is None or (row.latency_s is None and row.throughput is None):
            continue
        hardware, _, precision = row.hardware.partition(", ")
        rows.append(
            SpeedRow(
                model=row.model, parameters_b=row.parameters_b, resolution=row.resolution,
                hardware=hardware, precision=precision,
                latency_s=row.latency_s, throughput=row.throughput, batch=_BATCHES.get(row.paper, ""),
                source=row.source(set()),
            )
        )  # fmt: skip
    sizes = {row.model: row.parameters_b for row in PUBLISHED}
    rows += [
        SpeedRow(
            model=model, parameters_b=sizes.get(model), resolution=pixels, hardware="A100", precision="FP16",
            latency_s=latency,
            throughput=throughput, batch="", source=f"{_SANA}, Table 14",
        )
        for model, pixels, throughput, latency in _TABLE_14
    ]  # fmt: skip
    rows += [
        SpeedRow(
            model="Sana-0.6B", parameters_b=0.6, resolution=1024, hardware="RTX 4090 (laptop)", precision=precision,
            latency_s=latency, throughput=None, batch="", source=f"{_SANA}, Table 5",
        )
        for precision, latency in (("FP16", 0.88), ("W8A8", 0.37))
    ]  # fmt: skip
    return tuple(rows)


PUBLISHED_SPEED = _rows()
#: What published rows are called, each once; several sources may report the row of one title.
PUBLISHED_TITLES = tuple(
    dict.fromkeys([*(row.title for row in PUBLISHED), *(row.title for row in PUBLISHED_SPEED)])
)


def quoted_speed(tier: str) -> TextTable | None:
    """The quoted rows as a table; None outside the full tier, whose models are the only ones they are about."""
    if tier != "full":
        return None
    header = (
        "Model (quoted)", "Pixels", "Hardware", "Precision", "s / image, batch 1", "images / s", "Batch", "Source",
    )  # fmt: skip
    rows = [
        (
            row.model, str(row.resolution), row.hardware, row.precision or "not stated", _number(row.latency_s),
            _number(row.throughput), row.batch or "not stated", row.source,
        )
        for row in PUBLISHED_SPEED
    ]  # fmt: skip
    return TextTable(
        title="Published times, quoted",
        header=header,
        rows=rows,
        notes=(
            "Quoted from the sources named: other software and settings, not measured here, never ranked.",
        ),
    )


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:g}"
