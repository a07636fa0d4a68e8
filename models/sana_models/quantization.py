"""INT8 transformers through torchao: half the memory of 16-bit weights, and integer products where the device has them.

Source: SANA (arXiv 2410.10629) section 4 and table 5, the on-device model: symmetric, one scale an output channel for
weights and one a token for activations; norms, linear attention and the key and value projections of
cross-attention stay in 16 bit.
"""

from typing import Literal, get_args

from torch import nn

from sana_models.layers import GatedConvFeedForward, Linear
from sana_models.transformer import SanaBlock, SanaTransformer

__all__ = ["Quantization", "quantize"]

#: `int8`: weights alone, products in the model's own format. `w8a8`: activations as well, products of integers.
Quantization = Literal["none", "int8", "w8a8"]

_KEPT = ("attn2.to_k", "attn2.to_v")


def quantize(model: SanaTransformer, scheme: Quantization) -> SanaTransformer:
    """Quantise the linear layers and 1x1 convolutions of all blocks in place; return the model, for inference only.

    What is outside the blocks, a few percent, stays as it is. Raises ValueError for an unknown scheme and ImportError
    where torchao is not installed.
    """
    if scheme not in get_args(Quantization):
        raise ValueError(f"quantization is {scheme!r}; allowed: {', '.join(get_args(Quantization))}")
    if scheme == "none":
        return model
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig, quantize_

    for block in model.transformer_blocks:
        if isinstance(block, SanaBlock):
            _pointwise_to_linear(block.ff)
    chosen = Int8WeightOnlyConfig() if scheme == "int8" else Int8DynamicActivationInt8WeightConfig()
    quantize_(model.transformer_blocks, chosen, filter_fn=_is_quantised)
    return model


def _is_quantised(module: nn.Module, name: str) -> bool:
    return isinstance(module, nn.Linear) and not name.endswith(_KEPT)


def _pointwise_to_linear(layer: GatedConvFeedForward) -> None:
    """Turn the 1x1 convolutions, which are computed as products anyway, into layers that torchao knows."""
    for name in ("conv_inverted", "conv_point"):
        conv = getattr(layer, name)
        product = Linear(conv.in_channels, conv.out_channels, bias=conv.bias is not None, device="meta")
        product.weight = nn.Parameter(conv.weight.flatten(1), requires_grad=False)
        product.bias = conv.bias
        setattr(layer, name, product)
