"""MJHQ-30K as published (playgroundai/MJHQ-30K): `meta_data.json` and `<category>/<id>.jpg`."""

from dataclasses import dataclass
from pathlib import Path

from sana_bench.core.errors import AssetError
from sana_bench.core.text import read_text
from sana_models.files import first_line, parse_json

__all__ = ["Mjhq30k", "MjhqImage", "images_are_there"]

# Where the archive's folders end up, depending on how it was unpacked and by whose tools.
_IMAGE_FOLDERS = ("mjhq30k_imgs", "imgs", ".")
_SOURCE = "from huggingface.co/datasets/playgroundai/MJHQ-30K"


@dataclass(frozen=True)
class MjhqImage:
    """One entry of the data set, in the order of the file."""

    id: str
    category: str
    prompt: str
    path: Path


class Mjhq30k:
    """The data set under one folder."""

    def __init__(self, meta_data: Path) -> None:
        """Read `meta_data.json`; raises `AssetError` for a missing, damaged or oddly shaped file."""
        self.meta_data = meta_data
        try:
            entries = parse_json(read_text(meta_data), object_pairs_hook=_unique)
        except FileNotFoundError:
            raise AssetError(
                f"{meta_data} is missing, the prompts of MJHQ-30K: `sana-bench fetch mjhq30k` downloads it {_SOURCE}"
            ) from None
        except (OSError, ValueError) as error:
            raise AssetError(f"{meta_data}: cannot be read: {first_line(error)}") from None
        if not isinstance(entries, dict) or not entries:
            raise AssetError(f"{meta_data}: expected an object of id -> category and prompt")
        folder = self._image_folder(entries)
        self.images = tuple(_image(meta_data, folder, key, entry) for key, entry in entries.items())

    def require_images(self) -> None:
        """Raise `AssetError` naming the first missing images."""
        missing = [image.path for image in self.images if not image.path.is_file()]
        if missing:
            raise AssetError(
                f"{len(missing)} of {len(self.images)} MJHQ-30K images are missing, first {missing[0]}: "
                f"`sana-bench fetch mjhq30k` downloads mjhq30k_imgs.zip {_SOURCE} and unpacks it beside {self.meta_data.name}"
            )

    def _image_folder(self, entries: dict[str, object]) -> Path:
        categories = {str(entry.get("category")) for entry in entries.values() if isinstance(entry, dict)}
        root = self.meta_data.parent
        for name in _IMAGE_FOLDERS:
            if any((root / name / category).is_dir() for category in categories if _is_name(category)):
                return root / name
        return root / _IMAGE_FOLDERS[0]


def images_are_there(meta_data: Path) -> bool:
    """Whether `meta_data.json` can be read and every image that it names is beside it."""
    try:
        Mjhq30k(meta_data).require_images()
    except AssetError:
        return False
    return True


def _image(meta_data: Path, folder: Path, key: str, entry: object) -> MjhqImage:
    category = entry.get("category") if isinstance(entry, dict) else None
    prompt = entry.get("prompt") if isinstance(entry, dict) else None
    if not isinstance(category, str) or not isinstance(prompt, str):
        raise AssetError(f"{meta_data}: {key!r} has no category and prompt")
    # Both become parts of a path.
    if not _is_name(key) or not _is_name(category):
        raise AssetError(f"{meta_data}: {key!r} in {category!r} cannot be a file name")
    return MjhqImage(key, category, prompt, folder / category / f"{key}.jpg")


def _is_name(text: str) -> bool:
    return bool(text) and not text.startswith(".") and not any(part in text for part in ("/", "\\", "\0"))


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice")
    return found
