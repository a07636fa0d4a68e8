"""Published numbers, quoted: for orientation beside full-tier results, never ranked with them.

Sources: SANA (arXiv:2410.10629, Tables 7, 10 and 11), SANA-1.5 (arXiv:2501.18427v4, Tables 1 to 4 and Figure 4) and the
table of released weights in the README of NVlabs/Sana. FID and CLIP score are over MJHQ-30K. Speed is on one A100:
latency for one image, throughput in batches. Left out: the 512-pixel latencies of SANA, which look swapped between
0.6B and 1.6B in the paper, and SANA-1.5's Table 1 where it repeats SANA's Table 7.

Of the judges of 2026: GenEval 2's GM as later papers quote it (second hand: the papers themselves were not read), LongText-Bench
as the models' reports have it, OneIG-Bench (arXiv:2506.07977, Table 2) without its reasoning and overall, which sana-bench does
not measure. HPS v2.1 and v2 as the README of tgxs002/HPSv2 has them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sana_reports.labels import KINDS

__all__ = ["PUBLISHED", "PublishedRow", "PublishedTable", "published_table", "row_title"]

# What the papers measured each metric on, with its categories. A number over other prompts is no counterpart.
_GENEVAL = ("overall", "single_object", "two_object", "counting", "colors", "position", "color_attr")
_ONEIG = ("oneig_alignment", "oneig_text", "oneig_style", "oneig_diversity")
_DPG = ("overall", "global", "entity", "attribute", "relation", "other")
_HPDV2 = ("anime", "concept-art", "paintings", "photo", "overall")
_COLUMNS = {
    "geneval": tuple(("geneval", key) for key in _GENEVAL),
    "dpg_bench": tuple(("dpg", key) for key in _DPG),
    "geneval2": (("geneval2", "overall"),),
    "hpdv2": tuple((metric, key) for metric in ("hpsv2.1", "hpsv2") for key in _HPDV2),
    "longtext": (("longtext", "overall"),),
    "longtext_zh": (("longtext", "overall"),),
    "mjhq30k": (("fid", "overall"), ("clip_score", "overall")),
    "image_reward": (("image_reward", "overall"),),
    "oneig": tuple((metric, "overall") for metric in _ONEIG),
}


def row_title(model: str, resolution: int | None) -> str:
    """Model and resolution in pixels, as rows are called."""
    return model if resolution is None else f"{model}, {resolution} px"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRow:
    """One model as one source reports it.

    `numbers` has a value for each (metric, category) that the source gives, in its own unit: GenEval in [0, 1], DPG-Bench
    out of 100. `tables` names the place of each metric, and of `speed`. Sizes are in 1e9 parameters, `resolution` in pixels,
    `latency_s` in seconds an image, `throughput` in images a second; None where unknown. `benchmark` is the one that the numbers
    are of, where their metrics do not say it.
    """

    model: str
    kind: str
    resolution: int | None
    parameters_b: float | None
    throughput: float | None
    latency_s: float | None
    hardware: str
    numbers: Mapping[tuple[str, str], float]
    paper: str
    tables: Mapping[str, str]
    benchmark: str = ""

    @property
    def title(self) -> str:
        """Model and resolution."""
        return row_title(self.model, self.resolution)

    def source(self, metrics: set[str]) -> str:
        """The paper, with the tables that hold these metrics and the speed."""
        timed = self.latency_s is not None or self.throughput is not None
        wanted = [*sorted(metrics & self.tables.keys()), *(["speed"] if timed else [])]
        places = {self.tables[name] for name in wanted if name in self.tables}
        return ", ".join([self.paper, *sorted(places, key=lambda place: (len(place), place))])


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """Quoted rows that belong beside one ranking, and the (metric, category) of each of their columns."""

    columns: tuple[tuple[str, str], ...]
    rows: tuple[PublishedRow, ...]

    @property
    def metrics(self) -> set[str]:
        """The metrics of the columns."""
        return {metric for metric, _ in self.columns}

    @property
    def groups(self) -> list[tuple[str, list[PublishedRow]]]:
        """Rows by kind, in the order of `KINDS`."""
        found = [(kind, [row for row in self.rows if row.kind == kind]) for kind in KINDS]
        return [(kind, rows) for kind, rows in found if rows]


_SANA = "SANA, arXiv:2410.10629"
_SANA_15 = "SANA-1.5, arXiv:2501.18427v4"
_README = "README of NVlabs/Sana, performance table"
_SANA_TABLES = {
    "speed": "Table 7", "fid": "Table 7", "clip_score": "Table 7", "geneval": "Table 10", "dpg": "Table 11",
    "image_reward": "Table 11",
}  # fmt: skip
_SANA_15_TABLES = dict.fromkeys(("speed", "fid", "clip_score", "dpg"), "Table 1") | {"geneval": "Table 2"}

# model, pixels, parameters (1e9), images/s in batches of 16, latency (s), FID, CLIP, GenEval overall and by task,
# DPG-Bench overall and by category, ImageReward
_SANA_ROWS = (
    ("PixArt-alpha", 512, 0.6, 1.5, 1.2, 6.14, 27.55, (0.48, 0.98, 0.50, 0.44, 0.80, 0.08, 0.07),
     (71.6, 81.7, 80.1, 80.4, 81.7, 76.5), 0.92),
    ("PixArt-Sigma", 512, 0.6, 1.5, 1.2, 6.34, 27.62, (0.52, 0.98, 0.59, 0.50, 0.80, 0.10, 0.15),
     (79.5, 87.5, 87.1, 86.5, 84.0, 86.1), 0.97),
    ("Sana-0.6B", 512, 0.6, 6.7, None, 5.67, 27.92, (0.64, 0.99, 0.71, 0.63, 0.91, 0.16, 0.42),
     (84.3, 82.6, 90.0, 88.6, 90.1, 91.9), 0.93),
    ("Sana-1.6B", 512, 1.6, 3.8, None, 5.16, 28.19, (0.66, 0.99, 0.79, 0.63, 0.88, 0.18, 0.47),
     (85.5, 90.3, 91.2, 89.0, 88.9, 92.0), 1.04),
    ("LUMINA-Next", 1024, 2.0, 0.12, 9.1, 7.58, 26.84, (0.46, 0.92, 0.46, 0.48, 0.70, 0.09, 0.13),
     (74.6, 82.8, 88.7, 86.4, 80.5, 81.8), None),
    ("SDXL", 1024, 2.6, 0.15, 6.5, 6.63, 29.03, (0.55, 0.98, 0.74, 0.39, 0.85, 0.15, 0.23),
     (74.7, 83.3, 82.4, 80.9, 86.8, 80.4), 0.69),
    ("Playground-v2.5", 1024, 2.6, 0.21, 5.3, 6.09, 29.13, (0.56, 0.98, 0.77, 0.52, 0.84, 0.11, 0.17),
     (75.5, 83.1, 82.6, 81.2, 84.1, 83.5), 1.09),
    ("Hunyuan-DiT", 1024, 1.5, 0.05, 18.2, 6.54, 28.19, (0.63, 0.97, 0.77, 0.71, 0.88, 0.13, 0.30),
     (78.9, 84.6, 80.6, 88.0, 74.4, 86.4), 0.92),
    ("PixArt-Sigma", 1024, 0.6, 0.4, 2.7, 6.15, 28.26, (0.54,), (80.5, 86.9, 82.9, 88.9, 86.6, 87.7), 0.87),
    ("DALLE3", 1024, None, None, None, None, None, (0.67, 0.96, 0.87, 0.47, 0.83, 0.43, 0.45),
     (83.5, 91.0, 89.6, 88.4, 90.6, 89.8), None),
    ("SD3-medium", 1024, 2.0, 0.28, 4.4, 11.92, 27.83, (0.62, 0.98, 0.74, 0.63, 0.67, 0.34, 0.36),
     (84.1, 87.9, 91.0, 88.8, 80.7, 88.7), 0.86),
    ("FLUX-dev", 1024, 12.0, 0.04, 23.0, 10.15, 27.47, (0.67, 0.99, 0.81, 0.79, 0.74, 0.20, 0.47),
     (84.0, 82.1, 89.5, 88.7, 91.1, 89.4), None),
    ("FLUX-schnell", 1024, 12.0, 0.5, 2.1, 7.94, 28.14, (0.71, 0.99, 0.92, 0.73, 0.78, 0.28, 0.54),
     (84.8, 91.2, 91.3, 89.7, 86.5, 87.0), 0.91),
    ("Sana-0.6B", 1024, 0.6, 1.7, 0.9, 5.81, 28.36, (0.64, 0.99, 0.76, 0.64, 0.88, 0.18, 0.39),
     (83.6, 83.0, 89.5, 89.3, 90.1, 90.2), 0.97),
    ("Sana-1.6B", 1024, 1.6, 1.0, 1.2, 5.76, 28.67, (0.66, 0.99, 0.77, 0.62, 0.88, 0.21, 0.47),
     (84.8, 86.0, 91.5, 88.9, 91.9, 90.7), 0.99),
)  # fmt: skip

# model, kind, parameters (1e9), images/s in batches of 10, latency (s), FID, CLIP, DPG-Bench, GenEval overall and by task
_SANA_15_ROWS = (
    ("SDXL", "full", 2.6, None, None, None, None, None, (0.55, 0.98, 0.74, 0.39, 0.85, 0.15, 0.23)),
    ("DALLE3", "full", None, None, None, None, None, None, (0.67, 0.96, 0.87, 0.47, 0.83, 0.43, 0.45)),
    ("FLUX-dev", "full", 12.0, None, None, None, None, None, (0.68, 0.99, 0.85, 0.74, 0.79, 0.21, 0.48)),
    ("SD3", "full", None, None, None, None, None, None, (0.74, 0.99, 0.94, 0.72, 0.89, 0.33, 0.60)),
    ("Playground-v3", "full", 24.0, 0.06, 15.0, None, None, 87.0, (0.76, 0.99, 0.95, 0.72, 0.82, 0.50, 0.54)),
    ("SD1.5", "full", None, None, None, None, None, None, (0.42, 0.98, 0.39, 0.31, 0.72, 0.04, 0.06)),
    ("SD1.5 + inference scaling", "inference_scaled", None, None, None, None, None, None,
     (0.87, 1.00, 0.97, 0.93, 0.96, 0.75, 0.62)),
    ("SANA-1.5 4.8B Pre", "grown", 4.8, 0.26, 4.2, 5.42, 29.16, 85.0,
     (0.72, 0.99, 0.85, 0.77, 0.87, 0.34, 0.54)),
    ("SANA-1.5 4.8B Ours", "grown", 4.8, 0.26, 4.2, 5.99, 29.23, 84.7,
     (0.81, 0.99, 0.93, 0.86, 0.84, 0.59, 0.65)),
    ("SANA-1.5 4.8B + inference scaling 2048", "inference_scaled", 4.8, None, None, None, None, None,
     (0.96, 1.00, 1.00, 0.97, 0.94, 0.96, 0.87)),
)  # fmt: skip

# model, kind, pixels, parameters (1e9), GenEval, place
_SANA_15_GENEVAL = (
    ("SANA-1.5 4.8B", "grown", 512, 4.8, 0.693, "Table 3"),
    ("SANA-1.5 pruned 3.2B", "pruned", 512, 3.2, 0.673, "Table 3"),
    ("SANA-1.5 pruned 3.2B + FT", "pruned", 512, 3.2, 0.684, "Table 3"),
    ("SANA-1.5 pruned 2.4B", "pruned", 512, 2.4, 0.647, "Fig. 4"),
    ("SANA-1.5 pruned 2.4B + FT", "pruned", 512, 2.4, 0.675, "Fig. 4"),
    ("SANA-1.5 pruned 1.6B", "pruned", 512, 1.6, 0.571, "Table 3"),
    ("SANA-1.5 pruned 1.6B + FT", "pruned", 512, 1.6, 0.672, "Table 3"),
    ("SANA-1.0 1.6B", "full", 512, 1.6, 0.664, "Table 3"),
    ("SANA 0.6B pre", "full", None, 0.6, 0.64, "Table 4"),
    ("SANA 0.6B SFT", "full", None, 0.6, 0.68, "Table 4"),
    ("SANA 1.6B pre", "full", None, 1.6, 0.66, "Table 4"),
    ("SANA 1.6B SFT", "full", None, 1.6, 0.69, "Table 4"),
    ("SANA 4.8B pre", "grown", None, 4.8, 0.69, "Table 4"),
    ("SANA 4.8B SFT", "grown", None, 4.8, 0.72, "Table 4"),
)

# model, kind, parameters (1e9), images/s, latency (s), FID, CLIP, GenEval, DPG-Bench
_README_ROWS = (
    ("Sana-0.6B (released)", "full", 0.6, 1.7, 0.9, 5.61, 28.80, 0.68, 84.2),
    ("Sana-1.6B-MultiLing (released)", "full", 1.6, 1.0, 1.2, 5.92, 28.94, 0.69, 84.5),
    ("Sana-1.5-1.6B (released)", "full", 1.6, 1.0, 1.2, 5.70, 29.12, 0.82, 84.5),
    ("Sana-1.5-4.8B (released)", "grown", 4.8, 0.26, 4.2, 5.99, 29.23, 0.81, 84.7),
    ("Sana-Sprint-0.6B (released), 2 steps", "full", 0.6, 6.46, 0.25, 6.54, 28.40, 0.76, None),
    ("Sana-Sprint-1.6B (released), 2 steps", "full", 1.6, 5.68, 0.24, 6.50, 28.45, 0.77, None),
)

# model, GM, where it was quoted
_GENEVAL2_ROWS = (
    ("SD3.5-medium", 12.4, "Flow-DPPO, Table 1"),
    ("FLUX.1-dev", 23.3, "Flow-DPPO, Table 1"),
    ("FLUX.2-klein-base-9B", 25.4, "Flow-DPPO, Table 1"),
    ("Qwen-Image-2512", 32.97, "UniEvo-VL, arXiv:2609.38721"),
)
_SECOND_HAND = "second hand, not checked"

# model, English, Chinese
_LONGTEXT_ROWS = (
    ("Janus-Pro", 0.019, 0.006),
    ("BLIP3-o", 0.021, 0.018),
    ("Kolors 2.0", 0.258, 0.329),
    ("BAGEL", 0.373, 0.310),
    ("HiDream-I1", 0.543, 0.024),
    ("OmniGen2", 0.561, 0.059),
    ("FLUX.1-dev", 0.607, 0.005),
    ("Seedream 3.0", 0.896, 0.878),
    ("X-Omni", 0.900, 0.814),
    ("Z-Image", 0.935, 0.936),
    ("Qwen-Image", 0.943, 0.946),
    ("GPT Image 1", 0.956, 0.619),
)
_LONGTEXT_SOURCE = "reports of X-Omni (arXiv:2507.22058), Qwen-Image (arXiv:2508.02324) and Z-Image"

# model, kind, parameters (1e9), alignment, text, style, diversity
_ONEIG_ROWS = (
    ("SANA-1.5 1.6B (PAG)", "full", 1.6, 0.762, 0.054, 0.387, 0.222),
    ("SANA-1.5 4.8B (PAG)", "grown", 4.8, 0.765, 0.069, 0.401, 0.216),
    ("SD1.5", "full", None, 0.565, 0.010, 0.383, 0.429),
    ("SDXL", "full", None, 0.688, 0.029, 0.332, 0.296),
    ("SD3.5-Large", "full", None, 0.809, 0.629, 0.353, 0.225),
    ("FLUX.1-dev", "full", None, 0.786, 0.523, 0.368, 0.238),
    ("Lumina-Image 2.0", "full", None, 0.819, 0.106, 0.354, 0.216),
    ("HiDream-I1", "full", None, 0.829, 0.707, 0.347, 0.186),
    ("Qwen-Image", "full", None, 0.882, 0.891, 0.418, 0.197),
)
_ONEIG_SOURCE = "OneIG-Bench, arXiv:2506.07977"

_HPDV2_SOURCE = "README of tgxs002/HPSv2"
# model, HPS v2.1 by style and over all, HPS v2 in the same way
_HPDV2_ROWS = (
    ("SDXL Refiner 0.9", (33.26, 32.07, 31.63, 28.38, 31.34), (28.45, 27.66, 27.67, 27.46, 27.80)),
    ("SDXL Base 0.9", (32.84, 31.36, 30.86, 27.48, 30.63), (28.42, 27.63, 27.60, 27.29, 27.73)),
    ("Deliberate", (31.46, 30.48, 30.17, 28.83, 30.23), (28.13, 27.46, 27.45, 27.62, 27.67)),
    ("Dreamlike Photoreal 2.0", (30.87, 29.75, 29.46, 28.85, 29.73), (28.24, 27.60, 27.59, 27.99, 27.86)),
    ("DeepFloyd-XL", (27.71, 26.07, 25.79, 27.96, 26.88), (27.64, 26.83, 26.86, 27.75, 27.27)),
    ("Stable Diffusion v2.0", (27.09, 26.02, 25.68, 26.73, 26.38), (27.48, 26.89, 26.86, 27.46, 27.17)),
    ("Stable Diffusion v1.4", (26.03, 24.87, 24.80, 25.70, 25.35), (27.26, 26.61, 26.66, 27.27, 26.95)),
    ("DALL·E 2", (26.38, 24.51, 24.93, 25.55, 25.34), (27.34, 26.54, 26.68, 27.24, 26.95)),
)


def _numbers(
    fid: float | None,
    clip: float | None,
    geneval: tuple[float, ...],
    dpg: tuple[float, ...],
    reward: float | None,
) -> dict[tuple[str, str], float]:
    found = {("fid", "overall"): fid, ("clip_score", "overall"): clip, ("image_reward", "overall"): reward}
    numbers = {key: value for key, value in found.items() if value is not None}
    numbers |= {("geneval", key): value for key, value in zip(_GENEVAL, geneval, strict=False)}
    return numbers | {("dpg", key): value for key, value in zip(_DPG, dpg, strict=False)}


def _published() -> tuple[PublishedRow, ...]:
    rows = [
        PublishedRow(
            model=model, kind="full", resolution=pixels, parameters_b=size, throughput=throughput,
            latency_s=latency, hardware="A100, FP16", numbers=_numbers(fid, clip, geneval, dpg, reward),
            paper=_SANA, tables=_SANA_TABLES if len(geneval) > 1 else _SANA_TABLES | {"geneval": "Table 7"},
        )
        for model, pixels, size, throughput, latency, fid, clip, geneval, dpg, reward in _SANA_ROWS
    ]  # fmt: skip
    rows += [
        PublishedRow(
            model=model, kind=kind, resolution=1024, parameters_b=size, throughput=throughput, latency_s=latency,
            hardware="A100, BF16", numbers=_numbers(fid, clip, geneval, (dpg,) if dpg else (), None),
            paper=_SANA_15, tables=_SANA_15_TABLES,
        )
        for model, kind, size, throughput, latency, fid, clip, dpg, geneval in _SANA_15_ROWS
    ]  # fmt: skip
    rows += [
        PublishedRow(
            model=model, kind=kind, resolution=pixels, parameters_b=size, throughput=None, latency_s=None,
            hardware="", numbers=_numbers(None, None, (geneval,), (), None), paper=_SANA_15,
            tables={"geneval": place},
        )
        for model, kind, pixels, size, geneval, place in _SANA_15_GENEVAL
    ]  # fmt: skip
    rows += [
        PublishedRow(
            model=model, kind=kind, resolution=1024, parameters_b=size, throughput=throughput, latency_s=latency,
            hardware="A100", numbers=_numbers(fid, clip, (geneval,), (dpg,) if dpg else (), None), paper=_README, tables={},
        )
        for model, kind, size, throughput, latency, fid, clip, geneval, dpg in _README_ROWS
    ]  # fmt: skip
    return (*rows, *_judged(), *_preferred())


def _judged() -> list[PublishedRow]:
    """Rows of the benchmarks whose judge reads."""
    rows = [
        _untimed(model, {("geneval2", "overall"): value}, f"{source} ({_SECOND_HAND})")
        for model, value, source in _GENEVAL2_ROWS
    ]
    for model, english, chinese in _LONGTEXT_ROWS:
        for benchmark, value in (("longtext", english), ("longtext_zh", chinese)):
            numbers = {("longtext", "overall"): value}
            rows.append(_untimed(model, numbers, _LONGTEXT_SOURCE, benchmark=benchmark))
    for model, kind, size, *values in _ONEIG_ROWS:
        numbers = {(metric, "overall"): value for metric, value in zip(_ONEIG, values, strict=True)}
        tables = dict.fromkeys(_ONEIG, "Table 2")
        rows.append(_untimed(model, numbers, _ONEIG_SOURCE, kind=kind, parameters_b=size, tables=tables))
    return rows


def _preferred() -> list[PublishedRow]:
    """Rows of HPS's benchmark."""
    return [
        _untimed(
            model,
            {
                (metric, key): value
                for metric, values in (("hpsv2.1", newer), ("hpsv2", older))
                for key, value in zip(_HPDV2, values, strict=True)
            },
            _HPDV2_SOURCE,
        )
        for model, newer, older in _HPDV2_ROWS
    ]


def _untimed(
    model: str,
    numbers: Mapping[tuple[str, str], float],
    paper: str,
    *,
    kind: str = "full",
    parameters_b: float | None = None,
    tables: Mapping[str, str] | None = None,
    benchmark: str = "",
) -> PublishedRow:
    return PublishedRow(
        model=model, kind=kind, resolution=None, parameters_b=parameters_b, throughput=None, latency_s=None,
        hardware="", numbers=numbers, paper=paper, tables=tables or {}, benchmark=benchmark,
    )  # fmt: skip


PUBLISHED = _published()


def published_table(tier: str, benchmark: str, metrics: tuple[str, ...]) -> PublishedTable | None:
    """Quoted rows for a ranking by these metrics; None outside the full tier or without a match."""
    columns = tuple(column for column in _COLUMNS.get(benchmark, ()) if column[0] in metrics)
    if tier != "full" or not columns:
        return None
    rows = (
        row for row in PUBLISHED if row.benchmark in ("", benchmark) and row.numbers.keys() & set(columns)
    )
    return PublishedTable(columns, tuple(rows))
