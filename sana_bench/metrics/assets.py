"""What a metric needs from outside: where networks are and where it may keep reference statistics."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class MetricAssets:
    """Folders for metrics: `weights_dir` has one per network, `cache_dir` appears when first written to.

    `protocol` is the one that the suite asks for, None for the metric's own; networks of the full tier compute on `device`.
    """

    weights_dir: Path
    cache_dir: Path
    protocol: str | None = None
    device: str = "cpu"
