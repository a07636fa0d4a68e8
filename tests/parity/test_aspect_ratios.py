"""Bucket tables and cropping against diffusers; exact, since both are tables and the same torch calls."""

import numpy as np
import pytest
import torch
from diffusers.image_processor import PixArtImageProcessor
from diffusers.pipelines.pixart_alpha.pipeline_pixart_alpha import ASPECT_RATIO_512_BIN, ASPECT_RATIO_1024_BIN
from diffusers.pipelines.pixart_alpha.pipeline_pixart_sigma import ASPECT_RATIO_2048_BIN
from diffusers.pipelines.sana.pipeline_sana import ASPECT_RATIO_4096_BIN

from sana_models.aspect_ratios import bucket_size, buckets, resize_and_crop

TABLES = {
    512: ASPECT_RATIO_512_BIN,
    1024: ASPECT_RATIO_1024_BIN,
    2048: ASPECT_RATIO_2048_BIN,
    4096: ASPECT_RATIO_4096_BIN,
}


@pytest.mark.parametrize("base", TABLES)
def test_tables(base):
    theirs = {float(key): (int(h), int(w)) for key, (h, w) in TABLES[base].items()}
    assert buckets(base) == theirs


@pytest.mark.parametrize("base", TABLES)
def test_requests_go_to_the_same_bucket(base):
    rng = np.random.default_rng(3)
    for height, width in rng.integers(64, 5000, size=(300, 2)).tolist():
        expected = PixArtImageProcessor.classify_height_width_bin(height, width, ratios=TABLES[base])
        assert bucket_size(height, width, base) == expected


def test_unknown_base_is_refused():
    with pytest.raises(ValueError, match="no aspect-ratio buckets at 768"):
        buckets(768)


@pytest.mark.parametrize("size", [(64, 96), (50, 80), (96, 64), (31, 200)])
def test_cropping(size):
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    expected = PixArtImageProcessor.resize_and_crop_tensor(images, size[1], size[0])
    assert torch.equal(resize_and_crop(images, *size), expected)
