"""The image sizes that the published models were trained at, and the way to any other size.

A request goes to the bucket of the nearest aspect ratio, and the image made there is scaled to cover the
request and cropped at the centre. Source: the public multi-aspect tables of PixArt and SANA at 1024 pixels;
those of 512, 2048 and 4096 pixels are the same, scaled.
"""

from torch import Tensor
from torch.nn import functional as F

__all__ = ["BASE_SIZES", "bucket_size", "buckets", "covering_size", "resize_and_crop", "training_bucket"]

#: Image side in pixels by the side of the latents that the configuration names (`sample_size`).
BASE_SIZES = {16: 512, 32: 1024, 64: 2048, 128: 4096}

# (height, width) at 1024 pixels; every table has these.
_COMMON = (
    (512, 2048), (512, 1856), (576, 1792), (576, 1728), (576, 1664), (640, 1600), (640, 1536), (704, 1472),
    (704, 1408), (704, 1344), (768, 1344), (768, 1280), (832, 1216), (832, 1152), (896, 1152), (896, 1088),
    (960, 1088), (960, 1024), (1024, 1024), (1024, 960), (1088, 960), (1088, 896), (1152, 896), (1152, 832),
    (1216, 832), (1280, 768), (1344, 768), (1408, 704), (1472, 704), (1536, 640), (1600, 640), (1728, 576),
    (2048, 512),
)  # fmt: skip
# Only the tables of 2048 and 4096 pixels have these.
_EXTRA = ((512, 1984), (512, 1920), (1664, 576), (1792, 576), (1856, 512), (1920, 512), (1984, 512))


def buckets(base: int) -> dict[float, tuple[int, int]]:
    """Return (height, width) in pixels by height/width, rounded to two decimals as published.

    Raises ValueError for a base without a table.
    """
    if base not in BASE_SIZES.values():
        raise ValueError(f"no aspect-ratio buckets at {base} pixels; known: {sorted(BASE_SIZES.values())}")
    rows = _COMMON + (_EXTRA if base >= 2048 else ())
    return {round(h / w, 2): (h * base // 1024, w * base // 1024) for h, w in sorted(rows, key=_ratio)}


def bucket_size(height: int, width: int, base: int) -> tuple[int, int]:
    """Return the (height, width) of the bucket whose aspect ratio is nearest to the request's."""
    table = buckets(base)
    return table[min(table, key=lambda ratio: abs(ratio - height / width))]


def training_bucket(height: int, width: int, base: int, *, unit: int) -> tuple[int, int]:
    """Return the (height, width) that an image is trained at: the published bucket of the nearest aspect ratio.

    For a base without a published table, that of 1024 pixels is scaled and rounded to multiples of `unit` pixels.
    """
    if base in BASE_SIZES.values():
        return bucket_size(height, width, base)
    scaled = [tuple(max(unit, round(side * base / 1024 / unit) * unit) for side in size) for size in _COMMON]
    # Rounding makes equals of small sizes; the order of the table then decides.
    best = min(scaled, key=lambda size: abs(size[0] / size[1] - height / width))
    return best[0], best[1]


def resize_and_crop(images: Tensor, height: int, width: int) -> Tensor:
    """Scale float images (B, C, H, W) bilinearly to cover height x width and crop the centre."""
    own_height, own_width = images.shape[-2:]
    if (own_height, own_width) == (height, width):
        return images
    covering = covering_size((own_height, own_width), (height, width))
    scaled = F.interpolate(images, size=covering, mode="bilinear", align_corners=False)
    top, left = (covering[0] - height) // 2, (covering[1] - width) // 2
    return scaled[:, :, top : top + height, left : left + width]


def covering_size(own: tuple[int, int], wanted: tuple[int, int]) -> tuple[int, int]:
    """Return the (height, width) that an image of `own` is scaled to so that it covers `wanted`, never smaller.

    Truncated as diffusers does, which alone would leave the side that decides the ratio a pixel short at some sizes.
    """
    ratio = max(wanted[0] / own[0], wanted[1] / own[1])
    return max(wanted[0], int(own[0] * ratio)), max(wanted[1], int(own[1] * ratio))


def _ratio(size: tuple[int, int]) -> float:
    return size[0] / size[1]
