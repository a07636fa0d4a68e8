"""INT8 transformers: what is quantised, what is not, and how far the output moves."""

import pytest
import torch

from sana_models.quantization import quantize
from sana_models.transformer import SanaTransformer
from tests.small_parts import randomise, small_sana

pytest.importorskip("torchao")


def transformer() -> SanaTransformer:
    model = SanaTransformer(small_sana()).eval().requires_grad_(False)
    randomise(model, seed=1)
    return model


def inputs(dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(2)
    latents = torch.randn(2, 8, 8, 6, generator=generator).to(dtype)
    text = torch.randn(2, 5, 24, generator=generator).to(dtype)
    return latents, torch.tensor([500.0, 500.0]), text, torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])


def int8_layers(model: SanaTransformer) -> set[str]:
    return {
        name
        for name, module in model.named_modules()
        if type(getattr(module, "weight", None)).__name__.startswith("Int8")
    }


@pytest.mark.parametrize("scheme", ["int8", "w8a8"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_output_moves_by_the_rounding_of_eight_bits(scheme, dtype):
    """Bound: one part in 127 of the largest of some 64 values is a rounding error of 0.6 % a product; some thirty
    products, with activations twice, add as a random walk to 5 %. Below 0.1 % nothing would have been quantised.
    """
    wide = transformer()(*inputs(torch.float32))
    narrow = quantize(transformer().to(dtype), scheme)(*inputs(dtype))
    assert narrow.dtype == dtype
    error = (narrow.float() - wide).square().mean().sqrt() / wide.square().mean().sqrt()
    assert 1e-3 < float(error) < 0.05


@pytest.mark.parametrize("scheme", ["int8", "w8a8"])
def test_norms_and_text_projections_stay(scheme):
    model = quantize(transformer(), scheme)
    quantised = int8_layers(model)
    expected = {"attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "attn2.to_q", "attn2.to_out.0"}
    expected |= {"ff.conv_inverted", "ff.conv_point"}
    depth = len(model.transformer_blocks)
    assert quantised == {f"transformer_blocks.{i}.{name}" for i in range(depth) for name in expected}


def test_none_changes_nothing():
    model = quantize(transformer(), "none")
    assert not int8_layers(model)
    assert torch.equal(model(*inputs(torch.float32)), transformer()(*inputs(torch.float32)))


def test_unknown_scheme_is_named():
    with pytest.raises(ValueError, match="quantization is 'int4'; allowed: none, int8, w8a8"):
        quantize(transformer(), "int4")
