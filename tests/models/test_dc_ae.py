"""DC-AE's ways of moving data without copies, and its products: what the plain definitions give."""

import os
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from sana_models import dc_ae
from sana_models.dc_ae import UpBlock
from tests.float64 import assert_as_exact, in_float64


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


@pytest.mark.parametrize("shortcut", [True, False])
def test_large_images_are_doubled_as_exactly_by_four_small_filters(monkeypatch, shortcut):
    """Each half of the sums of a 3x3 filter is added up first; edges, where the doubled image is padded, included."""
    torch.manual_seed(0)
    block = UpBlock(16, 8, interpolate=True, shortcut=shortcut).eval()
    x = torch.randn(2, 16, 5, 7).contiguous(memory_format=torch.channels_last)
    kept = x.clone()
    exact = in_float64(lambda: block(x))
    with torch.inference_mode():
        plain = block(x)
        monkeypatch.setattr(dc_ae, "_MANY_PIXELS", 35)
        with FlopCounterMode(display=False) as counter:
            found = block(x)
    assert not torch.equal(found, plain)
    assert_as_exact(found, plain, exact)
    assert torch.equal(x, kept)
    assert found.is_contiguous(memory_format=torch.channels_last)
    # The network's own work, whatever does it.
    assert counter.get_total_flops() == 2 * 9 * 16 * found.numel()


def test_defaults_of_the_program_that_imports_it_do_not_matter():
    """A table that is made on no device would be read as whatever its memory held before."""
    code = (
        "import torch; torch.set_default_device('meta'); torch.set_default_dtype(torch.float64)\n"
        "from sana_models.dc_ae import UpBlock\n"
        "torch.set_default_device('cpu'); torch.set_default_dtype(torch.float32)\n"
        "block, x = UpBlock(4, 4, interpolate=True, shortcut=False), torch.randn(1, 4, 32, 32)\n"
        "plain = block.conv(torch.nn.functional.interpolate(x, scale_factor=2.0))\n"
        "with torch.inference_mode(): torch.testing.assert_close(block(x), plain)"
    )
    places = {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | places, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
