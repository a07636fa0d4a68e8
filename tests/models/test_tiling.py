"""Tiled decoding: against diffusers on the same weights, and against untiled decoding on smooth images."""

import pytest
import torch

from sana_models.dc_ae import DCAE
from sana_models.tiling import Tiling, decode_tiled
from tests.parity.conftest import oracle_arguments
from tests.small_parts import randomise, small_dc_ae


def autoencoder() -> DCAE:
    model = DCAE(small_dc_ae()).eval().requires_grad_(False)
    randomise(model, seed=5)
    return model


def draw(height: int, width: int) -> torch.Tensor:
    return torch.randn(1, 8, height, width, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("size", [(9, 9), (8, 21), (13, 8), (16, 15)])
def test_equals_diffusers(size):
    from diffusers import AutoencoderDC

    ours = autoencoder()
    theirs = AutoencoderDC(**oracle_arguments(ours.config)).eval()
    theirs.load_state_dict(ours.state_dict())
    theirs.enable_tiling(64, 64, 48, 48)
    latents = draw(*size)
    with torch.no_grad():
        reference = theirs.decode(latents).sample
    tiled = decode_tiled(ours, latents, Tiling(tile=64, stride=48))
    assert tiled.shape == reference.shape == (1, 3, size[0] * 8, size[1] * 8)
    # The bound of the untiled decoder's parity; cross-fading averages, so it adds nothing.
    assert float((tiled - reference).abs().max()) <= 2e-5
    assert float((tiled - ours.decode(latents)).abs().max()) > 1e-2, "tiles would not show"


def test_smooth_images_show_no_seams():
    """Constant latents, the smoothest image there is, in tiles of 24 latents that overlap by half.

    A tile's zero padding reaches the whole tile through the global attention, so tiled and untiled agree on average,
    measured 3.5 % of the picture's spread, and not pixel by pixel. What a seam would be is a jump between the rows
    on both sides of a tile's border: measured 0.97 times the untiled picture's, and 1.24 times without overlap.
    """
    ours = autoencoder()
    latents = draw(1, 1).expand(1, 8, 40, 40).contiguous()
    whole = ours.decode(latents)
    tiled = decode_tiled(ours, latents, Tiling(tile=192, stride=96))
    assert float((tiled - whole).abs().mean()) <= 0.05 * float(whole.std())
    borders = [95, 191, 287]
    assert largest_jump(tiled, borders) <= 1.1 * largest_jump(whole, borders)


def largest_jump(images: torch.Tensor, rows: list[int]) -> float:
    return max(float((images[:, :, row + 1] - images[:, :, row]).abs().max()) for row in rows)


def test_what_fits_one_tile_is_decoded_whole():
    ours, latents = autoencoder(), draw(8, 6)
    assert torch.equal(decode_tiled(ours, latents, Tiling(tile=64, stride=48)), ours.decode(latents))


@pytest.mark.parametrize("settings", [(64, 0), (64, 65), (0, 0)])
def test_absurd_tiles_are_refused(settings):
    with pytest.raises(ValueError, match="0 < stride <= tile"):
        Tiling(tile=settings[0], stride=settings[1])


def test_tiles_must_fit_the_compression():
    with pytest.raises(ValueError, match="multiples of 8 pixels"):
        decode_tiled(autoencoder(), draw(9, 9), Tiling(tile=60, stride=40))
