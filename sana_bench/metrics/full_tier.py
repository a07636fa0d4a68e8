"""The one place that says what the full tier's metrics still need, and where what they have is."""

from collections.abc import Sequence
from pathlib import Path

from sana_bench.assets import Assets
from sana_bench.errors import AssetError


def refuse(metric: str, names: Sequence[str]) -> AssetError:
    """The error to raise for `metric` on the full tier, naming every missing file and how to get it.

    With all files in place it says that this version scores `metric` on the micro tier only: a number from
    another network than the one asked for is never given instead.
    """
    try:
        require(metric, names)
    except AssetError as error:
        return error
    return AssetError(f"metric {metric!r}: this version scores it on the micro tier only; use --tier micro")


def require(metric: str, names: Sequence[str]) -> list[Path]:
    """The files called `names`; raises one `AssetError` for `metric` that names every missing one."""
    assets = Assets("full")
    found, lacking = [], []
    for name in names:
        try:
            found.append(assets.file(name))
        except AssetError as error:
            lacking.append(str(error))
    if lacking:
        raise AssetError(f"metric {metric!r} on the full tier: {'; '.join(lacking)}")
    return found
