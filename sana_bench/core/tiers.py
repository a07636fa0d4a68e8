"""The two tiers: their names, and the one line that refuses any other."""

from typing import Literal, get_args

from sana_bench.core.errors import SuiteError, UsageError, nearest

__all__ = ["TIERS", "Tier", "TierRequest", "check_tier_option", "unknown_tier"]

Tier = Literal["micro", "full"]

#: What `--tier` takes; `auto` decides by the device.
TierRequest = Literal["auto", Tier]

TIERS: tuple[str, ...] = get_args(Tier)


def unknown_tier(who: str, tier: str) -> SuiteError:
    """The error to raise where `who` is asked for a tier that does not exist."""
    return SuiteError(f"{who}: unknown tier {tier!r}, expected {' or '.join(map(repr, TIERS))}")


def check_tier_option(name: str, allowed: tuple[str, ...] = get_args(TierRequest)) -> None:
    """Raise `UsageError` unless the value of `--tier` is one of `allowed`."""
    if name not in allowed:
        raise UsageError(f"--tier {name}: unknown tier{nearest(name, allowed)}; one of {', '.join(allowed)}")
