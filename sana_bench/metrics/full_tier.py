"""The one place that says what the full tier's metrics still need, and where what they have is."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

from sana_bench.assets import FULL_TIER_FILES, Assets, safetensors_shapes
from sana_bench.errors import AssetError
from sana_bench.metrics.damaged import DAMAGED


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
    """The local paths of the files that `metric` needs; `AssetError` naming every one that is missing or cut short."""
    return found_files(f"metric {metric!r} on the full tier", names)


def found_files(who: str, names: Sequence[str]) -> list[Path]:
    """The local paths of files of the full tier; `AssetError` that begins with `who`, as `required`."""
    assets = Assets("full")
    found, lacking = [], []
    for name in names:
        try:
            found.append(assets.file(name))
            _check_whole(found[-1], name)
        except AssetError as error:
            lacking.append(str(error))
    if lacking:
        raise AssetError(f"{who}: {'; '.join(lacking)}")
    return found


def _check_whole(path: Path, name: str) -> None:
    """Raise `AssetError` for a weight file that its own format shows to be damaged, in a second and without a network."""
    try:
        if path.suffix == ".safetensors":
            safetensors_shapes(path)
        elif path.suffix in (".pt", ".pth") and not zipfile.is_zipfile(path):
            _read_old_file(path)
    except (AssetError, ValueError) as error:
        how = next(required.how for required in FULL_TIER_FILES if required.name == name)
        reason = str(error).removeprefix(f"{path}: ").partition("; ")[0]
        raise AssetError(f"{path} is damaged ({reason}): delete it and get it again: {how}") from None


def _read_old_file(path: Path) -> None:
    """Raise `ValueError` unless the file is whole in the format of torch before 1.6: pickles, then the numbers.

    Nothing in such a file says how long it is, so it is read; of the evaluators only pytorch-fid's Inception (91 MB) is one.
    """
    import torch

    size = path.stat().st_size
    with open(path, "rb") as file:
        if file.read(1) != b"\x80":  # how a pickle begins
            raise ValueError(f"{size} bytes, not a file of torch or cut short")
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGED as error:
        raise ValueError(f"{size} bytes, {str(error).partition(chr(10))[0] or 'cut short'}") from None
