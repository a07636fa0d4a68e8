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
        required(metric, names)
    except AssetError as error:
        return error
    return AssetError(f"metric {metric!r}: this version scores it on the micro tier only; use --tier micro")


def required(metric: str, names: Sequence[str]) -> list[Path]:
    """The local paths of the files that `metric` needs; `AssetError` naming every missing one and how to get it."""
    return found_files(f"metric {metric!r} on the full tier", names)


def found_files(who: str, names: Sequence[str]) -> list[Path]:
    """The local paths of files of the full tier; `AssetError` that begins with `who`, as `required`."""
    assets = Assets("full")
    found, lacking = [], []
    for name in names:
        try:
            found.append(assets.file(name))
        except AssetError as error:
            lacking.append(str(error))
    if lacking:
        raise AssetError(f"{who}: {'; '.join(lacking)}")
    return found
