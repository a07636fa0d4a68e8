"""What a measured time is stored under, and which times may be compared."""

from collections.abc import Mapping
from typing import Any

from sana_bench.core.fingerprint import fingerprint
from sana_bench.profiling.hardware import Hardware
from sana_bench.suites.cells import Cell

__all__ = ["PROTOCOLS", "comparable", "measured_identity", "measured_key", "measured_protocol"]

PROTOCOLS = {"latency": "latency/warm-interleaved@1", "throughput": "throughput/batch-sweep@1"}

# Of batches of the size that a suite asks for, as a paper states it.
_FIXED_BATCH = "throughput/fixed-batch@1"

_REQUESTS = "requests"


def measured_identity(metric: str, cell: Cell, hardware: Hardware) -> dict[str, Any]:
    """Device and settings of a measurement, with the variant: two variants may make the same image in different times."""
    size = 1 if metric == "latency" else cell.benchmark.throughput_batch
    batch = {"batch_size": size} if size is not None else {}
    changed = {"settings": dict(cell.benchmark.settings)} if cell.benchmark.settings else {}
    # Throughput of a search was once measured on requests that the search remembered; such numbers are not used again.
    fresh = {_REQUESTS: "fresh"} if metric == "throughput" and cell.variant.search is not None else {}
    of = {"variant": cell.variant.fingerprint}
    return {"metric": metric, **hardware.identity, **batch, **fresh, **changed, **of}


def measured_protocol(metric: str, identity: Mapping[str, Any]) -> str:
    """The protocol of a measured metric: throughput is that of the best batch, or of the one size that is asked for."""
    return _FIXED_BATCH if metric == "throughput" and "batch_size" in identity else PROTOCOLS[metric]


def measured_key(metric: str, identity: Mapping[str, Any]) -> str:
    """Key that the scores of a measured metric are stored under."""
    protocol = measured_protocol(metric, identity)
    return fingerprint({"name": metric, "protocol": protocol, "identity": identity})


def comparable(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a metric's identity that two variants must share for their numbers to be compared."""
    if identity.get("metric") not in PROTOCOLS:
        return dict(identity)
    return {key: value for key, value in identity.items() if key not in ("variant", _REQUESTS)}
