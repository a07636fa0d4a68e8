"""The least time that a device's arithmetic and memory allow, and projections from one device to another.

A stage cannot be faster than its operations at the device's peak rate, nor than its bytes at the peak bandwidth. The
projection assumes that a stage reaches the same share of that bound on the other device, launch overheads included, and
that what the host does (tokenising, image encoding) takes as long. It is a projection and never ranked.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from sana_bench.profiling.flops import Work
from sana_bench.profiling.timers import timer_for

__all__ = ["ASSUMPTIONS", "PEAKS", "Peaks", "bound_ms", "find_peaks", "measure_peaks", "project_ms"]

ASSUMPTIONS = (
    "each stage reaches the same share of its roofline on both devices, and host work takes as long; "
    "dense peaks, elementwise operations fused"
)


@dataclass(frozen=True)
class Peaks:
    """Peak rates in operations and bytes a second; `flops` by precision, dense."""

    name: str
    flops: Mapping[str, float]
    bytes_per_s: float
    source: str


# fp32 is without tensor cores, as torch computes products by default; tf32, fp16 and bf16 accumulate in fp32.
PEAKS: dict[str, Peaks] = {
    "A100": Peaks(
        "A100",
        {"fp32": 19.5e12, "tf32": 156e12, "fp16": 312e12, "bf16": 312e12, "int8": 624e12},
        2039e9,
        "NVIDIA A100 80GB SXM data sheet",
    ),
    "A100 40GB": Peaks(
        "A100 40GB",
        {"fp32": 19.5e12, "tf32": 156e12, "fp16": 312e12, "bf16": 312e12, "int8": 624e12},
        1555e9,
        "NVIDIA A100 40GB SXM data sheet",
    ),
    "H100": Peaks(
        "H100",
        {"fp32": 67e12, "tf32": 494.7e12, "fp16": 989.5e12, "bf16": 989.5e12, "int8": 1979e12},
        3350e9,
        "NVIDIA H100 SXM data sheet, halved where it counts sparsity",
    ),
    "L40S": Peaks(
        "L40S",
        {"fp32": 91.6e12, "tf32": 183e12, "fp16": 362.05e12, "bf16": 362.05e12, "int8": 733e12},
        864e9,
        "NVIDIA L40S data sheet, halved where it counts sparsity",
    ),
    "RTX 4090": Peaks(
        "RTX 4090",
        {"fp32": 82.6e12, "tf32": 82.6e12, "fp16": 165.2e12, "bf16": 165.2e12, "int8": 660.6e12},
        1008e9,
        "NVIDIA Ada GPU architecture white paper, appendix A",
    ),
    "H200": Peaks(
        "H200",
        {"fp32": 67e12, "tf32": 494.7e12, "fp16": 989.5e12, "bf16": 989.5e12, "int8": 1979e12},
        4800e9,
        "NVIDIA H200 SXM data sheet, halved where it counts sparsity",
    ),
}


# Cards that share a name but neither clocks nor memory (PCIe forms, RTX 4090 Laptop) have no entry.
_DRIVER_NAMES = {
    "A100": re.compile(r"\bA100-SXM4-80GB\b"),
    "A100 40GB": re.compile(r"\bA100-SXM4-40GB\b"),
    "H100": re.compile(r"\bH100 80GB HBM3\b"),
    "L40S": re.compile(r"\bL40S\b"),
    "RTX 4090": re.compile(r"\bRTX 4090(?! (Laptop|D)\b)"),
    "H200": re.compile(r"\bH200(?! NVL\b)"),
}


_TORCH_NAMES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def find_peaks(device_name: str) -> Peaks | None:
    """Peaks of a device by the name that its driver gives; None for one without an entry."""
    return next((PEAKS[key] for key, name in _DRIVER_NAMES.items() if name.search(device_name)), None)


def bound_ms(work: Work, peaks: Peaks, precision: str) -> float:
    """Least milliseconds of some work. Raises `KeyError` for a precision without a peak."""
    return 1000 * max(work.flops / peaks.flops[precision], work.bytes / peaks.bytes_per_s)


def project_ms(
    measured_ms: Mapping[str, float],
    work: Mapping[str, Work],
    source: Peaks,
    target: Peaks,
    precisions: Mapping[str, str],
) -> float:
    """Milliseconds of all stages together on `target`; stages without counted work take as long as measured."""
    total = 0.0
    for stage, value in measured_ms.items():
        if stage in work:
            precision = precisions[stage]
            value *= bound_ms(work[stage], target, precision) / bound_ms(work[stage], source, precision)
        total += value
    return total


def measure_peaks(name: str, device: str = "cpu", formats: Sequence[str] = ("fp32",)) -> Peaks:
    """Peaks of a torch device, on a processor with torch's threads: the best of a few copies, and of products in each format.

    What is reachable and not what a data sheet says, so a stage may come out slightly above it. A format of fp32, fp16, bf16 and
    int8 that torch has no product for on the device is left out.
    """
    import torch

    timer, repeats = timer_for(device), 4
    side, values = (8192, 1 << 28) if device.startswith("cuda") else (768, 1 << 24)

    def seconds(run: Callable[[], Any]) -> float:
        took = []
        for _ in range(repeats):
            begin = timer.mark()
            run()
            end = timer.mark()
            timer.finish()
            took.append(timer.milliseconds(begin, end) / 1000)
        return min(took)

    source, target = torch.ones(values, device=device), torch.empty(values, device=device)
    bandwidth = 2 * source.nbytes / seconds(lambda: target.copy_(source))
    rates = {}
    for precision in formats:
        whole = precision == "int8"
        dtype = torch.int8 if whole else getattr(torch, _TORCH_NAMES[precision])
        # On a GPU, values of one kind draw less power, and so run at higher clocks, than those of a network.
        a, b = (torch.randn(side, side, device=device).mul_(16 if whole else 1).to(dtype) for _ in range(2))
        # A weight is stored by outputs: products of integers want it so.
        product = partial(torch._int_mm if whole else torch.mm, a, b.t())
        with suppress(RuntimeError):
            rates[precision] = 2 * side**3 / seconds(product)
    size = values * source.itemsize >> 20
    return Peaks(
        name, rates, bandwidth, f"measured here: {' and '.join(formats)} matrix product, copy of {size} MiB"
    )
