"""Reference features and moments of MJHQ-30K: computed once, stored with what they are of, refused otherwise."""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sana_bench.assets.mjhq30k import Mjhq30k
from sana_bench.core import atomic
from sana_bench.core.arrays import ArraysError, read_arrays
from sana_bench.core.errors import AssetError
from sana_bench.core.fingerprint import FileKey, HashCache, canonical_json, file_sha256, fingerprint, short
from sana_bench.core.progress import Progress
from sana_bench.core.samples import OVERALL
from sana_bench.metrics.fid.features import InceptionFeatures
from sana_bench.metrics.fid.frechet import FrechetTo, Moments, merge_moments, moments_of_blocks

__all__ = ["InceptionReference", "Statistics", "read_statistics", "statistics_path"]

Statistics = tuple[NDArray[np.float32], NDArray[np.str_], Moments]

_FORMAT = "inception-reference@1"
_ADVICE = "move it away to have it computed again"


class InceptionReference:
    """Features of the reference images by category, and the moments of any of them.

    The file `inception-<chain>-<key>.npz` holds features, moments and a description: chain, parameters, weights, n, the
    hash of `meta_data.json`, the names and sizes of the images, the hash of their bytes, and one of the numbers. A
    file that differs in any of them is refused, never used and never overwritten. With `hashes`, only images that are
    not in there as they are now are read for their hash.
    """

    def __init__(
        self, features: InceptionFeatures, meta_data: Path, cache_dir: Path, hashes: HashCache | None = None
    ) -> None:
        self._features = features
        self._meta_data = meta_data
        self._cache_dir = cache_dir
        self._hashes = hashes

    def check(self) -> None:
        """Raise `AssetError` where the data set or statistics that were stored before cannot be used.

        Reads little of the file: a run calls this before it makes images.
        """
        expected = self._expected()
        if self.path.exists():
            _check_content(self.path, _read(self.path, ("content",))["content"], expected)

    @cached_property
    def items(self) -> list[tuple[Path, str]]:
        """The reference images in order, each with its category."""
        return [(image.path, image.category) for image in self._data.images]

    @cached_property
    def _data(self) -> Mjhq30k:
        data = Mjhq30k(self._meta_data)
        data.require_images()
        for name, count in Counter(image.category for image in data.images).items():
            if count < 2:
                raise AssetError(
                    f"{self._meta_data}: category {name!r} has {count} image, a distance to it needs at least 2"
                )
        return data

    @property
    def n(self) -> int:
        """Number of reference images."""
        return len(self.items)

    def label(self, category: str = OVERALL) -> str:
        """How notes call the reference, or a category of it."""
        return f"{len(self.features(category))} images"

    @cached_property
    def _listing_sha256(self) -> str:
        return fingerprint(
            [[image.id, image.category, image.path.stat().st_size] for image in self._data.images]
        )

    @cached_property
    def _images_sha256(self) -> str:
        paths = [image.path for image in self._data.images]
        known = {path: None if self._hashes is None else self._hashes.get(FileKey.of(path)) for path in paths}
        unknown = [path for path, found in known.items() if found is None]
        if unknown:
            with Progress("hashing the reference of FID", len(unknown), "images") as progress:
                for path in unknown:
                    known[path] = file_sha256(path, self._hashes)
                    progress.advance(1)
        return hashlib.sha256(b"".join(bytes.fromhex(str(known[path])) for path in paths)).hexdigest()

    @cached_property
    def categories(self) -> frozenset[str]:
        return frozenset(image.category for image in self._data.images)

    def identity(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "data": "mjhq30k",
            "n": self.n,
            "meta_data_sha256": file_sha256(self._meta_data),
            "images": self._listing_sha256,
            "images_sha256": self._images_sha256,
        }

    @property
    def path(self) -> Path:
        """The file of this chain and these weights."""
        return statistics_path(self._cache_dir, self._features.identity())

    def features(self, category: str = OVERALL) -> NDArray[np.float32]:
        """Features (n, 2048) of all reference images, or of one category."""
        rows, categories, _ = self._stored
        return rows if category == OVERALL else rows[categories == category]

    def distance_to(self, category: str = OVERALL) -> FrechetTo:
        """Distances to all reference images, or to those of one category."""
        if category == OVERALL:
            return self._distance_to_all
        return FrechetTo(moments_of_blocks(self.features(category)))

    @cached_property
    def _distance_to_all(self) -> FrechetTo:
        return FrechetTo(self._stored[2])

    @cached_property
    def _stored(self) -> Statistics:
        if not self.path.exists():
            self._compute()
        return read_statistics(self.path, self._expected())

    def _expected(self) -> dict[str, Any]:
        return {**self.identity(), **self._features.identity()}

    def _compute(self) -> None:
        parts, moments = [], []
        for part in self._features.stream([path for path, _ in self.items]):
            parts.append(part)
            moments.append(Moments.of(part))
            moments = [merge_moments(moments)]
        rows = np.concatenate(parts)
        total = moments[0]
        categories = np.array([category for _, category in self.items])
        content = {
            **self._expected(),
            "numbers_sha256": _numbers(rows, categories, total),
        }
        buffer = io.BytesIO()
        np.savez(
            buffer, content=np.array(canonical_json(content)), features=rows, categories=categories,
            mean=total.mean, scatter=total.scatter,
        )  # fmt: skip
        atomic.write_bytes(self.path, buffer.getvalue())


def statistics_path(
    cache_dir: Path, chain: Mapping[str, Any], reference: Mapping[str, Any] | None = None
) -> Path:
    """The file of a chain and its weights, as `InceptionFeatures.identity` names them.

    `reference` is the identity of the reference, which is in the name where it is a folder of one's own.
    """
    slug = str(chain["chain"]).replace("@", "-")
    own = reference is not None and reference.get("data") == "folder"
    identity = {**chain, "reference": dict(reference or {})} if own else dict(chain)
    return cache_dir / f"inception-{slug}-{short(fingerprint(identity))}.npz"


def read_statistics(path: Path, expected: Mapping[str, Any]) -> Statistics:
    """Features, categories and moments of the reference that `expected` describes.

    Raises:
        AssetError: the file is damaged, of something else, or its numbers were changed.
    """
    found = _read(path, ("content", "features", "categories", "mean", "scatter"))
    rows, categories = found["features"], found["categories"]
    total = Moments(len(rows), found["mean"], found["scatter"])
    content = _check_content(path, found["content"], expected)
    if content.get("numbers_sha256") != _numbers(rows, categories, total) or len(rows) != expected["n"]:
        raise AssetError(f"{path}: reference statistics whose numbers were changed; {_ADVICE}")
    return rows, categories, total


def _read(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    try:
        return read_arrays(path, names)
    except (OSError, ArraysError):
        raise AssetError(f"{path}: damaged reference statistics; {_ADVICE}") from None


def _check_content(path: Path, stored: NDArray[Any], expected: Mapping[str, Any]) -> dict[str, Any]:
    """The description in the file; raises `AssetError` unless it is of what is expected."""
    try:
        content = dict(json.loads(str(stored)))
    except (ValueError, TypeError):
        raise AssetError(f"{path}: damaged reference statistics; {_ADVICE}") from None
    other = [name for name, value in expected.items() if content.get(name) != value]
    if other:
        raise AssetError(f"{path}: reference statistics of a different {', '.join(other)}; {_ADVICE}")
    return content


def _numbers(rows: NDArray[np.float32], categories: NDArray[np.str_], total: Moments) -> str:
    digest = hashlib.sha256()
    for array in (rows, total.mean, total.scatter):
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(canonical_json(categories.tolist()).encode())
    return digest.hexdigest()
