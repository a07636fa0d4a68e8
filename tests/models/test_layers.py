"""Layers as inference runs them on a processor: oneDNN's products and images in groups, the same numbers as torch's own."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from sana_kernels.gated_depthwise import gated_depthwise_torch
from sana_kernels.layer_norm_modulate import layer_norm_modulate_torch
from sana_kernels.linear_attention import relu_linear_attention
from sana_kernels.rms_norm import rms_norm_torch
from sana_models import layers
from sana_models.guidance import TextCondition
from sana_models.layers import (
    GatedConvFeedForward,
    Linear,
    RMSNorm,
    SelfAttention,
    linear,
    softmax_attention,
    with_our_products,
)
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


def _attention(**options) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    return nn.MultiheadAttention(12, 3, batch_first=True, **options).eval().requires_grad_(False)


@pytest.mark.parametrize("masked", [True, False])
def test_self_attention_of_another_librarys_network_is_as_exact_as_torchs(masked):
    theirs = _attention()
    ours = with_our_products(_attention())
    assert type(ours) is SelfAttention
    x = torch.randn(2, 5, 12)
    mask = torch.full((5, 5), float("-inf")).triu(1) if masked else None
    ask = {"need_weights": False, "attn_mask": mask}
    with torch.inference_mode():
        expected, found = (layer(x, x, x, **ask) for layer in (theirs, ours))
    wide = {"need_weights": False, "attn_mask": mask.double() if masked else None}
    exact = theirs.double()(*[x.double()] * 3, **wide)[0]
    assert_as_exact(found[0], expected[0], exact.numpy())
    assert found[1] is None


@pytest.mark.parametrize(
    ("options", "ask"),
    [
        ({}, {}),
        ({}, {"need_weights": False, "attn_mask": torch.ones(5, 5, dtype=torch.bool).triu(1)}),
        ({}, {"need_weights": False, "key_padding_mask": torch.tensor([[False] * 4 + [True]] * 2)}),
        ({"add_bias_kv": True}, {"need_weights": False}),
        ({"kdim": 12, "vdim": 8}, {"need_weights": False}),
    ],
)
def test_what_else_an_attention_can_do_is_left_to_torch(options, ask):
    x = torch.randn(2, 5, 12)
    inputs = (x, x, x[..., : options.get("vdim", 12)])
    with torch.inference_mode():
        expected, found = (
            layer(*inputs, **ask)
            for layer in (_attention(**options), with_our_products(_attention(**options)))
        )
    assert torch.equal(found[0], expected[0])
    assert (found[1] is None) == (expected[1] is None)


def test_only_torchs_own_layers_compute_by_ours():
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    network = nn.ModuleDict({"plain": nn.Linear(4, 4), "derived": Doubled(4, 4)})
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert with_our_products(network) is network
    assert type(network["plain"]) is Linear
    assert type(network["derived"]) is Doubled
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


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


@pytest.mark.parametrize("wanted", [0, 2**13])
def test_attention_to_a_few_keys_is_as_exact_as_torchs(monkeypatch, wanted):
    torch.manual_seed(0)
    q = torch.randn(2, 9, 3, 8).transpose(1, 2)
    k, v = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 5, 8)
    bias = torch.zeros(2, 1, 1, 5)
    bias[0, ..., 3:] = -10000.0
    kept = q.clone()
    plain = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    exact = in_float64(lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=bias))
    monkeypatch.setattr(layers, "_FEW_SCORES", wanted)
    with torch.inference_mode():
        assert_as_exact(softmax_attention(q, k, v, bias), plain, exact)
    assert torch.equal(q, kept)
    assert softmax_attention(q.requires_grad_(), k, v, bias).requires_grad


@pytest.mark.parametrize("images", [1, 3])
def test_one_modulation_for_all_images_is_as_exact_as_one_each(images):
    torch.manual_seed(0)
    x, shift, scale = torch.randn(3, 7, 24) + 4, torch.randn(1, 1, 24), torch.randn(1, 1, 24)

    def modulated() -> torch.Tensor:
        return layer_norm_modulate_torch(x, shift.expand(images, 1, 24), scale.expand(images, 1, 24))

    plain = F.layer_norm(x, (24,), eps=1e-6) * (1 + scale) + shift
    assert_as_exact(modulated(), plain, in_float64(modulated))


def test_operations_without_gradients_leave_their_inputs_alone():
    """Heads whole in memory, of fp32: nothing that they are copied to for."""
    torch.manual_seed(0)
    heads = [torch.randn(2, 3, 4, 8) for _ in range(3)]
    image, weight, bias = torch.randn(1, 4, 4, 8), torch.randn(8, 1, 3, 3), torch.randn(8)
    inputs = [*heads, image, weight, bias]
    kept = [tensor.clone() for tensor in inputs]
    trained = (
        relu_linear_attention(*heads),
        gated_depthwise_torch(image, weight, bias),
        rms_norm_torch(image, bias),
    )
    with torch.inference_mode():
        found = (
            relu_linear_attention(*heads),
            gated_depthwise_torch(image, weight, bias),
            rms_norm_torch(image, bias),
        )
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, trained, strict=True))
    assert all(torch.equal(tensor, before) for tensor, before in zip(inputs, kept, strict=True))
