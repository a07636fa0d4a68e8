"""The Triton kernels of the gated depthwise convolution; `sana_kernels.gated_depthwise_triton` launches them.

A program walks down a strip of the image. Each input row is added to the three output rows it reaches, whose sums stay
in registers: the backward kernels load a token and channel 3 times, once a column offset, where a gather per output takes
9. The forward kernel, which runs far more often, has the columns in registers too and loads once, and a strip's borders
twice.
"""

import triton
import triton.language as tl

__all__ = ["depthwise_input_backward_kernel", "depthwise_weight_backward_kernel", "gated_depthwise_kernel"]


@triton.jit
def _taps(weight, channels, inside):
    """Load the 3x3 weights of some channels, nine fp32 rows."""
    base = weight + channels * 9
    taps: tl.tuple = ()
    for tap in tl.static_range(9):
        taps += (tl.load(base + tap, mask=inside, other=0.0).to(tl.float32)[None, :],)
    return taps


@triton.jit
def _biases(bias, channels, inside, COLUMNS: tl.constexpr):
    """The bias of some channels, once for each column of a strip."""
    loaded = tl.load(bias + channels, mask=inside, other=0.0).to(tl.float32)[None, :]
    biases: tl.tuple = ()
    for _ in tl.static_range(COLUMNS):
        biases += (loaded,)
    return biases


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
def _load_across(place, columns, limit, COLUMNS: tl.constexpr, STRIDE_W: tl.constexpr):
    """Load a row's tokens from one left of a strip to one right of it, a tensor each; the padding is zero."""
    loaded: tl.tuple = ()
    for step in tl.static_range(COLUMNS + 2):
        # One comparison: as an unsigned number, the column left of the image is beyond any limit.
        known = (columns + (step - 1)).to(tl.uint32) < limit
        loaded += (tl.load(place + (step - 1) * STRIDE_W, mask=known, other=0.0),)
    return loaded


@triton.jit
def _widen(values):
    """Turn into fp32; bf16 by its bits, one instruction a number where the cast takes two for every second number."""
    if values.dtype == tl.bfloat16:
        bits = values.to(tl.uint16, bitcast=True).to(tl.uint32) << 16
        widened = bits.to(tl.float32, bitcast=True)
    else:
        widened = values.to(tl.float32)
    return widened


@triton.jit
def _add_row(sums, loaded, taps, TAP_ROW: tl.constexpr, COLUMNS: tl.constexpr):
    """Add a loaded row, weighted with one row of the taps, to an output row's sums."""
    added: tl.tuple = ()
    for column in tl.static_range(COLUMNS):
        total = sums[column]
        for step in tl.static_range(3):
            total += _widen(loaded[column + step]) * taps[3 * TAP_ROW + step]
        added += (total,)
    return added


@triton.jit
def gated_depthwise_kernel(
    x, weight, bias, grad_out, out, height, width, stride_b, stride_h, stride_gb, stride_gh, stride_gw,
    HIDDEN: tl.constexpr, STRIDE_W: tl.constexpr, BACKWARD: tl.constexpr,
    COLUMNS: tl.constexpr, CHANNELS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Write `a * silu(g)`, (B, h, w, hidden); BACKWARD writes its gradients of a and g, (B, h, w, 2 hidden).

    A program walks down a strip COLUMNS wide, a tensor (1, CHANNELS) a column. A thread has a strip's columns in registers, so
    neighbours share what one of them loads, and with HIDDEN and STRIDE_W known all of a row's loads are constants away
    from one address.
    """
    program = tl.program_id(0)
    channel_blocks = tl.cdiv(HIDDEN, CHANNELS)
    column_blocks = tl.cdiv(width, COLUMNS)
    row_blocks = tl.cdiv(height, ROWS)
    channels = (program % channel_blocks) * CHANNELS + tl.arange(0, CHANNELS)
    program = program // channel_blocks
    columns = (program % column_blocks) * COLUMNS
    program = program // column_blocks
    first = (program % row_blocks) * ROWS
    batch = (program // row_blocks).to(tl.int64)
    inside = channels < HIDDEN
    # Columns up to here exist, in channels that do; none in rows that do not.
    limit = tl.where(inside[None, :], width, 0).to(tl.uint32)
    place = x + batch * stride_b + (first - 1).to(tl.int64) * stride_h + columns.to(tl.int64) * STRIDE_W
    place += channels[None, :]
    # Two rows are on their way while the weights, which lie far apart, are fetched.
    here = tl.where(first > 0, limit, 0)
    before_v = _load_across(place, columns, here, COLUMNS, STRIDE_W)
    before_g = _load_across(place + HIDDEN, columns, here, COLUMNS, STRIDE_W)
    place += stride_h
    values = _load_across(place, columns, limit, COLUMNS, STRIDE_W)
    gates = _load_across(place + HIDDEN, columns, limit, COLUMNS, STRIDE_W)
    value_taps = _taps(weight, channels, inside)
    gate_taps = _taps(weight, channels + HIDDEN, inside)
    fresh_v = _biases(bias, channels, inside, COLUMNS)
    fresh_g = _biases(bias, channels + HIDDEN, inside, COLUMNS)
    # Sums of the output rows above and level with the row that is read; a new row's begin with the bias.
    above_v = _add_row(_add_row(fresh_v, before_v, value_taps, 0, COLUMNS), values, value_taps, 1, COLUMNS)
    above_g = _add_row(_add_row(fresh_g, before_g, gate_taps, 0, COLUMNS), gates, gate_taps, 1, COLUMNS)
    level_v = _add_row(fresh_v, values, value_taps, 0, COLUMNS)
    level_g = _add_row(fresh_g, gates, gate_taps, 0, COLUMNS)
    channels = channels[None, :]
    grad_row = grad_out + batch * stride_gb + first.to(tl.int64) * stride_gh + channels
    place += stride_h
    here = tl.where(first + 1 < height, limit, 0)
    values = _load_across(place, columns, here, COLUMNS, STRIDE_W)
    gates = _load_across(place + HIDDEN, columns, here, COLUMNS, STRIDE_W)
    for row in range(first, tl.minimum(first + ROWS, height)):
        # The next row is on its way while this one is worked on.
        place += stride_h
        here = tl.where((row + 2 < height) & (row + 1 < first + ROWS), limit, 0)
        next_v = _load_across(place, columns, here, COLUMNS, STRIDE_W)
        next_g = _load_across(place + HIDDEN, columns, here, COLUMNS, STRIDE_W)
        done_v = _add_row(above_v, values, value_taps, 2, COLUMNS)
        done_g = _add_row(above_g, gates, gate_taps, 2, COLUMNS)
        token = (batch * height + row) * width + columns
        for column in tl.static_range(COLUMNS):
            known = (columns + column).to(tl.uint32) < limit
            gate = done_g[column]
            # The sigmoid as the square of a reciprocal root, one instruction where a division takes six.
            root = tl.rsqrt(1.0 + tl.exp2(gate * -1.4426950408889634))
            if BACKWARD:
                grad = tl.load(
                    grad_row + (columns + column).to(tl.int64) * stride_gw, mask=known, other=0.0
                ).to(tl.float32)
                sigmoid = root * root
                target = out + token * (2 * HIDDEN) + channels + column * (2 * HIDDEN)
                tl.store(target, grad * gate * sigmoid, mask=known)
                slope = sigmoid * (1.0 + gate * (1.0 - sigmoid))
                tl.store(target + HIDDEN, grad * done_v[column] * slope, mask=known)
            else:
                target = out + token * HIDDEN + channels + column * HIDDEN
                tl.store(target, done_v[column] * gate * root * root, mask=known)
        grad_row += stride_gh
        above_v = _add_row(level_v, values, value_taps, 1, COLUMNS)
        above_g = _add_row(level_g, gates, gate_taps, 1, COLUMNS)
        level_v = _add_row(fresh_v, values, value_taps, 0, COLUMNS)
        level_g = _add_row(fresh_g, gates, gate_taps, 0, COLUMNS)
        values = next_v
        gates = next_g


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
