"""Layers as inference runs them on a processor: oneDNN's products and images in groups, the same numbers as torch's own."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from sana_models import layers
from sana_models.guidance import TextCondition
from sana_models.layers import GatedConvFeedForward, Linear, RMSNorm, linear
from tests.float64 import assert_as_exact, in_float64


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("shape", [(1, 12), (2, 5, 12)])
def test_products_without_gradients_are_as_exact_as_torchs(biased, shape):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(*shape[:-1], 24, generator=generator)[..., ::2]
    weight = torch.randn(7, 12, generator=generator)
    bias = torch.randn(7, generator=generator) if biased else None
    exact = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
    with torch.inference_mode():
        ours = linear(x, weight, bias)
    assert ours.shape == exact.shape
    assert_as_exact(ours, F.linear(x, weight, bias), exact.numpy())


def test_products_keep_gradients_and_the_formats_that_are_asked_for():
    layer = Linear(12, 7)
    x = torch.randn(3, 12, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    assert layer.weight.grad is not None
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    with torch.no_grad():
        assert layer.double()(x.double()).dtype == torch.float64


def test_torchs_counter_knows_the_products():
    layer = Linear(12, 7)
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        layer(torch.randn(2, 3, 12))
    assert counter.get_total_flops() == 2 * 6 * 12 * 7


def test_images_in_groups_give_what_they_give_together(monkeypatch):
    """Groups of two, with one left over; and the input is not written to."""
    torch.manual_seed(0)
    layer = GatedConvFeedForward(8, 16)
    x = torch.randn(5, 4, 6, 8)
    kept = x.clone()
    together = layer(x)
    assert together.requires_grad
    exact = layer.double()(x.double()).detach().numpy()
    layer.float()
    monkeypatch.setattr(layers, "_GROUP_VALUES", 2 * 4 * 6 * 32)
    with torch.inference_mode():
        grouped = layer(x)
    assert_as_exact(grouped, together.detach(), exact)
    assert torch.equal(x, kept)


@pytest.mark.parametrize(
    ("length", "last", "used"), [(40, 3, 16), (40, 16, 16), (40, 17, 32), (40, 33, 40), (10, 3, 10)]
)
def test_texts_are_cut_to_lengths_that_fill_vectors(length, last, used):
    mask = torch.zeros(2, length)
    mask[0, :last] = mask[1, :1] = 1
    assert TextCondition(torch.zeros(2, length, 4), mask).used == used


@pytest.mark.parametrize("last", [True, False])
def test_a_norm_is_added_in_groups_as_in_one(monkeypatch, last):
    """Tokens-last or channels-first memory; groups of two tokens with one left over; the residual is not written to."""
    torch.manual_seed(0)
    norm = RMSNorm(6, bias=True)
    norm.bias.data.normal_()
    residual, x = (
        torch.randn(1, 3, 5, 6) if last else torch.randn(1, 6, 3, 5).permute(0, 2, 3, 1) for _ in range(2)
    )
    kept = residual.clone()
    exact = in_float64(lambda: residual + norm(x))
    with torch.inference_mode():
        plain = residual + norm(x)
        monkeypatch.setattr(layers, "_GROUP_VALUES", 4 * 2 * 6)
        assert_as_exact(norm.added(residual, x.clone()), plain, exact)
    assert torch.equal(residual, kept)
    assert norm.added(residual, x).requires_grad
