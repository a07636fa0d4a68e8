"""The tuning configurations of the Triton kernels, as tables. Nothing is tuned at run time.

Every constant that a kernel is compiled with stands here, so `sana_kernels.ahead_of_time` can compile all of
them for every architecture.
"""

from dataclasses import dataclass

import torch

__all__ = [
    "ATTENTION",
    "DEPTHWISE",
    "DEPTHWISE_BACKWARD",
    "NARROW_ROWS",
    "ROW",
    "AttentionConfig",
    "DepthwiseConfig",
    "RowConfig",
    "attention_config",
    "depthwise_backward_config",
    "row_config",
]


@dataclass(frozen=True)
class RowConfig:
    """One program holds `rows` rows of up to `block` channels in registers."""

    block: int
    warps: int
    rows: int = 1


@dataclass(frozen=True)
class AttentionConfig:
    """One program walks `tokens` tokens of a head of up to `head_dim` channels, `block` at a time, where it sums over
    them, and `attended` where it reads the sums.

    `precision` is how products of fp32 numbers run, in Triton's words."""

    head_dim: int
    block: int
    tokens: int
    attended: int
    warps: int
    precision: str


@dataclass(frozen=True)
class DepthwiseConfig:
    """One program walks `rows` image rows of a strip that is `columns` wide and `channels` deep."""

    columns: int
    channels: int
    rows: int
    warps: int


#: Normalisations and the residual, narrowest first. SANA's widths are 1152 and 2240.
ROW = (RowConfig(block=1024, warps=4), RowConfig(block=4096, warps=8))

#: Norms and biases of a decoder have up to a million rows, too narrow for a program each: DC-AE's widths are 128 to 1024.
NARROW_ROWS = (
    RowConfig(block=128, warps=4, rows=8),
    RowConfig(block=256, warps=4, rows=4),
    RowConfig(block=512, warps=4, rows=2),
    *ROW,
)

#: Linear attention, by element size in bytes. All of SANA's heads have 32 channels.
#: TF32 holds half-precision inputs without rounding. For fp32 three TF32 products in a row, which keep its precision,
#: spill registers; plain fp32 multiplications do not.
ATTENTION = {
    2: AttentionConfig(head_dim=32, block=64, tokens=256, attended=128, warps=4, precision="tf32"),
    4: AttentionConfig(head_dim=32, block=16, tokens=256, attended=256, warps=4, precision="ieee"),
}

#: Gated depthwise convolution, and its gradients of a and g. Two channels a thread: with more, the eighteen weights of
#: each leave too few registers for columns and for other warps. One warp a program: none waits for another.
#: Of 30 on an H200 the fastest at 8 images and at 2048 pixels, and within 2 % at one image of 1024.
DEPTHWISE = DepthwiseConfig(columns=4, channels=64, rows=32, warps=1)

#: The gradients of its input and its weights: images up to 16 tokens wide, and wider ones.
DEPTHWISE_BACKWARD = (
    DepthwiseConfig(columns=16, channels=32, rows=8, warps=4),
    DepthwiseConfig(columns=32, channels=32, rows=8, warps=8),
)


def row_config(width: int, table: tuple[RowConfig, ...] = ROW) -> RowConfig:
    """Return the configuration for rows of `width` channels; raises ValueError above the widest."""
    for config in table:
        if width <= config.block:
            return config
    raise ValueError(f"width is {width}; the Triton kernels hold rows of at most {table[-1].block} channels")


def attention_config(head_dim: int, dtype: torch.dtype) -> AttentionConfig:
    """Return the configuration for heads of `head_dim` channels; raises ValueError above the largest."""
    config = ATTENTION[dtype.itemsize]
    if head_dim > config.head_dim:
        raise ValueError(
            f"head_dim is {head_dim}; the Triton kernels take heads of at most {config.head_dim} channels"
        )
    return config


def depthwise_backward_config(width: int) -> DepthwiseConfig:
    """Return the configuration for images `width` tokens wide."""
    return DEPTHWISE_BACKWARD[0] if width <= DEPTHWISE_BACKWARD[0].columns else DEPTHWISE_BACKWARD[1]
