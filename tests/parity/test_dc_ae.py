"""DC-AE against diffusers' AutoencoderDC on shared random weights.

Tolerance 2e-5 absolute at latent spreads of 2 to 3 and image spreads near 0.5: fp32 rounding (6e-8 relative)
through about twenty convolutions of up to 576 terms. Measured on these cases: 7e-6 encoding, 2e-6 decoding.
"""

from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderDC

from sana_models.dc_ae import DCAE
from tests.parity.conftest import oracle_arguments
from tests.small_parts import randomise, small_dc_ae

TOLERANCE = 2e-5


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, (64, 64)),
        ({}, (64, 40)),
        ({}, (32, 16)),  # 2x4 latents: the oracle takes its quadratic attention path
        ({"first_stage": 0}, (64, 64)),
        ({"upsample": "pixel_shuffle"}, (32, 64)),
        ({"downsample": "pixel_unshuffle"}, (64, 32)),
        ({"first_stage": 0, "upsample": "pixel_shuffle", "downsample": "pixel_unshuffle"}, (64, 64)),
        # What DC-AE-Lite and other later autoencoders may change.
        ({"encoder_out_shortcut": False, "decoder_in_shortcut": False}, (64, 64)),
        ({"decoder_conv_act_fn": "silu", "decoder_act_fns": ("relu", "silu", "silu", "relu")}, (64, 64)),
        ({"decoder_act_fns": "relu"}, (32, 32)),
    ],
)
@torch.no_grad()
def test_encode_and_decode_equal_diffusers(options, size):
    shape = {key: options[key] for key in ("first_stage", "upsample", "downsample") if key in options}
    config = replace(
        small_dc_ae(**shape), **{key: value for key, value in options.items() if key not in shape}
    )
    theirs = AutoencoderDC(**oracle_arguments(config)).eval()
    randomise(theirs, seed=4, gain=0.7)
    ours = DCAE(config).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(5)) * 2 - 1
    latents = ours.encode(images)
    reference = theirs.encode(images).latent
    assert latents.shape == (2, 8, size[0] // 8, size[1] // 8)
    assert 0.3 < float(reference.std()) < 10
    assert float((latents - reference).abs().max()) <= TOLERANCE
    decoded, expected = ours.decode(reference), theirs.decode(reference).sample
    assert 0.3 < float(expected.std()) < 10
    assert float((decoded - expected).abs().max()) <= TOLERANCE


def test_normalisation_is_undone():
    config = small_dc_ae()
    model = DCAE(config)
    latents = torch.randn(2, 8, 3, 3, generator=torch.Generator().manual_seed(6))
    assert torch.allclose(model.normalise(latents), latents * 0.41407)
    assert torch.allclose(model.denormalise(model.normalise(latents)), latents, atol=1e-6)


def test_per_channel_statistics_replace_the_factor():
    mean, std = tuple(float(i) for i in range(8)), tuple(0.5 + i for i in range(8))
    model = DCAE(replace(small_dc_ae(), latents_mean=mean, latents_std=std))
    latents = torch.randn(2, 8, 3, 3, generator=torch.Generator().manual_seed(6))
    expected = torch.stack([(latents[:, c] - c) / (0.5 + c) for c in range(8)], dim=1)
    # Both sides round the same two operations once each.
    assert torch.allclose(model.normalise(latents), expected, atol=1e-6)
    assert torch.allclose(model.denormalise(expected), latents, atol=1e-5)


def test_sizes_that_do_not_fit_are_refused():
    model = DCAE(small_dc_ae())
    with pytest.raises(ValueError, match="multiples of 8"):
        model.encode(torch.zeros(1, 3, 60, 64))
    with pytest.raises(ValueError, match="expected"):
        model.decode(torch.zeros(1, 4, 8, 8))
