"""A set of images, or statistics of one, that other images are held against: a folder or a file on this machine."""

from pathlib import Path

from sana_bench.core.errors import AssetError
from sana_bench.core.fingerprint import HashCache, file_sha256, fingerprint
from sana_bench.core.images import IMAGE_SUFFIXES
from sana_models.shared_parts import files_below

__all__ = ["images_below", "is_statistics", "reference_images", "reference_sha256"]


def is_statistics(path: Path) -> bool:
    """Whether a reference is stored statistics, and no folder."""
    return path.suffix.lower() in (".npz", ".pt")


def images_below(folder: Path) -> list[Path]:
    """The images below a folder by relative name, those in linked folders too, hidden ones left out."""
    return [
        path
        for name, path in files_below(folder).items()
        if path.suffix.lower() in IMAGE_SUFFIXES and not any(part.startswith(".") for part in name.split("/"))
    ]


def reference_images(folder: Path) -> list[Path]:
    """The images below a reference folder by path; raises `AssetError` for fewer than two, or no folder."""
    if not folder.is_dir():
        raise AssetError(f"reference {folder}: there is no such folder (or .npz, or .pt)")
    found = images_below(folder)
    if len(found) < 2:
        raise AssetError(f"reference {folder}: {len(found)} images, a distance needs at least 2")
    return found


def reference_sha256(path: Path, hashes: HashCache | None = None) -> str:
    """Hash of a reference's content, its names left out; raises `AssetError` where there is none."""
    if is_statistics(path):
        if not path.is_file():
            raise AssetError(f"reference {path}: there is no such file")
        return file_sha256(path, hashes)
    return fingerprint(sorted(file_sha256(image, hashes) for image in reference_images(path)))
