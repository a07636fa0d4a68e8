"""DC-AE's ways of moving data without copies: the same numbers as the plain definitions, to the last bit."""

import pytest
import torch
from torch.nn import functional as F

from sana_models.dc_ae import UpBlock


@pytest.mark.parametrize("interpolate", [True, False])
@pytest.mark.parametrize(("wide", "narrow"), [(32, 8), (32, 16), (16, 16), (8, 16)])
def test_upwards_go_nearest_neighbours_and_the_shuffle_of_repeated_channels(wide, narrow, interpolate):
    torch.manual_seed(0)
    block = UpBlock(wide, narrow, interpolate=interpolate)
    x = torch.randn(2, wide, 3, 5).contiguous(memory_format=torch.channels_last)
    kept = x.clone()
    found = block(x)
    repeated = F.pixel_shuffle(x.repeat_interleave(4 * narrow // wide, dim=1), 2)
    larger = F.interpolate(x, scale_factor=2, mode="nearest")
    plain = block.conv(larger) if interpolate else F.pixel_shuffle(block.conv(x), 2)
    assert torch.equal(found, plain + repeated)
    assert torch.equal(x, kept)
    assert found.is_contiguous(memory_format=torch.channels_last)
    found.sum().backward()
    assert block.conv.weight.grad is not None
