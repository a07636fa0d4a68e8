"""What a metric needs from outside: where networks are and where it may keep reference statistics."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class MetricAssets:
    """Folders for metrics: `weights_dir` has one per network, `cache_dir` appears when first written to.

    `device` is where the full tier's networks run; the micro tier's always run on the CPU.
    """

    weights_dir: Path
    cache_dir: Path
    device: str = "cpu"
