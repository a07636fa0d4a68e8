"""Features by the image chain of each published distance between sets: Inception's, DINOv2's and CLIP's.

The chains differ in network, in how an image becomes a square and in the scale that the network is given; numbers of different
chains never compare. `fid/sana@1` is SANA's own: JPEG of quality 75, bilinear to a size, centre crop, then pytorch-fid.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sana_bench.core.fingerprint import canonical_json, file_sha256
from sana_bench.core.images import load_image
from sana_bench.core.preprocess import CLIP_MEAN, CLIP_STD, batches, crop_resized, load_preset, prefetch
from sana_bench.core.samples import Sample
from sana_bench.metrics.fid import FEATURES, INPUT_SIZE

if TYPE_CHECKING:
    from torch import nn

__all__ = ["CHAINS", "IMAGE_SIZES", "Chain", "InceptionFeatures", "feature_key"]

_BATCH = 16
_THREADS = 4
_CLEAN_BYTES = 128.0
# Channel statistics of ImageNet, which DINOv2 uses.
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# The smallest and largest `image_size` of fid/sana@1, in pixels.
IMAGE_SIZES = (1, 4096)

Pixels = NDArray[np.float32]


def feature_key(identity: Mapping[str, Any]) -> str:
    """Name of stored features from what `InceptionFeatures.identity` gives; it begins so whatever the network."""
    chain, parameters, weights = (identity[name] for name in ("chain", "parameters", "weights_sha256"))
    return f"inception/{chain}/{canonical_json(parameters)}/{weights}"


def _tensor_resize(image: NDArray[np.uint8], mode: str, antialias: bool) -> Pixels:
    """Resize to (3, 299, 299) in float32, grey levels kept on their scale of 255."""
    import torch
    from torch.nn import functional

    planes = torch.from_numpy(np.array(image.transpose(2, 0, 1), dtype=np.float32))[None]
    size = (INPUT_SIZE, INPUT_SIZE)
    return functional.interpolate(planes, size, mode=mode, align_corners=False, antialias=antialias)[
        0
    ].numpy()


def clean_pixels(image: NDArray[np.uint8]) -> Pixels:
    """clean-fid's: bicubic with antialiasing, each channel in float, clipped to [0, 255], not quantised."""
    return _tensor_resize(image, "bicubic", antialias=True).clip(0, 255)


def legacy_pixels(image: NDArray[np.uint8]) -> Pixels:
    """pytorch-fid's: bilinear between the four nearest pixels, whatever the reduction, [0, 255]."""
    return _tensor_resize(image, "bilinear", antialias=False)


def sana_pixels(image: NDArray[np.uint8], image_size: int) -> Pixels:
    """SANA's: shorter side to `image_size` (Pillow, bilinear, antialiased, quantised), centre crop, pytorch-fid."""
    return legacy_pixels(crop_resized(image, image_size, Image.Resampling.BILINEAR))


def _read_clean(path: Path, parameters: Mapping[str, Any]) -> Pixels:
    return (clean_pixels(load_image(path)) - np.float32(128)) / np.float32(_CLEAN_BYTES)


def _read_legacy(path: Path, parameters: Mapping[str, Any]) -> Pixels:
    return legacy_pixels(load_image(path)) / np.float32(127.5) - np.float32(1)


def _read_sana(path: Path, parameters: Mapping[str, Any]) -> Pixels:
    image = load_preset(path, "jpeg")
    return sana_pixels(image, int(parameters["image_size"])) / np.float32(127.5) - np.float32(1)


def dinov2_pixels(image: NDArray[np.uint8]) -> Pixels:
    """dgm-eval's: the whole image to 224x224 (Pillow, bicubic, quantised), ImageNet's mean and deviation."""
    return _scaled(Image.fromarray(image).resize((224, 224), Image.Resampling.BICUBIC), *_IMAGENET)


def cmmd_pixels(image: NDArray[np.uint8]) -> Pixels:
    """CMMD's: the centre square, corner rounded down, to 336x336 (Pillow, bicubic, quantised), CLIP's mean and deviation."""
    height, width = image.shape[:2]
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    square = Image.fromarray(image).crop((left, top, left + side, top + side))
    return _scaled(square.resize((336, 336), Image.Resampling.BICUBIC), CLIP_MEAN, CLIP_STD)


def _scaled(image: Image.Image, mean: Sequence[float], deviation: Sequence[float]) -> Pixels:
    planes = np.asarray(image, np.float32).transpose(2, 0, 1) / np.float32(255)
    means, deviations = (np.array(values, np.float32)[:, None, None] for values in (mean, deviation))
    return np.ascontiguousarray((planes - means) / deviations)


def _read_dinov2(path: Path, parameters: Mapping[str, Any]) -> Pixels:
    return dinov2_pixels(load_image(path))


def _read_cmmd(path: Path, parameters: Mapping[str, Any]) -> Pixels:
    return cmmd_pixels(load_image(path))


def _load_inception(weights: Path) -> "nn.Module":
    from sana_bench.metrics.fid.inception import load_inception

    return load_inception(weights)


def _load_dinov2(weights: Path) -> "nn.Module":
    from sana_bench.metrics.fid.image_towers import load_dinov2

    return load_dinov2(weights)


def _load_clip(weights: Path) -> "nn.Module":
    from sana_bench.metrics.fid.image_towers import load_clip_tower

    return load_clip_tower(weights)


@dataclass(frozen=True)
class Chain:
    """From a file to the network's input (3, side, side), which weight file the network has, and how it is loaded.

    `width` is the number of its features.
    """

    read: Callable[[Path, Mapping[str, Any]], Pixels]
    weights: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    load: Callable[[Path], "nn.Module"] = _load_inception
    side: int = INPUT_SIZE
    width: int = FEATURES


_DINOV2 = Chain(_read_dinov2, "dinov2_large", load=_load_dinov2, side=224, width=1024)
_OF_DINOV2 = ("fd_dinov2", "precision", "recall", "density", "coverage", "vendi")

CHAINS: Mapping[str, Chain] = {
    "fid/sana@1": Chain(_read_sana, "inception_pytorch", {"image_size": 512}),
    "fid/pytorch-fid@1": Chain(_read_legacy, "inception_pytorch"),
    "fid/clean@1": Chain(_read_clean, "inception_torchscript"),
    "kid/clean@1": Chain(_read_clean, "inception_torchscript"),
    **{f"{name}/dinov2@1": _DINOV2 for name in _OF_DINOV2},
    "cmmd/clip-336@1": Chain(_read_cmmd, "clip_vit_l_14_336", load=_load_clip, side=336, width=768),
}


class InceptionFeatures:
    """Features of a chain's network, of Inception 2,048. Weights are hashed at once and loaded on first use."""

    def __init__(
        self, protocol: str, weights: Path, parameters: Mapping[str, Any] | None = None, device: str = "cpu"
    ) -> None:
        self.chain = CHAINS[protocol]
        self.parameters = {**self.chain.parameters, **(parameters or {})}
        self.weights_sha256 = file_sha256(weights)
        # Distances that read images alike share features: `clean` is one chain for fid and kid.
        self._recipe = protocol.partition("/")[2]
        self._weights = weights
        self._device = device

    @property
    def key(self) -> str:
        """Name under which stored features may be reused."""
        return feature_key(self.identity())

    def identity(self) -> dict[str, Any]:
        return {"chain": self._recipe, "parameters": self.parameters, "weights_sha256": self.weights_sha256}

    @cached_property
    def network(self) -> "nn.Module":
        """The loaded network; raises `AssetError` for damaged weights."""
        return self.chain.load(self._weights).to(self._device)

    def of_samples(self, samples: Sequence[Sample]) -> Pixels:
        """Features (n, width); raises `ImageError` for a missing or damaged image."""
        parts = list(self.stream([sample.image_path for sample in samples]))
        return np.concatenate(parts) if parts else np.zeros((0, self.chain.width), np.float32)

    def stream(self, paths: Sequence[Path], n_threads: int = _THREADS) -> Iterator[Pixels]:
        """Features of the files in order, a batch at a time; images are decoded by threads just ahead."""
        pixels = prefetch(lambda path: self.chain.read(path, self.parameters), paths, n_threads)
        for batch in batches(pixels, _BATCH):
            yield self._encode(batch)

    def _encode(self, images: list[Pixels]) -> Pixels:
        """Features of one batch, padded to the fixed size: they do not depend on what else is in it."""
        import torch

        stacked = np.zeros((_BATCH, *images[0].shape), np.float32)
        stacked[: len(images)] = images
        with torch.inference_mode():
            features = self.network(torch.from_numpy(stacked).to(self._device))
        result: Pixels = features[: len(images)].float().cpu().numpy()
        return result
