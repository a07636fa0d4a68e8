"""What `gpu.py` found, as JSON and as a table: medians, shares of the roofline, stages, the aims, and what was not measured."""

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from gpu_cases import Scene
from gpu_pipelines import STEPS
from side_by_side import environment, table

from sana_bench.profiling.flops import Work
from sana_bench.profiling.roofline import Peaks, bound_ms

__all__ = ["Found", "aims", "card", "in_ms", "precision_of", "shares", "write"]

Row = dict[str, Any]

_FORMATS = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
_AIMED = "sana-1.6b-1024"
_PIPELINE, _STEP = (f"{part}, {_AIMED}, batch 1" for part in ("pipeline", "transformer"))


@dataclass
class Found:
    """Rows as they were measured; cases that there was no time for; and why other things were not measured."""

    peaks: Peaks | None = None
    rows: list[Row] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    not_measured: dict[str, str] = field(default_factory=dict)


def precision_of(dtype: torch.dtype) -> str:
    """A format's name among the peaks."""
    return _FORMATS[dtype]


def card(device: torch.device) -> str:
    """The device's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "a processor, to try the script"


def write(found: Found, scene: Scene, repetitions: int, to: Path) -> None:
    """Write what was measured so far."""
    facts = environment("triton", "torchao") | {"dtype": precision_of(scene.dtype), "kernels": scene.kernels}
    if scene.device.type == "cuda":
        facts |= {"device": card(scene.device), "CUDA": str(torch.version.cuda), "driver": _driver()}
    content = {"environment": facts, **asdict(found), "aims": aims(found)}
    (to / "gpu.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (to / "gpu.md").write_text(_text(found, facts, card(scene.device), repetitions), encoding="utf-8")


def _text(found: Found, facts: dict[str, str], where: str, repetitions: int) -> str:
    header = (
        "what",
        "contestant",
        "median [fastest, slowest]",
        "times the peer's speed",
        "share of the roofline",
        "stages",
    )
    listed = ", ".join(f"{name} {value}" for name, value in facts.items())
    lines = [
        f"# Speed on {where}\n",
        f"`python benchmarks/gpu.py`, at most {repetitions} interleaved repetitions; pipelines take {STEPS} steps with guidance.",
        "Random weights: speed does not depend on them. Ours runs on the kernels named here, unless its name says otherwise, and",
        "encodes a negative prompt that stays once. Kernels by themselves are timed in a CUDA graph of many calls, whose small",
        "tensors stay in the cache, so that a share of the roofline may exceed 100 %.",
        f"Every row's contestants agreed in the same run. {listed}.\n",
    ]
    if found.peaks is not None:
        rates = ", ".join(f"{name} {rate / 1e12:.3g}" for name, rate in found.peaks.flops.items())
        lines.append(
            f"Peaks of the roofline, measured in the same run: products {rates}, in 10^12 operations a second; memory "
            f"{found.peaks.bytes_per_s / 1e9:.4g} GB/s.\n"
        )
    lines += ["Aims, on an H100 or H200:\n", *(f"- {line}" for line in aims(found)), ""]
    lines.append(table(header, [line for row in found.rows for line in _lines(row, found.peaks)]))
    absent = dict(found.not_measured) | dict.fromkeys(found.dropped, "the minutes were used up")
    lines += ["", *(f"- {what}: not measured: {reason}" for what, reason in absent.items())]
    left_out: dict[tuple[str, str], list[str]] = {}
    for row in found.rows:
        for one in row["left_out"].items():
            left_out.setdefault(one, []).append(row["what"])
    lines += [
        f"- {name}: not measured: {reason}: {'; '.join(rows)}" for (name, reason), rows in left_out.items()
    ]
    return "\n".join(lines) + "\n"


def _lines(row: Row, peaks: Peaks | None) -> list[tuple[str, ...]]:
    times, of_peak = _times(row, row["peer"]), shares(row, peaks)
    return [
        (
            row["what"],
            name,
            in_ms(seconds),
            f"{times[name]:.2f}",
            f"{of_peak[name]:.0%}" if name in of_peak else "",
            ", ".join(f"{stage} {1000 * took:.4g} ms" for stage, took in row["stages"].get(name, {}).items()),
        )
        for name, seconds in row["seconds"].items()
    ]


def in_ms(seconds: Sequence[float]) -> str:
    """Median, fastest and slowest; a kernel takes a fraction of a millisecond."""
    middle, fastest, slowest = (1000 * pick(seconds) for pick in (statistics.median, min, max))
    return f"{middle:.4g} ms [{fastest:.4g}, {slowest:.4g}]"


def shares(row: Row, peaks: Peaks | None) -> dict[str, float]:
    """Of each contestant, the least time that the work can take over its median; none for a format without a measured peak."""
    if peaks is None:
        return {}
    work = Work(flops=row["flops"], weights=row["bytes"], itemsize=1)
    found = {}
    for name, seconds in row["seconds"].items():
        precision = "int8" if name in row["eight_bits"] else row["precision"]
        if precision in peaks.flops and (work.flops or work.bytes):
            found[name] = bound_ms(work, peaks, precision) / 1000 / statistics.median(seconds)
    return found


def aims(found: Found) -> list[str]:
    """Each aim in a sentence with what was measured."""
    rows = {row["what"]: row for row in found.rows}
    # What each is held against, and what it must reach.
    held: tuple[tuple[str, str, float, Callable[[Row], dict[str, float]]], ...] = (
        ("at least 2 times diffusers eager", _PIPELINE, 2.0, lambda row: _times(row, "diffusers")),
        (
            "at least 1.2 times diffusers compiled",
            _PIPELINE,
            1.2,
            lambda row: _times(row, "diffusers compiled"),
        ),
        ("the transformer at half its roofline or more", _STEP, 0.5, lambda row: shares(row, found.peaks)),
    )
    lines = []
    for aim, what, least, reached in held:
        values = (
            {name: value for name, value in reached(rows[what]).items() if _ours(name, rows[what])}
            if what in rows
            else {}
        )
        if not values:
            reason = _reason(found, rows.get(what), what)
            lines.append(f"{aim} ({what}): not measured: {reason}")
            continue
        best = max(values, key=lambda name: values[name])
        verdict = "met" if values[best] >= least else "missed"
        lines.append(f"{aim} ({what}): {verdict}: {values[best]:.2f}, {best}")
    return lines


def _ours(name: str, row: Row) -> bool:
    return name.startswith("ours") and name not in row["eight_bits"]


def _times(row: Row, peer: str) -> dict[str, float]:
    """How many times as fast as a contestant each is; none where that was left out."""
    medians = {name: statistics.median(seconds) for name, seconds in row["seconds"].items()}
    return {name: medians[peer] / median for name, median in medians.items()} if peer in medians else {}


def _reason(found: Found, row: Row | None, what: str) -> str:
    if row is None:
        return found.not_measured.get(
            what, "the minutes were used up" if what in found.dropped else "it was not asked for"
        )
    return (
        "; ".join(f"{name}: {reason}" for name, reason in row["left_out"].items()) or "no peak for its format"
    )


def _driver() -> str:
    try:
        import pynvml
    except ImportError:
        return "unknown (nvidia-ml-py is not installed)"
    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError as error:
        return f"unknown ({error})"
