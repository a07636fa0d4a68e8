"""Published numbers, quoted: for orientation beside full-tier results, never ranked with them.

Sources: SANA (arXiv:2410.10629, Table 7), SANA-1.5 (arXiv:2501.18427v4, Table 1). FID and CLIP score are over
MJHQ-30K; latency is one image on an A100, in seconds. The 512-pixel latencies of SANA look swapped between 0.6B
and 1.6B in the paper and are left out.
"""

from dataclasses import dataclass

__all__ = ["PUBLISHED", "PublishedRow", "published_rows"]

_SANA = "SANA, arXiv:2410.10629, Table 7"
_SANA_15 = "SANA-1.5, arXiv:2501.18427v4, Table 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRow:
    """One model as its paper reports it; None where the paper has no number."""

    model: str
    resolution: int
    parameters_b: float
    geneval: float
    dpg_bench: float
    fid: float | None
    clip_score: float | None
    latency_s: float | None
    hardware: str
    source: str

    def number(self, metric: str) -> float | None:
        """The quoted value of a metric by the harness's name for it."""
        return {
            "geneval": self.geneval,
            "dpg_bench": self.dpg_bench,
            "fid": self.fid,
            "clip_score": self.clip_score,
        }.get(metric)


_ROWS = (
    # model, resolution, parameters (1e9), GenEval, DPG, FID, CLIP, latency (s), hardware, source
    ("Sana-0.6B", 512, 0.6, 0.64, 84.3, 5.67, 27.92, None, "", _SANA),
    ("Sana-1.6B", 512, 1.6, 0.66, 85.5, 5.16, 28.19, None, "", _SANA),
    ("Sana-0.6B", 1024, 0.6, 0.64, 83.6, 5.81, 28.36, 0.9, "A100, FP16", _SANA),
    ("Sana-1.6B", 1024, 1.6, 0.66, 84.8, 5.76, 28.67, 1.2, "A100, FP16", _SANA),
    ("SANA-1.5 4.8B Pre", 1024, 4.8, 0.72, 85.0, 5.42, 29.16, 4.2, "A100, BF16", _SANA_15),
    ("SANA-1.5 4.8B", 1024, 4.8, 0.81, 84.7, 5.99, 29.23, 4.2, "A100, BF16", _SANA_15),
)
PUBLISHED = tuple(
    PublishedRow(
        model=model,
        resolution=resolution,
        parameters_b=parameters,
        geneval=geneval,
        dpg_bench=dpg,
        fid=fid,
        clip_score=clip,
        latency_s=latency,
        hardware=hardware,
        source=source,
    )
    for model, resolution, parameters, geneval, dpg, fid, clip, latency, hardware, source in _ROWS
)

# What the papers measured each metric on. A number over other prompts is no counterpart.
_MEASURED_ON = {"geneval": "geneval", "dpg_bench": "dpg_bench", "fid": "mjhq30k", "clip_score": "mjhq30k"}


def published_rows(
    tier: str, benchmark: str, metrics: tuple[str, ...]
) -> list[tuple[PublishedRow, list[float | None]]]:
    """Quoted rows for a table with the numbers of its metrics; none outside the full tier or without a match."""
    if tier != "full":
        return []
    rows = []
    for row in PUBLISHED:
        numbers = [
            row.number(metric) if _MEASURED_ON.get(metric) == benchmark else None for metric in metrics
        ]
        if any(number is not None for number in numbers):
            rows.append((row, numbers))
    return rows
