"""The renderer: exact coverage, boxes, and scenes whose objects stay in view, apart and visible."""

import numpy as np
import pytest

from sana_bench.micro.captions import sample_scene
from sana_bench.micro.renderer import coverage, object_box, render, shape_contains
from sana_bench.micro.world import COLORS, IMAGE_SIZE, SHAPES, Scene, SceneObject

RED = COLORS["red"]


def one(shape, cx=32.0, cy=32.0, radius=10.0, rgb=RED):
    return SceneObject(shape, "red", cx, cy, radius, rgb)


def test_the_palette_is_genevals_in_its_order():
    assert tuple(COLORS) == (
        *("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white"),
    )
    assert len(SHAPES) == len(set(SHAPES)) == 8


def test_a_square_on_whole_pixels_is_exact():
    # radius 10 times the square's 0.9 gives edges at 23 and 41, on pixel borders: no mixed pixel.
    image = render(Scene((one("square"),), (200, 190, 180)))
    expected = np.full((64, 64, 3), (200, 190, 180), dtype=np.uint8)
    expected[23:41, 23:41] = RED
    np.testing.assert_array_equal(image, expected)
    assert object_box(one("square")) == (23, 23, 41, 41)


def test_edge_pixels_mix_by_covered_area():
    # Edges at 23.5 and 41.5: half of pixel column 23 and of column 41 is covered.
    image = render(Scene((one("square", cx=32.5),), (200, 200, 200)))
    assert image[32, 23].tolist() == [208, 115, 118]  # halfway, halves rounded up
    assert image[32, 24].tolist() == list(RED)


@pytest.mark.parametrize(
    ("shape", "area"),
    [
        ("circle", np.pi),
        ("square", 1.8**2),
        ("triangle", 1.8 * 2.0 / 2),
        ("cross", 2 * 1.9 * 0.64 - 0.64**2),
        ("ring", np.pi * 0.75),
        ("diamond", 2 / 1.25),
        ("star", 10 * 0.5 * 0.46 * np.sin(np.pi / 5)),
    ],
)
def test_covered_area_is_the_shapes_area(shape, area):
    # 4x4 samples a pixel on a shape 28 pixels wide: edges are off by at most an eighth of a pixel, below 2 %.
    shares, _, _ = coverage(one(shape, radius=14.0))
    assert shares.sum() == pytest.approx(area * 14.0**2, rel=0.02)


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_fit_their_frame_and_mirror_left_to_right(shape):
    axis = (np.arange(260) - 129.5) / 100
    inside = shape_contains(shape, axis[None, :], axis[:, None])
    rows, columns = np.nonzero(inside)
    # The unit circle and the tips of the star touch the frame; 0.01 is one step of this grid.
    assert np.abs(axis[rows]).max() <= 1.01
    assert np.abs(axis[columns]).max() <= 1.01
    # A point that lies on an edge may fall to either side by rounding.
    assert (inside != inside[:, ::-1]).mean() < 1e-3


def test_the_star_and_the_triangle_point_up():
    for shape in ("star", "triangle"):
        shares, _, _ = coverage(one(shape, radius=14.0))
        solid = np.flatnonzero((shares >= 0.5).any(1))
        top, bottom = shares[solid[0] : solid[0] + 3].sum(), shares[solid[-1] - 2 : solid[-1] + 1].sum()
        assert top < bottom


def test_scenes_keep_their_objects_inside_apart_and_visible():
    rng = np.random.default_rng(11)
    for _ in range(400):
        scene = sample_scene(rng)
        assert 1 <= len(scene.objects) <= 4
        for index, item in enumerate(scene.objects):
            assert item.radius < item.cx < IMAGE_SIZE - item.radius
            assert item.radius < item.cy < IMAGE_SIZE - item.radius
            assert np.abs(np.subtract(item.rgb, COLORS[item.color])).max() <= 10
            # White and pink come closest to a light background.
            assert np.linalg.norm(np.subtract(item.rgb, scene.background)) > 45
            for other in scene.objects[:index]:
                apart = max(abs(item.cx - other.cx), abs(item.cy - other.cy))
                assert apart >= item.radius + other.radius + 1.99


def test_rendering_is_repeatable():
    scene = sample_scene(np.random.default_rng(3))
    np.testing.assert_array_equal(render(scene), render(scene))
