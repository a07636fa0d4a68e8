"""The Triton kernels of ReLU linear attention; `sana_kernels.linear_attention_triton` launches them.

A head's context, `sum_m k_m v_m` (D, D), and normaliser, `sum_m k_m` (D,), are summed in fp32 over splits of the
tokens, so that few heads still fill the device; who reads them adds the splits up, in a fixed order.
Products of half-precision inputs run on tensor cores in TF32, which holds them without rounding; a context does lose at most
half a unit in the last place of fp16, as the result itself does when it is stored. Products of fp32 inputs run in fp32.
"""

import triton
import triton.language as tl

__all__ = [
    "attend_kernel",
    "context_kernel",
    "inverse_norm_kernel",
    "key_backward_kernel",
    "query_backward_kernel",
]


@triton.jit
def inverse_norm_kernel(
    q, k, out, eps, tokens, rows, width, stride_qb, stride_qn, stride_kb, stride_kn, BLOCK: tl.constexpr
):
    """Write `rsqrt(mean(x^2) + eps)` of every row of q, then of k."""
    row = tl.program_id(0).to(tl.int64)
    batch = row // tokens
    token = row % tokens
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    query = tl.load(q + batch * stride_qb + token * stride_qn + columns, mask=inside, other=0.0)
    query = query.to(tl.float32)
    tl.store(out + row, 1.0 / tl.sqrt(tl.sum(query * query, 0) / width + eps))
    key = tl.load(k + batch * stride_kb + token * stride_kn + columns, mask=inside, other=0.0)
    key = key.to(tl.float32)
    tl.store(out + rows + row, 1.0 / tl.sqrt(tl.sum(key * key, 0) / width + eps))


@triton.jit
def _rectified(x, inverse, weight, tokens_here, tokens, channels, known, stride, NORM: tl.constexpr):
    """Load (tokens, channels) of one head of q or k in fp32, normalised on request, with ReLU; zero outside."""
    inside = (tokens_here < tokens)[:, None] & known[None, :]
    values = tl.load(x + tokens_here[:, None] * stride + channels[None, :], mask=inside, other=0.0)
    if NORM:
        factor = tl.load(inverse + tokens_here, mask=tokens_here < tokens, other=0.0)
        scale = tl.load(weight + channels, mask=known, other=0.0).to(tl.float32)
        # Rounded as the unfused norm rounds its result.
        values = (values.to(tl.float32) * scale[None, :] * factor[:, None]).to(x.dtype.element_ty)
    values = values.to(tl.float32)
    # Not a maximum: that would turn NaN into 0.
    return tl.where(values < 0, 0.0, values)


@triton.jit
def _sum_splits(matrices, vectors, head, splits, BLOCK_D: tl.constexpr):
    channels = tl.arange(0, BLOCK_D)
    square = channels[:, None] * BLOCK_D + channels[None, :]
    matrix = tl.zeros([BLOCK_D, BLOCK_D], dtype=tl.float32)
    vector = tl.zeros([BLOCK_D], dtype=tl.float32)
    for split in range(splits):
        index = head * splits + split
        matrix += tl.load(matrices + index * BLOCK_D * BLOCK_D + square)
        vector += tl.load(vectors + index * BLOCK_D + channels)
    return matrix, vector


@triton.jit
def context_kernel(
    k, v, inverse, weight, contexts, normalisers, tokens, heads, head_dim,
    stride_kb, stride_kn, stride_vb, stride_vn,
    PRECISION: tl.constexpr, NORM: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    """Write one split's context and normaliser of one head."""
    index = tl.program_id(0).to(tl.int64)
    batch = index // heads
    first_channel = (index % heads) * head_dim
    columns = tl.arange(0, BLOCK_D)
    channels = first_channel + columns
    context = tl.zeros([BLOCK_D, BLOCK_D], dtype=tl.float32)
    normaliser = tl.zeros([BLOCK_D], dtype=tl.float32)
    first = tl.program_id(1).to(tl.int64) * TOKENS
    for start in range(0, TOKENS, BLOCK_N):
        here = first + start + tl.arange(0, BLOCK_N)
        inside = (here < tokens)[:, None] & (columns < head_dim)[None, :]
        key = _rectified(
            k + batch * stride_kb,
            inverse + batch * tokens,
            weight,
            here,
            tokens,
            channels,
            columns < head_dim,
            stride_kn,
            NORM,
        )
        value = tl.load(
            v + batch * stride_vb + here[:, None] * stride_vn + channels[None, :], mask=inside, other=0.0
        )
        context += tl.dot(tl.trans(key), value.to(tl.float32), input_precision=PRECISION)
        normaliser += tl.sum(key, 0)
    place = index * tl.num_programs(1) + tl.program_id(1)
    square = columns[:, None] * BLOCK_D + columns[None, :]
    tl.store(contexts + place * BLOCK_D * BLOCK_D + square, context)
    tl.store(normalisers + place * BLOCK_D + columns, normaliser)


@triton.jit
def attend_kernel(
    q, inverse, weight, contexts, normalisers, out, eps, tokens, heads, head_dim, splits, stride_qb, stride_qn,
    PRECISION: tl.constexpr, NORM: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    """Write the attended values of some tokens of one head."""
    index = tl.program_id(0).to(tl.int64)
    batch = index // heads
    first_channel = (index % heads) * head_dim
    columns = tl.arange(0, BLOCK_D)
    channels = first_channel + columns
    context, normaliser = _sum_splits(contexts, normalisers, index, splits, BLOCK_D)
    first = tl.program_id(1).to(tl.int64) * TOKENS
    for start in range(0, TOKENS, BLOCK_N):
        here = first + start + tl.arange(0, BLOCK_N)
        inside = (here < tokens)[:, None] & (columns < head_dim)[None, :]
        query = _rectified(
            q + batch * stride_qb,
            inverse + batch * tokens,
            weight,
            here,
            tokens,
            channels,
            columns < head_dim,
            stride_qn,
            NORM,
        )
        divisor = tl.sum(query * normaliser[None, :], 1) + eps
        attended = tl.dot(query, context, input_precision=PRECISION) / divisor[:, None]
        rows = (batch * tokens + here) * (heads * head_dim)
        tl.store(out + rows[:, None] + channels[None, :], attended, mask=inside)


@triton.jit
def query_backward_kernel(
    q, inverse, weight, contexts, normalisers, grad_out, grad_q, grad_contexts, grad_normalisers, eps,
    tokens, heads, head_dim, splits, stride_qb, stride_qn, stride_gb, stride_gn,
    PRECISION: tl.constexpr, NORM: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    """Write the gradient of (normalised) q, and one split of the gradients of context and normaliser."""
    index = tl.program_id(0).to(tl.int64)
    batch = index // heads
    first_channel = (index % heads) * head_dim
    columns = tl.arange(0, BLOCK_D)
    channels = first_channel + columns
    context, normaliser = _sum_splits(contexts, normalisers, index, splits, BLOCK_D)
    grad_context = tl.zeros([BLOCK_D, BLOCK_D], dtype=tl.float32)
    grad_normaliser = tl.zeros([BLOCK_D], dtype=tl.float32)
    first = tl.program_id(1).to(tl.int64) * TOKENS
    for start in range(0, TOKENS, BLOCK_N):
        here = first + start + tl.arange(0, BLOCK_N)
        inside = (here < tokens)[:, None] & (columns < head_dim)[None, :]
        query = _rectified(
            q + batch * stride_qb,
            inverse + batch * tokens,
            weight,
            here,
            tokens,
            channels,
            columns < head_dim,
            stride_qn,
            NORM,
        )
        grad = tl.load(
            grad_out + batch * stride_gb + here[:, None] * stride_gn + channels[None, :],
            mask=inside,
            other=0.0,
        )
        divisor = tl.sum(query * normaliser[None, :], 1) + eps
        # Of out = numerator / divisor, with respect to both.
        grad_numerator = grad.to(tl.float32) / divisor[:, None]
        attended = tl.dot(query, context, input_precision=PRECISION) / divisor[:, None]
        grad_divisor = -tl.sum(grad_numerator * attended, 1)
        grad_query = tl.dot(grad_numerator, tl.trans(context), input_precision=PRECISION)
        grad_query += grad_divisor[:, None] * normaliser[None, :]
        rows = (batch * tokens + here) * (heads * head_dim)
        grad_query = tl.where(query == 0, 0.0, grad_query)
        tl.store(grad_q + rows[:, None] + channels[None, :], grad_query, mask=inside)
        grad_context += tl.dot(tl.trans(query), grad_numerator, input_precision=PRECISION)
        grad_normaliser += tl.sum(query * grad_divisor[:, None], 0)
    place = index * tl.num_programs(1) + tl.program_id(1)
    square = columns[:, None] * BLOCK_D + columns[None, :]
    tl.store(grad_contexts + place * BLOCK_D * BLOCK_D + square, grad_context)
    tl.store(grad_normalisers + place * BLOCK_D + columns, grad_normaliser)


@triton.jit
def key_backward_kernel(
    k, v, inverse, weight, grad_contexts, grad_normalisers, grad_k, grad_v, tokens, heads, head_dim, splits,
    stride_kb, stride_kn, stride_vb, stride_vn,
    PRECISION: tl.constexpr, NORM: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    """Write the gradients of (normalised) k and of v for some tokens of one head."""
    index = tl.program_id(0).to(tl.int64)
    batch = index // heads
    first_channel = (index % heads) * head_dim
    columns = tl.arange(0, BLOCK_D)
    channels = first_channel + columns
    grad_context, grad_normaliser = _sum_splits(grad_contexts, grad_normalisers, index, splits, BLOCK_D)
    first = tl.program_id(1).to(tl.int64) * TOKENS
    for start in range(0, TOKENS, BLOCK_N):
        here = first + start + tl.arange(0, BLOCK_N)
        inside = (here < tokens)[:, None] & (columns < head_dim)[None, :]
        key = _rectified(
            k + batch * stride_kb,
            inverse + batch * tokens,
            weight,
            here,
            tokens,
            channels,
            columns < head_dim,
            stride_kn,
            NORM,
        )
        value = tl.load(
            v + batch * stride_vb + here[:, None] * stride_vn + channels[None, :], mask=inside, other=0.0
        ).to(tl.float32)
        grad_key = tl.dot(value, tl.trans(grad_context), input_precision=PRECISION) + grad_normaliser[None, :]
        grad_value = tl.dot(key, grad_context, input_precision=PRECISION)
        place = ((batch * tokens + here) * (heads * head_dim))[:, None] + channels[None, :]
        tl.store(grad_k + place, tl.where(key == 0, 0.0, grad_key), mask=inside)
        tl.store(grad_v + place, grad_value, mask=inside)
