"""The Triton kernels of the gated depthwise convolution; `sana_kernels.gated_depthwise_triton` launches them.

A program walks down a strip of the image. Each input row is loaded once a column offset and added to the three output
rows it reaches, whose sums stay in registers: 3 loads a token and channel where a gather per output takes 9.
"""

import triton
import triton.language as tl

__all__ = ["depthwise_input_backward_kernel", "depthwise_weight_backward_kernel", "gated_depthwise_kernel"]


@triton.jit
def _taps(weight, channels, inside):
    """Load the 3x3 weights of some channels, nine fp32 rows."""
    base = weight + channels * 9
    return (
        tl.load(base, mask=inside, other=0.0).to(tl.float32)[None, :],
        tl.load(base + 1, mask=inside, other=0.0).to(tl.float32)[None, :],
        tl.load(base + 2, mask=inside, other=0.0).to(tl.float32)[None, :],
        tl.load(base + 3, mask=inside, other=0.0).to(tl.float32)[None, :],
        tl.load(base + 4, mask=inside, other=0.0).to(tl.float32)[None, :],
        tl.load(base + 5, mask=inside, other=0.0).to(tl.float32)[None, :],
        tl.load(base + 6, mask=inside, other=0.0).to(tl.float32)[None, :],
        tl.load(base + 7, mask=inside, other=0.0).to(tl.float32)[None, :],
        tl.load(base + 8, mask=inside, other=0.0).to(tl.float32)[None, :],
    )


@triton.jit
def _place(height, width, channels_total, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr, ROWS: tl.constexpr):
    """Return this program's image, first row, columns and channels; neighbouring programs share rows."""
    program = tl.program_id(0).to(tl.int64)
    channel_blocks = tl.cdiv(channels_total, CHANNELS)
    column_blocks = tl.cdiv(width, COLUMNS)
    row_blocks = tl.cdiv(height, ROWS)
    channels = (program % channel_blocks) * CHANNELS + tl.arange(0, CHANNELS)
    program = program // channel_blocks
    columns = (program % column_blocks) * COLUMNS + tl.arange(0, COLUMNS)
    program = program // column_blocks
    return program // row_blocks, (program % row_blocks) * ROWS, columns, channels


@triton.jit
def _load(image, row, columns, channels, inside, height, width, stride_h, stride_w):
    """Load one row's (columns, channels) in fp32; the padding is zero."""
    # One comparison each, columns only: the row is one number for the whole block.
    known = (columns >= 0) & (columns < tl.where((row >= 0) & (row < height), width, 0))
    places = row * stride_h + columns[:, None] * stride_w + channels[None, :]
    return tl.load(image + places, mask=known[:, None] & inside[None, :], other=0.0).to(tl.float32)


@triton.jit
def gated_depthwise_kernel(
    x, weight, bias, grad_out, out, height, width, hidden, stride_b, stride_h, stride_w,
    stride_gb, stride_gh, stride_gw,
    BACKWARD: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Write `a * silu(g)`, (B, h, w, hidden); BACKWARD writes its gradients of a and g, (B, h, w, 2 hidden)."""
    batch, first, columns, channels = _place(height, width, hidden, COLUMNS, CHANNELS, ROWS)
    inside = channels < hidden
    image = x + batch * stride_b
    value_taps = _taps(weight, channels, inside)
    gate_taps = _taps(weight, channels + hidden, inside)
    value_bias = tl.load(bias + channels, mask=inside, other=0.0).to(tl.float32)[None, :]
    gate_bias = tl.load(bias + hidden + channels, mask=inside, other=0.0).to(tl.float32)[None, :]
    # Sums of the output rows above, level with and below the row that is read.
    above_v = tl.zeros([COLUMNS, CHANNELS], dtype=tl.float32)
    level_v = tl.zeros([COLUMNS, CHANNELS], dtype=tl.float32)
    above_g = tl.zeros([COLUMNS, CHANNELS], dtype=tl.float32)
    level_g = tl.zeros([COLUMNS, CHANNELS], dtype=tl.float32)
    for step in range(ROWS + 2):
        row = first + step - 1
        below_v = tl.zeros([COLUMNS, CHANNELS], dtype=tl.float32)
        below_g = tl.zeros([COLUMNS, CHANNELS], dtype=tl.float32)
        for offset in tl.static_range(3):
            values = _load(
                image, row, columns + (offset - 1), channels, inside, height, width, stride_h, stride_w
            )
            above_v += values * value_taps[6 + offset]
            level_v += values * value_taps[3 + offset]
            below_v += values * value_taps[offset]
            gates = _load(
                image + hidden,
                row,
                columns + (offset - 1),
                channels,
                inside,
                height,
                width,
                stride_h,
                stride_w,
            )
            above_g += gates * gate_taps[6 + offset]
            level_g += gates * gate_taps[3 + offset]
            below_g += gates * gate_taps[offset]
        done = row - 1
        known = (columns < tl.where((step >= 2) & (done < height), width, 0))[:, None] & inside[None, :]
        value = above_v + value_bias
        gate = above_g + gate_bias
        sigmoid = 1.0 / (1.0 + tl.exp(-gate))
        place = (batch * height + done) * width + columns
        if BACKWARD:
            grad = tl.load(
                grad_out
                + batch * stride_gb
                + done * stride_gh
                + columns[:, None] * stride_gw
                + channels[None, :],
                mask=known,
                other=0.0,
            ).to(tl.float32)
            target = out + place[:, None] * (2 * hidden) + channels[None, :]
            tl.store(target, grad * gate * sigmoid, mask=known)
            slope = sigmoid * (1.0 + gate * (1.0 - sigmoid))
            tl.store(target + hidden, grad * value * slope, mask=known)
        else:
            tl.store(out + place[:, None] * hidden + channels[None, :], value * gate * sigmoid, mask=known)
        above_v = level_v
        level_v = below_v
        above_g = level_g
        level_g = below_g


@triton.jit
def depthwise_input_backward_kernel(
    grad, weight, grad_x, height, width, total,
    COLUMNS: tl.constexpr, CHANNELS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Write the gradient of the convolution's input: a convolution with the weights turned by half a turn."""
    batch, first, columns, channels = _place(height, width, total, COLUMNS, CHANNELS, ROWS)
    inside = channels < total
    image = grad + batch * height * width * total
    taps = _taps(weight, channels, inside)
    above = tl.zeros([COLUMNS, CHANNELS], dtype=tl.float32)
    level = tl.zeros([COLUMNS, CHANNELS], dtype=tl.float32)
    for step in range(ROWS + 2):
        row = first + step - 1
        below = tl.zeros([COLUMNS, CHANNELS], dtype=tl.float32)
        for offset in tl.static_range(3):
            values = _load(
                image, row, columns + (offset - 1), channels, inside, height, width, width * total, total
            )
            above += values * taps[2 - offset]
            level += values * taps[5 - offset]
            below += values * taps[8 - offset]
        done = row - 1
        known = (columns < tl.where((step >= 2) & (done < height), width, 0))[:, None] & inside[None, :]
        place = (batch * height + done) * width + columns
        tl.store(grad_x + place[:, None] * total + channels[None, :], above, mask=known)
        above = level
        level = below


@triton.jit
def depthwise_weight_backward_kernel(
    x, grad, partial, height, width, total, stride_b, stride_h, stride_w,
    COLUMNS: tl.constexpr, CHANNELS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Write one strip's share of the gradients: nine rows for the weights and one for the bias, (10, C)."""
    batch, first, columns, channels = _place(height, width, total, COLUMNS, CHANNELS, ROWS)
    inside = channels < total
    image = x + batch * stride_b
    grads = grad + batch * height * width * total
    strip = tl.program_id(0).to(tl.int64) // tl.cdiv(total, CHANNELS)
    target = partial + strip * 10 * total + channels
    bias = tl.zeros([COLUMNS, CHANNELS], dtype=tl.float32)
    for offset in tl.static_range(3):
        top = tl.zeros([COLUMNS, CHANNELS], dtype=tl.float32)
        middle = tl.zeros([COLUMNS, CHANNELS], dtype=tl.float32)
        bottom = tl.zeros([COLUMNS, CHANNELS], dtype=tl.float32)
        for step in range(ROWS):
            row = first + step
            here = _load(grads, row, columns, channels, inside, height, width, width * total, total)
            shifted = columns + (offset - 1)
            top += here * _load(image, row - 1, shifted, channels, inside, height, width, stride_h, stride_w)
            middle += here * _load(image, row, shifted, channels, inside, height, width, stride_h, stride_w)
            bottom += here * _load(
                image, row + 1, shifted, channels, inside, height, width, stride_h, stride_w
            )
            if offset == 0:
                bias += here
        tl.store(target + offset * total, tl.sum(top, 0), mask=inside)
        tl.store(target + (3 + offset) * total, tl.sum(middle, 0), mask=inside)
        tl.store(target + (6 + offset) * total, tl.sum(bottom, 0), mask=inside)
    tl.store(target + 9 * total, tl.sum(bias, 0), mask=inside)
