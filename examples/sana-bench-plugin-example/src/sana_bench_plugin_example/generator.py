"""A generator without weights: images of one colour."""

import numpy as np

from sana_bench import GeneratorSpec, Request, SampleError

COLOURS = {"black": (0, 0, 0), "grey": (128, 128, 128), "white": (255, 255, 255), "red": (255, 0, 0)}


class SolidColours:
    """Fills the image with the colour named last in the prompt; the noise seed decides the last bit of blue."""

    def __init__(self, spec: GeneratorSpec, device: str) -> None:
        self._height = spec.variant.model.height
        self._width = spec.variant.model.width

    def generate(self, requests: list[Request]) -> np.ndarray:
        """Return uint8 images of shape (len(requests), height, width, 3)."""
        return np.stack([self._image(request) for request in requests])

    def _image(self, request: Request) -> np.ndarray:
        name = request.prompt.split()[-1]
        if name not in COLOURS:
            raise SampleError(f"no colour is called {name!r}")
        image = np.empty((self._height, self._width, 3), dtype=np.uint8)
        image[:] = COLOURS[name]
        image[..., 2] ^= request.noise_seed & 1
        return image
