"""Layers shared by the transformer and the autoencoder.

Shape suffixes: B batch, N tokens, C channels, H heads, D channels a head, h and w latent height and width.
"""

import math
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

from sana_kernels import Backend, operations

__all__ = [
    "TORCH_OPERATIONS",
    "GatedConvFeedForward",
    "Linear",
    "RMSNorm",
    "SelfAttention",
    "in_plain_fp32",
    "linear",
    "set_operations",
    "softmax_attention",
    "with_our_products",
]

_Network = TypeVar("_Network", bound=nn.Module)

#: What layers run on until `set_operations` tells them otherwise.
TORCH_OPERATIONS = operations("torch")
_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
# Values that the feed-forward holds of one group of images: 2 MiB in fp32, which stay in a processor's own cache.
_GROUP_VALUES = 2**19
# Scores of one head up to which two products and a softmax are faster than torch's one operation, up to twice.
_FEW_SCORES = 2**13


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


# torch's compiler takes oneDNN's product of constants alone, and this as it is.
_compiled_product = torch.library.custom_op("sana_models::linear", _product, mutates_args=())
_compiled_product.register_fake(lambda x, weight, bias: x.new_empty(*x.shape[:-1], weight.shape[0]))
if _ONEDNN:
    # torch's counter of operations does not know the product by itself.
    register_flop_formula(torch.ops.mkldnn._linear_pointwise)(
        lambda x, weight, *_, **__: 2 * x.numel() * weight[0]
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`, by oneDNN where torch's own is slow: fp32 on a CPU, without gradients.

    torch leaves such products to MKL, which knows only Intel's newer instructions: oneDNN is up to twice as fast on an AMD
    processor with AVX-512 and a tenth faster with AVX2, for one row as for thousands. It writes the bias with the product.
    """
    if _by_onednn(x, weight):
        return (_compiled_product if torch.compiler.is_compiling() else _product)(x, weight, bias)
    return F.linear(x, weight, bias)


def _by_onednn(x: Tensor, weight: Tensor) -> bool:
    # A quantised weight is a class of its own, with its own product.
    plain = type(weight) is nn.Parameter or type(weight) is Tensor
    return _ONEDNN and plain and weight.dtype == torch.float32 and in_plain_fp32(x)


def in_plain_fp32(x: Tensor) -> bool:
    """Whether `x` is of fp32 on a CPU, and neither autograd nor autocast looks on."""
    cpu = x.device.type == "cpu" and x.dtype == torch.float32
    return cpu and not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")


class Linear(nn.Linear):
    """`nn.Linear` by `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


class SelfAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` by `linear`, where a sequence attends to itself and nobody asks for the weights."""

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        mask = options.get("attn_mask")
        # Masks of bools have the other sense, and those of three axes are by head.
        simple = mask is None or (mask.is_floating_point() and mask.dim() == 2)
        known = not rest and options.keys() <= {"need_weights", "attn_mask"}
        asked = options.get("need_weights", True) or not (known and simple)
        own = query is key and key is value and query.dim() == 3 and self.batch_first
        plain = self.in_proj_weight is not None and self.bias_k is None and not self.add_zero_attn
        if asked or not (own and plain) or self.training or not _by_onednn(query, self.in_proj_weight):
            return super().forward(query, key, value, *rest, **options)
        q, k, v = (
            part.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for part in linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=2)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        return linear(mixed, self.out_proj.weight, self.out_proj.bias), None


def softmax_attention(q_BHND: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, bias_B11T: Tensor) -> Tensor:
    """`F.scaled_dot_product_attention` with an additive bias, (B, H, N, D)."""
    if not in_plain_fp32(q_BHND) or q_BHND.shape[2] * k_BHTD.shape[2] > _FEW_SCORES:
        return F.scaled_dot_product_attention(q_BHND, k_BHTD, v_BHTD, attn_mask=bias_B11T)
    scores = (q_BHND @ k_BHTD.mT).mul_(q_BHND.shape[-1] ** -0.5).add_(bias_B11T)
    return scores.softmax(dim=-1) @ v_BHTD


def with_our_products(network: _Network) -> _Network:
    """The network itself, of whatever library; its `nn.Linear` and `nn.MultiheadAttention` compute by `linear` from now on."""
    ours = {nn.Linear: Linear, nn.MultiheadAttention: SelfAttention}
    for module in network.modules():
        # Classes derived from these may compute something else.
        module.__class__ = ours.get(type(module), type(module))
    return network


def set_operations(network: nn.Module, backend: Backend) -> None:
    """Let every layer of a network that has `operations` run on those of a backend from now on."""
    for module in network.modules():
        if hasattr(module, "operations"):
            setattr(module, "operations", operations(backend))  # noqa: B010 - not a tensor or a module


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis; statistics and product in fp32, result in the input's dtype."""

    operations = TORCH_OPERATIONS

    def __init__(self, width: int, *, eps: float = 1e-5, bias: bool = False) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return self.operations.rms_norm(x, self.weight, self.bias, eps=self.eps)

    def added(self, residual: Tensor, x: Tensor) -> Tensor:
        """Return `residual + norm(x)`; without gradients, `x` is lost.

        On a processor all its passes over a group of tokens follow one another, while the group is in the cache.
        """
        together = x.device.type == "cpu" and x.dtype == residual.dtype
        if not together or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self.operations.rms_norm(x, self.weight, self.bias, residual, eps=self.eps)
        rows, into = x.flatten(0, -2), residual.flatten(0, -2)
        step = max(1, _GROUP_VALUES // 4 // x.shape[-1])
        for start in range(0, len(rows), step):
            group = slice(start, start + step)
            rows[group] = self(rows[group]).add_(into[group])
        return rows.view(x.shape)


class GatedConvFeedForward(nn.Module):
    """Mix-FFN of SANA and DC-AE: 1x1 expand, SiLU, depthwise 3x3, SiLU-gated half, 1x1 reduce.

    Takes and returns (B, h, w, C). The 1x1 convolutions are matrix products over channels and the depthwise one reads the
    same memory as a channels-last image, so no transposed copy is made. The zero padding of the 3x3 is what tells the
    models without position table where a token sits.
    """

    operations = TORCH_OPERATIONS

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.conv_inverted = nn.Conv2d(width, 2 * hidden, 1)
        self.conv_depth = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden)
        self.conv_point = nn.Conv2d(hidden, width, 1, bias=False)

    def forward(self, x_BhwC: Tensor) -> Tensor:
        if x_BhwC.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self._mix(x_BhwC)
        values = x_BhwC[..., 0].numel() * self.conv_depth.out_channels
        return torch.cat([self._mix(group) for group in x_BhwC.chunk(math.ceil(values / _GROUP_VALUES))])

    def _mix(self, x_BhwC: Tensor) -> Tensor:
        expanded = F.silu(_pointwise(x_BhwC, self.conv_inverted), inplace=not torch.is_grad_enabled())
        depthwise = self.conv_depth
        gated = self.operations.gated_depthwise(expanded, depthwise.weight, depthwise.bias)
        return _pointwise(gated, self.conv_point)


def _pointwise(x_BhwC: Tensor, layer: nn.Conv2d | nn.Linear) -> Tensor:
    """A 1x1 convolution as a product; a quantised one is a linear layer already."""
    if isinstance(layer, nn.Linear):
        return layer(x_BhwC)
    return linear(x_BhwC, layer.weight.flatten(1), layer.bias)
