"""The two tiers: their names, and the one line that refuses any other."""

from typing import Literal, get_args

from sana_bench.core.errors import SuiteError

__all__ = ["TIERS", "TIER_REQUESTS", "Tier", "TierRequest", "unknown_tier"]

Tier = Literal["micro", "full"]

#: What `--tier` takes; `auto` decides by the device.
TierRequest = Literal["auto", Tier]

TIERS: tuple[str, ...] = get_args(Tier)
TIER_REQUESTS: tuple[str, ...] = ("auto", *TIERS)


def unknown_tier(who: str, tier: str) -> SuiteError:
    """The error to raise where `who` is asked for a tier that does not exist."""
    return SuiteError(f"{who}: unknown tier {tier!r}, expected {' or '.join(map(repr, TIERS))}")
