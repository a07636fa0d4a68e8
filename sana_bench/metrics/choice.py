"""Which protocol of a metric a suite asks for, and with which parameters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sana_bench.errors import SuiteError, nearest

__all__ = ["MetricChoice"]


@dataclass(frozen=True)
class MetricChoice:
    """A metric's entry in a suite: its name, and a protocol and parameters where the suite gives them."""

    name: str
    protocol: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def pick(self, protocols: Sequence[str]) -> str:
        """The protocol asked for, the first of `protocols` by default; `SuiteError` with the nearest otherwise."""
        if self.protocol is None:
            return protocols[0]
        if self.protocol not in protocols:
            raise SuiteError(
                f"metric {self.name!r} has no protocol {self.protocol!r}{nearest(self.protocol, protocols)}; "
                f"it has {', '.join(protocols)} on this tier"
            )
        return self.protocol

    def parameters_among(
        self, known: Mapping[str, Any], ranges: Mapping[str, tuple[int, int]] | None = None
    ) -> dict[str, Any]:
        """The defaults in `known` with what the suite sets; `SuiteError` for other names or types.

        `ranges` holds the smallest and largest value of those numbers that have one; others are refused too.
        """
        for name, value in self.parameters.items():
            if name not in known:
                raise SuiteError(
                    f"metric {self.name!r} has no parameter {name!r}{nearest(name, known)}; "
                    f"{self.protocol or 'its default protocol'} has {', '.join(known) or 'none'}"
                )
            if type(value) is not type(known[name]):
                kind = type(known[name]).__name__
                raise SuiteError(f"metric {self.name!r}: parameter {name!r} is {value!r}, expected {kind}")
            low, high = (ranges or {}).get(name, (value, value))
            if not low <= value <= high:
                raise SuiteError(
                    f"metric {self.name!r}: parameter {name!r} is {value!r}, expected {low} to {high}"
                )
        return {**known, **self.parameters}

    def needs_full_tier(self, tier: str) -> None:
        """Raise `SuiteError` on the micro tier, for a metric that has no network there."""
        if tier == "micro":
            raise SuiteError(f"metric {self.name!r} has no micro tier version; use --tier full")
