"""Images by the micro world's own renderer: no model, and a known truth."""

from pathlib import Path
from typing import TYPE_CHECKING

from sana_bench.core.errors import SampleError, SuiteError
from sana_bench.generators.base import Request, refuse_sana_settings
from sana_bench.micro.rendered import draw
from sana_bench.micro.world import IMAGE_SIZE
from sana_bench.suites.cells import NO_WEIGHTS, GeneratorSpec
from sana_bench.suites.schema import Variant

if TYPE_CHECKING:
    import numpy as np

__all__ = ["RenderedGenerator", "find_nothing"]


class RenderedGenerator:
    """Draws what each prompt of the micro world asks for, in half of the images with one mistake; see `micro.rendered.draw`.

    What evaluators say of such images can be held against what they show. An image whose prompt is of another world is a failed
    sample.
    """

    def __init__(self, spec: GeneratorSpec, device: str = "cpu") -> None:
        """`device` is not used. Raises `SuiteError` for another size or tier than the micro world's."""
        variant = spec.variant
        if variant.model.size != (IMAGE_SIZE, IMAGE_SIZE):
            raise SuiteError(
                f"variant {variant.name!r}: generator rendered draws {IMAGE_SIZE}x{IMAGE_SIZE} pixels"
            )

    def generate(self, requests: list[Request]) -> "np.ndarray":
        """Return uint8 images (n, 64, 64, 3)."""
        import numpy as np

        return np.stack([_image(request) for request in requests])


def find_nothing(variant: Variant, relative_to: Path) -> None:
    """There are no weights to find; raises `SuiteError` for settings that drawing has no use for."""
    refuse_sana_settings(variant)
    if variant.sampler is not None or variant.model.instruction != "none":
        raise SuiteError(f"variant {variant.name!r}: generator rendered takes no sampler or instruction")
    if variant.tier != "micro" or variant.model.weights != NO_WEIGHTS:
        raise SuiteError(
            f"variant {variant.name!r}: generator rendered is of tier micro, with weights: {NO_WEIGHTS}"
        )


def _image(request: Request) -> "np.ndarray":
    try:
        return draw(request.prompt, request.noise_seed).image
    except ValueError as error:
        raise SampleError(f"the renderer: {error}") from None
