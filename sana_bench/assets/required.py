"""The files of the full tier that a reader needs: there and whole, or an error that says how to get them."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

from sana_bench.assets.checks import DAMAGED, safetensors_shapes
from sana_bench.assets.table import Asset, find_asset
from sana_bench.core.errors import AssetError
from sana_models.files import open_plain, plain

__all__ = ["asset_file", "found_files", "required"]


def asset_file(name: str) -> Path:
    """The path of the file that readers of an asset open; raises `AssetError` that says how to get it."""
    asset = find_asset(name)
    if not asset.path.is_file():
        raise AssetError(f"{asset.path} is missing, needed for {asset.needed_for}: {asset.how}")
    return asset.path


def required(metric: str, names: Sequence[str]) -> list[Path]:
    """The local paths of the files that `metric` needs; `AssetError` naming every one that is missing or cut short."""
    return found_files(f"metric {metric!r} on the full tier", names)


def found_files(who: str, names: Sequence[str]) -> list[Path]:
    """The local paths of files of the full tier; `AssetError` that begins with `who`, as `required`."""
    found, lacking = [], []
    for name in names:
        try:
            found.append(asset_file(name))
            _check_whole(find_asset(name))
        except AssetError as error:
            lacking.append(str(error))
    if lacking:
        raise AssetError(f"{who}: {'; '.join(lacking)}")
    return found


def _check_whole(asset: Asset) -> None:
    """Raise `AssetError` for a weight file that its own format shows to be damaged, in a second and without a network."""
    path = asset.path
    try:
        if path.suffix == ".safetensors":
            safetensors_shapes(path)
        elif path.suffix in (".pt", ".pth") and not zipfile.is_zipfile(path):
            _read_old_file(path)
    except (AssetError, ValueError) as error:
        reason = str(error).removeprefix(f"{path}: ").partition("; ")[0]
        raise AssetError(f"{path} is damaged ({reason}): delete it and get it again: {asset.how}") from None


def _read_old_file(path: Path) -> None:
    """Raise `ValueError` unless the file is whole in the format of torch before 1.6: pickles, then the numbers.

    Nothing in such a file says how long it is, so it is read; of the evaluators only pytorch-fid's Inception (91 MB) is one.
    """
    import torch

    size = path.stat().st_size
    with open_plain(path) as file:
        if file.read(1) != b"\x80":  # how a pickle begins
            raise ValueError(f"{size} bytes, not a torch file, or cut short")
    try:
        torch.load(plain(path), map_location="cpu", weights_only=True)
    except DAMAGED as error:
        raise ValueError(f"{size} bytes, {str(error).partition(chr(10))[0] or 'cut short'}") from None
