"""Pixels of image files as 8-bit RGB: each mode by a rule, or refused by name. The table is in docs/images.md."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["MOST_PIXELS", "ModeError", "as_rgb", "upright_size"]

# Modes that Pillow converts exactly, or by the one rule there is.
_PLAIN = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LA", "PA", "RGBA")
_WIDE = ("I", "I;16", "I;16B", "I;16L", "I;16N")
#: A picture of more is taken for one that is made to fill the memory: where Pillow begins to warn.
MOST_PIXELS = (1 << 30) // 12
_ORIENTATION, _BITS, _PHOTOMETRIC = 0x0112, 258, 262


class ModeError(ValueError):
    """An image whose numbers cannot be read as 8-bit RGB without a guess; the message names its mode."""


def as_rgb(image: "Image.Image") -> "Image.Image":
    """Return an opened image (its first frame) upright, on white where it is transparent, in mode RGB.

    Raises:
        ModeError: a mode without a rule, or more than `MOST_PIXELS`.
        OSError, ValueError, SyntaxError: a damaged file.
    """
    from PIL import ImageOps

    _refuse(image)
    image.load()
    upright = ImageOps.exif_transpose(image)
    if image.mode in _WIDE:
        return _scaled(upright)
    if not upright.has_transparency_data:
        return upright.convert("RGB")
    return _on_white(upright.convert("RGBA"))


def upright_size(image: "Image.Image") -> tuple[int, int]:
    """Height and width in pixels that `as_rgb` gives, from what stands before the pixels."""
    # Pillow would decode a whole PNG to look for an orientation behind its pixels.
    is_told = image.format != "PNG" or "exif" in image.info
    turned = is_told and image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
    return (image.width, image.height) if turned else (image.height, image.width)


def _refuse(image: "Image.Image") -> None:
    if image.width * image.height > MOST_PIXELS:
        raise ModeError(
            f"{image.width}x{image.height} pixels are more than the {MOST_PIXELS:,} that are read"
        )
    mode, tags = image.mode, getattr(image, "tag_v2", {})
    if mode not in _PLAIN + _WIDE:
        raise ModeError(f"mode {mode} is not read (its white is not known); save it as 8-bit RGB")
    if mode in _WIDE and tags:
        bits = tags.get(_BITS, (16,))[0]
        if bits not in (16, 32):
            raise ModeError(f"mode {mode} with {bits} bits is not read; save it with 8 or 16 bits")
        if tags.get(_PHOTOMETRIC) == 0:
            raise ModeError(f"mode {mode} with zero for white is not read; save it as 8-bit RGB")
    # The key has 16 bits, of which the decoder has dropped eight of every pixel.
    if mode == "RGB" and "transparency" in image.info and ";16" in str(getattr(image, "tile", "")):
        raise ModeError("mode RGB of 16 bits with a transparent colour is not read; save it as 8-bit RGBA")


def _scaled(image: "Image.Image") -> "Image.Image":
    """16-bit grey to the nearest of 256 levels: 65535 is 255 * 257."""
    import numpy as np
    from PIL import Image

    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise ModeError(f"mode {image.mode} with values beyond 16 bits is not read; save it as 8-bit RGB")
    grey = ((values + 128) // 257).astype(np.uint8)
    if (key := image.info.get("transparency")) is not None:
        grey[values == key] = 255
    return Image.fromarray(grey).convert("RGB")


def _on_white(image: "Image.Image") -> "Image.Image":
    from PIL import Image

    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")
