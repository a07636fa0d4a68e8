"""Operations and memory traffic of SANA, counted from its configuration.

A multiply-add counts as two operations, as in `torch.utils.flop_counter`, and like there only products and convolutions
count: elementwise work, norms and softmax are below 1 % of the published models. Bytes are the least that must move: every
weight once a call, and what each product reads and writes; elementwise operations are taken as fused into them.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sana_models.config import DCAEConfig, SanaConfig

__all__ = ["Work", "decoder_work", "gemma_work", "text_projection_work", "transformer_work"]


@dataclass(frozen=True)
class Work:
    """Operations, weights and activation values touched; `itemsize` is bytes a value."""

    flops: int = 0
    weights: int = 0
    activations: int = 0
    itemsize: int = 4

    @property
    def bytes(self) -> int:
        """Bytes that must move."""
        return (self.weights + self.activations) * self.itemsize

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.flops + other.flops, self.weights + other.weights, self.activations + other.activations,
            self.itemsize,
        )  # fmt: skip

    def times(self, count: int) -> "Work":
        """The same work `count` times over, weights read anew each time."""
        return Work(self.flops * count, self.weights * count, self.activations * count, self.itemsize)

    def sized(self, itemsize: int) -> "Work":
        """The same work in a number format of `itemsize` bytes."""
        return Work(self.flops, self.weights, self.activations, itemsize)


def _linear(rows: int, inner: int, outer: int) -> Work:
    return Work(2 * rows * inner * outer, inner * outer, rows * (inner + outer))


def _conv(positions: int, kernel: int, inner: int, outer: int, groups: int = 1) -> Work:
    """A convolution with `positions` outputs a channel; its input is counted as large as its output."""
    weights = kernel * kernel * inner * outer // groups
    return Work(2 * positions * weights, weights, positions * (inner + outer))


def _linear_attention(rows: int, batch: int, width: int, head_dim: int) -> Work:
    """Context k^T v, normaliser q . sum k, and q times context, over `rows` tokens in all."""
    return Work(2 * rows * width * (2 * head_dim + 1), 0, 4 * rows * width + batch * width * head_dim)


def _gated_conv(rows: int, width: int, hidden: int) -> Work:
    return (
        _linear(rows, width, 2 * hidden)
        + _conv(rows, 3, 2 * hidden, 2 * hidden, groups=2 * hidden)
        + _linear(rows, hidden, width)
    )


def transformer_work(config: "SanaConfig", *, height: int, width: int, text: int, rows: int = 1) -> Work:
    """One call on latents of height x width with `text` projected text tokens; `rows` doubles under guidance."""
    tokens = rows * height * width // config.patch_size**2
    channels = config.width
    patch = config.in_channels * config.patch_size**2
    attention = _linear(tokens, channels, channels).times(4) + _linear_attention(
        tokens, rows, channels, config.attention_head_dim
    )
    cross = _linear(tokens, channels, channels).times(2)
    cross += Work(4 * tokens * text * channels, 0, 2 * tokens * channels + 2 * rows * text * channels)
    block = attention + cross + _gated_conv(tokens, channels, int(config.mlp_ratio * channels))
    # One time for the whole batch.
    time = _linear(1, 256, channels) + _linear(1, channels, channels) + _linear(1, channels, 6 * channels)
    out = _linear(tokens, channels, config.patch_size**2 * config.out_channels)
    return _linear(tokens, patch, channels) + time + block.times(config.num_layers) + out


def text_projection_work(config: "SanaConfig", *, text: int, rows: int = 1) -> Work:
    """Projection of the text for every block, once an image."""
    channels, tokens = config.width, rows * text
    projection = _linear(tokens, config.caption_channels, channels) + _linear(tokens, channels, channels)
    return projection + _linear(tokens, channels, channels).times(2 * config.num_layers)


def gemma_work(config: Any, *, tokens: int, rows: int = 1) -> Work:
    """One call of a Gemma-2 decoder (transformers configuration) on `tokens` positions, without the output head."""
    hidden, inner = config.hidden_size, config.intermediate_size
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    n = rows * tokens
    attention = _linear(n, hidden, queries) + _linear(n, hidden, keys).times(2) + _linear(n, queries, hidden)
    attention += Work(4 * n * tokens * queries, 0, 2 * n * queries + 2 * n * keys)
    feed_forward = _linear(n, hidden, inner).times(2) + _linear(n, inner, hidden)
    return (attention + feed_forward).times(config.num_hidden_layers)


def decoder_work(config: "DCAEConfig", *, height: int, width: int, batch: int = 1) -> Work:
    """Decoding `batch` latents of height x width to images."""
    widths, depths = config.decoder_block_out_channels, config.decoder_layers_per_block
    n = batch * height * width
    total = _conv(n, 3, config.latent_channels, widths[-1])
    for stage in reversed(range(len(widths))):
        if depths[stage] == 0:
            continue
        if stage + 1 < len(widths):
            n *= 4
            total += _conv(n, 3, widths[stage + 1], widths[stage])
        scales = config.decoder_qkv_multiscales[stage]
        if config.decoder_block_types[stage] == "ResBlock":
            block = _conv(n, 3, widths[stage], widths[stage]).times(2)
        else:
            block = _vit_block(n, batch, widths[stage], config.attention_head_dim, scales)
        total += block.times(depths[stage])
    if depths[0] > 0:
        return total + _conv(n, 3, widths[0], 3)
    return total + _conv(4 * n, 3, widths[1], 3)


def _vit_block(n: int, batch: int, width: int, head_dim: int, scales: tuple[int, ...]) -> Work:
    total = _linear(n, width, width).times(3)
    for kernel in scales:
        total += _conv(n, kernel, 3 * width, 3 * width, groups=3 * width)
        total += _conv(n, 1, 3 * width, 3 * width, groups=3 * width // head_dim)
    wide = width * (1 + len(scales))
    total += _linear_attention(n, batch, wide, head_dim) + _linear(n, wide, width)
    return total + _gated_conv(n, width, 4 * width)
