"""What a metric needs from outside: where networks are and where it may keep reference statistics."""

from dataclasses import dataclass
from pathlib import Path

from sana_bench.errors import AssetError
from sana_bench.fingerprint import HashCache

__all__ = ["MetricAssets", "missing_micro_weights"]


@dataclass(frozen=True)
class MetricAssets:
    """Folders for metrics: `weights_dir` has one per network, `cache_dir` appears when first written to.

    `device` is where the full tier's networks run; the micro tier's always run on the CPU. `hashes` remembers the hashes of
    files that have not changed.
    """

    weights_dir: Path
    cache_dir: Path
    device: str = "cpu"
    hashes: HashCache | None = None


def missing_micro_weights(folder: Path, metric: str, config: str) -> AssetError:
    """The error to raise for a network of the micro tier that is not there: one line with the command that makes it."""
    return AssetError(
        f"metric {metric!r} on the micro tier: {folder} is missing, these weights are not shipped; "
        f"train them with `sana-bench train {config}` and ship them with `python scripts/ship_micro_judges.py`"
    )
