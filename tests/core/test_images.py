"""Reading images: every kind of damage is an error that names the file."""

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from sana_bench.core.images import ImageError, load_image, png_bytes, source_format


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, size=(12, 10, 3), dtype=np.uint8)
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    return path, pixels


def test_pixels_come_back_unchanged(picture):
    path, pixels = picture
    loaded = load_image(path)
    assert loaded.dtype == np.uint8
    np.testing.assert_array_equal(loaded, pixels)


# A PNG ends with an empty chunk of 12 bytes; its length and checksum protect no pixels.
END_LENGTH, END_CHECKSUM = range(-12, -8), range(-4, 0)


def test_every_truncation_is_refused(picture):
    path, _ = picture
    content = path.read_bytes()
    for length in range(len(content) - len(END_CHECKSUM)):
        path.write_bytes(content[:length])
        with pytest.raises(ImageError):
            load_image(path)


def test_every_changed_byte_is_refused(picture):
    path, _ = picture
    content = path.read_bytes()
    for place in range(-len(content), 0):
        if place in END_LENGTH or place in END_CHECKSUM:
            continue
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        with pytest.raises(ImageError):
            load_image(path)


def test_other_modes_become_rgb(tmp_path):
    Image.new("RGBA", (4, 3), (10, 20, 30, 0)).save(tmp_path / "clear.png")
    np.testing.assert_array_equal(load_image(tmp_path / "clear.png")[0, 0], (255, 255, 255))
    Image.new("L", (4, 3), 7).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(load_image(tmp_path / "grey.png")[0, 0], (7, 7, 7))


def test_orientation_of_cameras_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise
    Image.new("RGB", (4, 2)).save(tmp_path / "turned.jpg", exif=exif)
    assert load_image(tmp_path / "turned.jpg").shape == (4, 2, 3)


def test_missing_and_foreign_files_say_so(tmp_path):
    with pytest.raises(ImageError, match=r"none\.png: no such image"):
        load_image(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(ImageError, match=r"text\.png: not an image"):
        load_image(tmp_path / "text.png")
    with pytest.raises(ImageError, match="directory"):
        load_image(tmp_path)


def test_a_stored_image_says_that_it_was_a_jpeg(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.jpg")
    Image.fromarray(picture).save(tmp_path / "a.png")
    (tmp_path / "marked.png").write_bytes(png_bytes(picture, "jpeg"))
    (tmp_path / "plain.png").write_bytes(png_bytes(picture))
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "cut.png").write_bytes(png_bytes(picture, "jpeg")[:30])
    names = ("a.jpg", "a.png", "marked.png", "plain.png", "text.png", "cut.png", "none.png")
    assert [source_format(tmp_path / name) for name in names] == [
        "jpeg",
        None,
        "jpeg",
        None,
        None,
        None,
        None,
    ]
    np.testing.assert_array_equal(load_image(tmp_path / "marked.png"), picture)
    # Hashes of stored images rest on these bytes.
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=3)
    assert (tmp_path / "plain.png").read_bytes() == buffer.getvalue()


def test_the_error_crosses_processes(tmp_path):
    error = pickle.loads(pickle.dumps(ImageError(tmp_path / "a.png", "broken")))
    assert (error.path, error.reason, error.exit_code) == (tmp_path / "a.png", "broken", 2)
