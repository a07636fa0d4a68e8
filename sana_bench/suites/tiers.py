"""Which tier a run uses, and why: the first line it prints."""

from dataclasses import dataclass

from sana_bench.core.errors import UsageError, nearest
from sana_bench.core.tiers import TIER_REQUESTS, Tier, TierRequest

__all__ = ["TierChoice", "choose_tier"]


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


def choose_tier(requested: TierRequest) -> TierChoice:
    """Resolve `--tier`: `auto` is full when a CUDA device is present, otherwise micro.

    The micro tier computes on the CPU wherever it runs, so that its numbers do not depend on the machine's
    devices. Raises `UsageError` for any other request.
    """
    if requested not in TIER_REQUESTS:
        raise UsageError(
            f"tier {requested!r}: one of {', '.join(TIER_REQUESTS)}{nearest(requested, TIER_REQUESTS)}"
        )
    if requested == "micro":
        return TierChoice("micro", "asked for with --tier micro", "cpu")
    import torch

    found = torch.cuda.is_available()
    device = "cuda" if found else "cpu"
    name = torch.cuda.get_device_name(0) if found else ""
    if requested == "full":
        return TierChoice("full", f"asked for with --tier full, on {name or 'the CPU'}", device)
    if found:
        return TierChoice("full", f"found a CUDA device: {name}", device)
    return TierChoice("micro", "no CUDA device found", "cpu")
