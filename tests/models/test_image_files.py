"""Every mode of an image file is read right or refused by name; see docs/images.md."""

import io
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from sana_bench.core.images import ImageError, load_image
from sana_models.image_files import ModeError, as_rgb, upright_size
from sana_models.training.latents import load_image as load_for_training

LEVELS = np.arange(256, dtype=np.uint8).reshape(16, 16)


def pixels(width: int, dtype: type = np.uint8) -> st.SearchStrategy[np.ndarray]:
    return arrays.arrays(dtype, (3, 4, width) if width else (3, 4))


def read(image: Image.Image, suffix: str = "PNG", **options: object) -> np.ndarray:
    """The pixels of an image that was stored in a file format."""
    file = io.BytesIO()
    image.save(file, suffix, **options)
    return read_bytes(file.getvalue())


def read_bytes(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as opened:
        return np.asarray(as_rgb(opened))


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=-1)


def on_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The nearest levels to colour * alpha + white * (1 - alpha), in exact arithmetic."""
    exact = [
        Fraction(int(c) * int(a) + 255 * (255 - int(a)), 255) + Fraction(1, 2)
        for c, a in zip(colour.ravel(), np.broadcast_to(alpha, colour.shape).ravel(), strict=True)
    ]
    return np.array([int(value) for value in exact], dtype=np.uint8).reshape(colour.shape)


@given(pixels(3))
@settings(max_examples=20, deadline=None)
def test_rgb_is_as_stored(values: np.ndarray) -> None:
    for suffix in ("PNG", "TIFF", "BMP"):
        assert np.array_equal(read(Image.fromarray(values), suffix), values)


@pytest.mark.parametrize("suffix", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_its_8_bit_twin(suffix: str) -> None:
    assert np.array_equal(read(Image.fromarray(LEVELS), suffix), grey(LEVELS))
    assert np.array_equal(read(Image.fromarray(LEVELS.astype(np.uint16) * 257), suffix), grey(LEVELS))


@given(pixels(0, np.uint16))
@settings(max_examples=30, deadline=None)
def test_sixteen_bit_grey_is_the_nearest_level(values: np.ndarray) -> None:
    nearest = np.rint(values / 257).astype(np.uint8)  # never a tie: 257 is odd
    for stored in (values, values.astype(np.int32)):
        assert np.array_equal(read(Image.fromarray(stored), "TIFF"), grey(nearest))
    content = b"P5 4 3 65535\n" + values.astype(">u2").tobytes()
    assert np.array_equal(read_bytes(content), grey(nearest))


def test_a_transparent_level_of_16_bits_is_white_and_its_neighbour_is_not() -> None:
    values = np.array([[1000, 1001]], np.uint16)
    assert read(Image.fromarray(values), transparency=1000)[0].tolist() == [[255] * 3, [4] * 3]


@given(pixels(4))
@settings(max_examples=20, deadline=None)
def test_transparency_lies_on_white(values: np.ndarray) -> None:
    expected = on_white(values[..., :3], values[..., 3:])
    assert np.array_equal(read(Image.fromarray(values)), expected)
    opaque = values.copy()
    opaque[..., 3] = 255
    assert np.array_equal(read(Image.fromarray(opaque)), values[..., :3])
    level, alpha = values[..., :1], values[..., 1:2]
    found = read(Image.fromarray(np.concatenate([level, alpha], axis=-1), "LA"))
    assert np.array_equal(found, np.repeat(on_white(level, alpha), 3, axis=-1))


def test_transparent_colours_and_palette_entries_lie_on_white() -> None:
    colours = Image.new("RGB", (2, 1), (9, 8, 7))
    colours.putpixel((1, 0), (9, 8, 6))
    assert read(colours, transparency=(9, 8, 7))[0].tolist() == [[255, 255, 255], [9, 8, 6]]
    level = Image.fromarray(np.array([[3, 4]], np.uint8))
    assert read(level, transparency=3)[0].tolist() == [[255] * 3, [4] * 3]
    bits = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    assert read(bits)[0].tolist() == [[0] * 3, [255] * 3]
    assert read(bits, transparency=0)[0].tolist() == [[255] * 3, [255] * 3]
    palette = Image.new("P", (3, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    for place in range(3):
        palette.putpixel((place, 0), place)
    assert read(palette)[0].tolist() == [[10, 20, 30], [40, 50, 60], [70, 80, 90]]
    assert read(palette, transparency=1)[0].tolist() == [[10, 20, 30], [255, 255, 255], [70, 80, 90]]
    half = read(palette, transparency=bytes([255, 0, 128]))[0]
    expected = on_white(np.array([[70, 80, 90]]), np.array([[128]]))[0].tolist()
    assert half.tolist() == [[10, 20, 30], [255, 255, 255], expected]


def test_ink_is_subtracted_from_white() -> None:
    inks = {(0, 0, 0, 0): (255, 255, 255), (255, 0, 0, 0): (0, 255, 255), (0, 0, 0, 255): (0, 0, 0)}
    for ink, colour in inks.items():
        image = Image.new("CMYK", (8, 8), ink)
        assert read(image, "TIFF")[0, 0].tolist() == list(colour)
        # JPEG loses a level of 255 at most.
        assert np.abs(read(image, "JPEG", quality=100).astype(int) - colour).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_cameras_is_applied(orientation: int) -> None:
    stored = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 10
    upright = {
        1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1],
        5: stored.transpose(1, 0, 2), 6: np.rot90(stored, -1), 7: np.rot90(stored, 2).transpose(1, 0, 2),
        8: np.rot90(stored),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(stored).save(file, "PNG", exif=exif)
    assert np.array_equal(read_bytes(file.getvalue()), upright)
    with Image.open(file) as opened:
        assert upright_size(opened) == upright.shape[:2]
    wide = stored[..., 0].astype(np.uint16) * 257
    assert np.array_equal(read(Image.fromarray(wide), "TIFF", exif=exif), grey(upright[..., 0]))


@pytest.mark.parametrize("suffix", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_of_an_animation_counts(suffix: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if suffix == "WEBP" else {}
    found = read(frames[0], suffix, save_all=True, append_images=frames[1:], **options)
    assert found[0, 0].tolist() == [255, 0, 0]


def tiff(bits: int, photometric: int, content: bytes, sample_format: int = 1) -> bytes:
    """A TIFF of two grey pixels, beside the kinds that Pillow writes."""
    tags = [(256, 2), (257, 1), (258, bits), (259, 1), (262, photometric), (273, 134), (277, 1), (278, 1)]
    tags += [(279, len(content)), (339, sample_format)]
    entries = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tiff(32, 1, np.array([0, 1], "<f4").tobytes(), 3), "mode F is not read"),
        (tiff(12, 1, b"\x00\x0f\xff"), "mode I;16 with 12 bits is not read"),
        (tiff(16, 0, np.array([0, 65535], "<u2").tobytes()), "mode I;16 with zero for white is not read"),
        (tiff(16, 1, np.array([0, -1], "<i2").tobytes(), 2), "mode I with values beyond 16 bits is not read"),
        (tiff(32, 1, np.array([0, 65536], "<u4").tobytes()), "mode I with values beyond 16 bits is not read"),
    ],
)
def test_what_cannot_be_read_truthfully_is_refused_by_name(
    tmp_path: Path, content: bytes, message: str
) -> None:
    with pytest.raises(ModeError, match=message):
        read_bytes(content)
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    with pytest.raises(ImageError) as refused:
        load_image(path)
    assert str(refused.value).startswith(f"{path}: {message}")
    with pytest.raises(ValueError, match=message):
        load_for_training(content, 2, 2)


def test_lab_is_refused_by_name() -> None:
    with pytest.raises(ModeError, match="mode LAB is not read"):
        read(Image.new("LAB", (2, 2)), "TIFF")


def test_a_transparent_colour_of_16_bits_is_refused_by_name() -> None:
    import zlib

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(b"\0" + struct.pack(">HHH", 1, 2, 3)))
    for key, refused in ((b"", False), (chunk(b"tRNS", struct.pack(">HHH", 0, 0, 0)), True)):
        content = b"\x89PNG\r\n\x1a\n" + head + key + data + chunk(b"IEND", b"")
        if refused:
            with pytest.raises(ModeError, match="mode RGB of 16 bits with a transparent colour"):
                read_bytes(content)
        else:
            assert read_bytes(content).tolist() == [[[0, 0, 0]]]


def test_both_readers_give_the_same_pixels(tmp_path: Path) -> None:
    image = Image.fromarray(LEVELS.astype(np.uint16) * 257)
    image.save(tmp_path / "a.png")
    for_training = load_for_training((tmp_path / "a.png").read_bytes(), 16, 16)
    levels = (for_training.permute(1, 2, 0).numpy() + 1) * 127.5
    # x / 127.5 - 1 is kept in float32, whose step near 2 is 2.4e-7: 3e-5 of a level.
    assert np.abs(levels - load_image(tmp_path / "a.png")).max() < 1e-4
