"""What images are held against instead of the published set: a folder of images, or stored statistics.

Statistics are a mean and a covariance (`mu`, `sigma`): an `.npz` as clean-fid and pytorch-fid write it, or a `.pt` of
torch-fidelity's cache. They do not say by which chain their features were made: that is for whoever names them to know.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sana_bench.assets.reference_set import reference_images, reference_sha256
from sana_bench.core.arrays import ArraysError, read_arrays
from sana_bench.core.errors import AssetError, SuiteError
from sana_bench.core.fingerprint import HashCache, file_sha256, fingerprint, short
from sana_bench.core.samples import OVERALL
from sana_bench.metrics.clip.micro_features import ClipFeatures
from sana_bench.metrics.fid.features import InceptionFeatures
from sana_bench.metrics.fid.frechet import FrechetTo, Moments, merge_moments
from sana_bench.metrics.fid.micro_reference import stored_moments, write_moments
from sana_bench.metrics.fid.reference import InceptionReference, statistics_path
from sana_models.files import first_line

__all__ = [
    "FolderMoments",
    "FolderReference",
    "StatisticsReference",
]

_BLOCK = 64
_KEYS = (("mu", "sigma"), ("mean", "cov"))


class FolderReference(InceptionReference):
    """Inception features of a folder of images, kept in the cache under the hash of their content."""

    def __init__(
        self, features: InceptionFeatures, folder: Path, cache_dir: Path, hashes: HashCache | None = None
    ) -> None:
        super().__init__(features, folder, cache_dir, hashes)
        self._folder = folder

    @cached_property
    def items(self) -> list[tuple[Path, str]]:
        return [(path, "") for path in reference_images(self._folder)]

    @cached_property
    def categories(self) -> frozenset[str]:
        """None: a folder has no categories."""
        return frozenset()

    def identity(self) -> dict[str, Any]:
        return {"data": "folder", "n": self.n, "images_sha256": self._content_sha256}

    @cached_property
    def _content_sha256(self) -> str:
        return reference_sha256(self._folder, self._hashes)

    @property
    def path(self) -> Path:
        """The file of these images, this chain and these weights."""
        return statistics_path(self._cache_dir, self._features.identity(), self.identity())


class _Identified(Protocol):
    def identity(self) -> Mapping[str, Any]: ...


class StatisticsReference:
    """The mean and covariance of a file, copied to the cache so that `compare` finds them later.

    The number of images behind them is not known: `n` stands for a covariance that is used as it is.
    """

    n = 2
    categories: frozenset[str] = frozenset()

    def __init__(self, features: _Identified, path: Path, n_features: int, cache_dir: Path) -> None:
        """Read the file; raises `AssetError` for one without a mean and a covariance of `n_features`."""
        self._features = features
        self._path = path
        self._cache_dir = cache_dir
        self._moments = _read_moments(path, n_features)

    def identity(self) -> dict[str, Any]:
        return {"data": "statistics", "n": self.n, "file_sha256": file_sha256(self._path)}

    def check(self) -> None:
        """Nothing more: the file was read."""

    def label(self, category: str = OVERALL) -> str:
        """How notes call the reference."""
        return f"the statistics of {self._path.name}"

    def moments(self) -> Moments:
        """The moments, stored in the cache."""
        return _cached(self._cache_dir, self.identity(), self._features.identity(), lambda: self._moments)

    def distance_to(self, category: str = OVERALL) -> FrechetTo:
        """Distances to the reference."""
        return FrechetTo(self.moments())

    def features(self, category: str = OVERALL) -> NDArray[np.float32]:
        """Raises `SuiteError`: statistics hold no features."""
        raise SuiteError(f"{self._path}: a mean and a covariance; kid needs a folder of reference images")


class FolderMoments:
    """Moments of the micro tier's CLIP features of a folder of images, kept in the cache."""

    def __init__(
        self, features: ClipFeatures, folder: Path, cache_dir: Path, hashes: HashCache | None = None
    ) -> None:
        self._features = features
        self._folder = folder
        self._cache_dir = cache_dir
        self._sha256 = reference_sha256(folder, hashes)
        self.n = len(reference_images(folder))

    def identity(self) -> dict[str, Any]:
        return {"data": "folder", "n": self.n, "images_sha256": self._sha256}

    def label(self) -> str:
        """How notes call the reference."""
        return f"{self.n} reference images"

    def moments(self) -> Moments:
        """Moments of the reference features."""
        return _cached(self._cache_dir, self.identity(), self._features.identity(), self._compute)

    def _compute(self) -> Moments:
        paths = reference_images(self._folder)
        blocks = (paths[start : start + _BLOCK] for start in range(0, len(paths), _BLOCK))
        return merge_moments(Moments.of(self._features.of_files(block)) for block in blocks)


def _cached(
    cache_dir: Path, reference: Mapping[str, Any], network: Mapping[str, Any], compute: Callable[[], Moments]
) -> Moments:
    """Moments from the file where `compare` looks for them, made where there is none."""
    expected = {**reference, "network": network}
    path = cache_dir / f"frechet-{short(fingerprint(expected))}.npz"
    found = stored_moments(path, expected)
    if found is None:
        found = compute()
        write_moments(path, expected, found)
    return found


def _of_torch_fidelity(path: Path) -> dict[str, Any]:
    """The mean and covariance of a file of `torch.save`, nothing in which is run; raises `ArraysError` where there are none."""
    from sana_models.single_files import read_archive
    from sana_models.weight_files import CheckpointError

    try:
        found = read_archive(path)
    except CheckpointError as error:
        raise ArraysError(str(error).removeprefix(f"{path}: ")) from None
    held = found if isinstance(found, dict) else {}
    names = next((names for names in _KEYS if set(names) <= set(held)), None)
    if not names:
        raise ArraysError(f"no {' and '.join(_KEYS[0])} (it has {', '.join(map(str, held)) or 'nothing'})")
    return {name: held[name] for name in names}


def _read_moments(path: Path, n_features: int) -> Moments:
    try:
        found = _of_torch_fidelity(path) if path.suffix.lower() == ".pt" else read_arrays(path, *_KEYS)
        mean, covariance = (np.asarray(one, np.float64) for one in found.values())
    except (OSError, TypeError, ValueError) as error:
        raise AssetError(f"reference {path}: {first_line(error)}") from None
    if mean.shape != (n_features,) or covariance.shape != (n_features, n_features):
        raise AssetError(
            f"reference {path}: mean {mean.shape} and covariance {covariance.shape}, "
            f"expected ({n_features},) and ({n_features}, {n_features})"
        )
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise AssetError(f"reference {path}: values that are not finite")
    # With two vectors the scatter is the covariance.
    return Moments(StatisticsReference.n, mean, covariance)
