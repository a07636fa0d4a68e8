"""Whatever size is asked for is the size that comes out."""

import pytest
import torch

from sana_models.aspect_ratios import bucket_size, covering_size, resize_and_crop


@pytest.mark.parametrize(
    ("own", "wanted"),
    [((832, 1152), (960, 1280)), ((7, 1), (3, 50)), ((1, 7), (49, 7)), ((33, 100), (128, 129))],
)
def test_the_result_has_the_size_that_was_asked_for(own, wanted):
    assert resize_and_crop(torch.rand(1, 1, *own), *wanted).shape == (1, 1, *wanted)


@pytest.mark.parametrize(("base", "unit"), [(512, 8), (1024, 16)])
def test_every_bucket_covers_every_request_and_no_more_than_it_must(base, unit):
    """Truncation alone leaves 596 of these 25,538 sizes a pixel short."""
    sides = range(base // 4, 2 * base + 1, unit)
    for wanted in ((height, width) for height in sides for width in sides):
        covering = covering_size(bucket_size(*wanted, base), wanted)
        assert covering[0] >= wanted[0]
        assert covering[1] >= wanted[1]
        assert covering[0] == wanted[0] or covering[1] == wanted[1]
