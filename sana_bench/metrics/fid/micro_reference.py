"""Reference statistics of the micro tier: how perfect images of the prompts look to a network."""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sana_bench.core import atomic
from sana_bench.core.arrays import read_arrays
from sana_bench.core.errors import AssetError
from sana_bench.core.fingerprint import canonical_json, fingerprint, short
from sana_bench.metrics.clip.micro_features import ClipFeatures
from sana_bench.metrics.fid.frechet import Moments, merge_moments

_N_SCENES = 2048
_SEED = 20_240
_BLOCK = 256
_PROTOCOL = "fid-reference/clip-micro@1"


class Reference:
    """Moments of 2,048 rendered scenes, dealt evenly over the evaluation prompts, kept in a checked cache
    file.

    A cache file of another protocol, count, scenes or network, or with changed numbers, is refused and never overwritten.
    One that cannot be read at all is made again: rendering takes seconds and nobody else's work is in it.
    """

    n = _N_SCENES

    def __init__(self, features: ClipFeatures, cache_dir: Path) -> None:
        self._features = features
        self._cache_dir = cache_dir

    @cached_property
    def _scenes_sha256(self) -> str:
        """Hash of the first scene of every prompt: changes with prompts, placement and renderer."""
        digest = hashlib.sha256()
        for images in render_reference(len(_prompts())):
            digest.update(images.tobytes())
        return digest.hexdigest()

    def identity(self) -> dict[str, Any]:
        return {"protocol": _PROTOCOL, "n": _N_SCENES, "seed": _SEED, "scenes_sha256": self._scenes_sha256}

    @property
    def path(self) -> Path:
        """The cache file of this reference and this network."""
        return self._cache_dir / f"frechet-{short(fingerprint(self._expected()))}.npz"

    def label(self) -> str:
        """How notes call the reference."""
        return f"{self.n} reference images"

    def moments(self) -> Moments:
        """Moments of the reference features, from the cache file when there is one; `AssetError` for that of another."""
        cached = stored_moments(self.path, self._expected())
        if cached is not None:
            return cached
        encode = self._features.network.encode_images
        moments = merge_moments(Moments.of(encode(images)) for images in render_reference(_N_SCENES))
        write_moments(self.path, self._expected(), moments)
        return moments

    def _expected(self) -> dict[str, Any]:
        return {**self.identity(), "network": self._features.identity()}


def write_moments(path: Path, identity: Mapping[str, Any], moments: Moments) -> None:
    """Store moments with what they are of, for `stored_moments`."""
    content = {**identity, "moments_sha256": _sha256(moments)}
    buffer = io.BytesIO()
    np.savez(buffer, content=np.array(canonical_json(content)), mean=moments.mean, scatter=moments.scatter)
    atomic.write_bytes(path, buffer.getvalue())


def stored_moments(path: Path, expected: Mapping[str, Any]) -> Moments | None:
    """The moments in a reference's cache file, None where there is no file that can be read.

    `expected` is the identity of the reference, with that of its network as `network`.

    Raises:
        AssetError: the file is of something else, or its numbers were changed.
    """
    try:
        found = read_arrays(path, ("content", "mean", "scatter"))
        content = dict(json.loads(str(found["content"])))
        moments = Moments(int(expected["n"]), found["mean"], found["scatter"])
    except (OSError, ValueError, TypeError):
        return None
    advice = "move it away to have it computed again"
    other = [name for name, value in expected.items() if content.get(name) != value]
    if other:
        raise AssetError(f"{path}: reference statistics of a different {', '.join(other)}; {advice}")
    if content.get("moments_sha256") != _sha256(moments):
        raise AssetError(f"{path}: reference statistics whose numbers were changed; {advice}")
    return moments


def render_reference(n: int) -> Iterator[NDArray[np.uint8]]:
    """The first `n` reference scenes in blocks, uint8 (m, 64, 64, 3); scene i is a function of i alone."""
    from sana_bench.micro.captions import scene_for
    from sana_bench.micro.renderer import render

    prompts = _prompts()
    for start in range(0, n, _BLOCK):
        yield np.stack(
            [
                render(scene_for(prompts[index % len(prompts)], np.random.default_rng([_SEED, index])))
                for index in range(start, min(start + _BLOCK, n))
            ]
        )


def _prompts() -> list[dict[str, Any]]:
    """The evaluation prompts with the tasks taking turns: any number of scenes is balanced over them."""
    from sana_bench.micro.evaluation_set import geneval_prompts

    by_task: dict[str, list[dict[str, Any]]] = {}
    for record in geneval_prompts():
        by_task.setdefault(record["tag"], []).append(record)
    longest = max(len(records) for records in by_task.values())
    return [records[turn] for turn in range(longest) for records in by_task.values() if turn < len(records)]


def _sha256(moments: Moments) -> str:
    digest = hashlib.sha256()
    for array in (moments.mean, moments.scatter):
        digest.update(np.ascontiguousarray(array, dtype=np.float64).tobytes())
    return digest.hexdigest()
