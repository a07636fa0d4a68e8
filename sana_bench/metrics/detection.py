"""Object detection as an interface: what judges of object-focused prompts need to know about an image."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


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
