"""GenEval's detector as a whole: Mask2Former for objects, CLIP for their colours, batched over both."""

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sana_bench.core.fingerprint import directory_sha256, file_sha256
from sana_bench.core.preprocess import prefetch
from sana_bench.metrics.geneval.classes import CLASSES

# The networks are imported where they run: the micro tier has none.
if TYPE_CHECKING:
    from transformers import Mask2FormerForUniversalSegmentation

    from sana_bench.metrics.geneval.colors import ColorClassifier
    from sana_bench.metrics.geneval.mask2former_images import Found, Prepared

__all__ = ["FullDetector"]


class Detector(Protocol):
    """Finds objects and their colours in one image."""

    def identity(self) -> dict[str, Any]:
        """What decides the detections: backend, version, weight hashes. JSON-able."""
        ...

    def detect(self, image: NDArray[np.uint8]) -> list[dict[str, Any]]:
        """All detections in an RGB image (height, width, 3), unfiltered.

        Each has `label` (class name), `score` in [0, 1], `box` [x1, y1, x2, y2] in pixels with exclusive
        ends, and `color` (a name of GenEval's palette, or None).
        """
        ...


@runtime_checkable
class BatchDetector(Detector, Protocol):
    """A detector that is faster over many images, and names colours only where they are asked for."""

    def detect_many(
        self, images: Sequence[NDArray[np.uint8]], colored: Sequence[frozenset[str]]
    ) -> list[list[dict[str, Any]]]:
        """Detections of each image; an object has a `color` where its class is in that image's `colored`."""
        ...


class MicroDetector:
    """The micro world's detector: exact on rendered scenes, without learnt weights."""

    def identity(self) -> dict[str, Any]:
        return {"backend": "micro", "version": 1}

    def detect(self, image: NDArray[np.uint8]) -> list[dict[str, Any]]:
        from sana_bench.micro.detector import detect

        return [plain_detection(detection) for detection in detect(image)]


def plain_detection(detection: dict[str, Any]) -> dict[str, Any]:
    """The detection in built-in types only, as JSON stores it."""
    color = detection.get("color")
    return {
        "label": str(detection["label"]),
        "score": float(detection["score"]),
        "box": [float(edge) for edge in detection["box"]],
        "color": None if color is None else str(color),
    }


Image = NDArray[np.uint8]

_THREADS = 2


class FullDetector:
    """Detections with scores of at least `MIN_SCORE`; colours only where the prompt asks for one.

    `weights` is an mmdet checkpoint or a folder in the hub's layout. Weights are loaded on first use. The network computes
    in fp32; TF32 follows torch's defaults, as in the reference.
    """

    def __init__(
        self, weights: Path, colors: "ColorClassifier", device: str = "cpu", batch_size: int | None = None
    ) -> None:
        self._weights, self._colors, self._device = weights, colors, device
        self._batch_size = batch_size or (8 if device.startswith("cuda") else 1)

    @cached_property
    def _sha256(self) -> str:
        if self._weights.is_dir():
            return directory_sha256(self._weights)
        return file_sha256(self._weights)

    def identity(self) -> dict[str, Any]:
        """What decides the detections and the colours."""
        from sana_bench.metrics.geneval.mask2former_images import MIN_SCORE

        return {
            "backend": "mask2former-hub" if self._weights.is_dir() else "mask2former-mmdet",
            "version": 1,
            "weights_sha256": self._sha256,
            "min_score": MIN_SCORE,
            "colors": self._colors.identity(),
        }

    def detect(self, image: Image) -> list[dict[str, Any]]:
        """All detections of one RGB image, every one with a colour; see `sana_bench.metrics.geneval.detector`."""
        return self.detect_many([image], [frozenset(CLASSES)])[0]

    def detect_many(
        self, images: Sequence[Image], colored: Sequence[frozenset[str]]
    ) -> list[list[dict[str, Any]]]:
        """Detections of each image; objects of the classes in `colored` have a colour, others None.

        Images of one input size pass the network together, `batch_size` at a time.
        """
        from sana_bench.metrics.geneval.colors import crop_object
        from sana_bench.metrics.geneval.mask2former_images import prepare

        found: list[list[Found]] = [[] for _ in images]
        groups = _by_size(images, self._batch_size)
        # While the network looks at one group, threads prepare those after it.
        prepared = prefetch(prepare, [images[place] for group in groups for place in group], _THREADS)
        for group in groups:
            for place, one in zip(group, self._run(list(islice(prepared, len(group)))), strict=True):
                found[place] = one
        crops = [
            crop_object(image, one.mask, one.box, CLASSES[one.label])
            for image, ones, names in zip(images, found, colored, strict=True)
            for one in ones
            if CLASSES[one.label] in names
        ]
        colors = iter(self._colors.classify(crops))
        return [
            [_plain(one, next(colors) if CLASSES[one.label] in names else None) for one in ones]
            for ones, names in zip(found, colored, strict=True)
        ]

    @cached_property
    def _network(self) -> "Mask2FormerForUniversalSegmentation":
        from sana_bench.metrics.geneval.mask2former import load_hub, load_mmdet

        load: Callable[[Path], Any] = load_hub if self._weights.is_dir() else load_mmdet
        return load(self._weights).to(self._device)

    def _run(self, batch: "Sequence[Prepared]") -> "list[list[Found]]":
        import torch

        from sana_bench.metrics.geneval.mask2former_images import read_logits

        pixels = torch.stack([one.pixels for one in batch]).to(self._device)
        with torch.inference_mode():
            output = self._network(pixel_values=pixels)
            logits = zip(output.class_queries_logits, output.masks_queries_logits, batch, strict=True)
            return [read_logits(classes, masks, one) for classes, masks, one in logits]


def _by_size(images: Sequence[Image], batch_size: int) -> list[list[int]]:
    from sana_bench.metrics.geneval.mask2former_images import input_sizes

    groups: dict[tuple[int, int], list[int]] = {}
    for place, image in enumerate(images):
        groups.setdefault(input_sizes(*image.shape[:2])[1], []).append(place)
    return [
        places[start : start + batch_size]
        for places in groups.values()
        for start in range(0, len(places), batch_size)
    ]


def _plain(one: "Found", color: str | None) -> dict[str, Any]:
    return {"label": CLASSES[one.label], "score": one.score, "box": list(one.box), "color": color}
