"""Which tier a run uses, and why: the first line it prints."""

from dataclasses import dataclass
from typing import Literal

from sana_bench.core.errors import UsageError, nearest
from sana_bench.core.tiers import TIER_REQUESTS, Tier, TierRequest

__all__ = ["DeviceRequest", "TierChoice", "choose_tier"]

DeviceRequest = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class TierChoice:
    """The tier, the reason in words, and the device that generates."""

    tier: Tier
    reason: str
    device: str

    @property
    def line(self) -> str:
        """The line that a run prints first."""
        return f"tier: {self.tier} ({self.reason})"


def choose_tier(requested: TierRequest, device: DeviceRequest = "auto", reason: str = "") -> TierChoice:
    """Resolve `--tier` and `--device`: `auto` is full when a CUDA device is present and wanted, otherwise micro.

    The micro tier computes on the CPU wherever it runs, so that its numbers do not depend on the machine's devices. `reason`
    says why a tier is requested; without it, that `--tier` says so. Raises `UsageError` for any other request, and for a CUDA
    device that is not there.
    """
    if requested not in TIER_REQUESTS:
        raise UsageError(
            f"tier {requested!r}: one of {', '.join(TIER_REQUESTS)}{nearest(requested, TIER_REQUESTS)}"
        )
    if requested == "micro":
        if device == "cuda":
            raise UsageError(
                "--device cuda: the micro tier computes on the CPU alone; --tier full uses a GPU"
            )
        return TierChoice("micro", reason or "asked for with --tier micro", "cpu")
    import torch

    found = torch.cuda.is_available() and device != "cpu"
    if device == "cuda" and not found:
        raise UsageError("--device cuda: torch finds no CUDA device")
    place = "cuda" if found else "cpu"
    name = torch.cuda.get_device_name(0) if found else ""
    if requested == "full":
        asked = "--tier full" if device == "auto" else f"--tier full --device {device}"
        return TierChoice("full", f"{reason or f'asked for with {asked}'}, on {name or 'the CPU'}", place)
    if found:
        return TierChoice("full", f"found a CUDA device: {name}", place)
    return TierChoice("micro", "--device cpu" if device == "cpu" else "no CUDA device found", "cpu")
