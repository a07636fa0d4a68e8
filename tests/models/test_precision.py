"""Half precision against fp32, and what keeps fp16 finite; the whole transformer as one compiled graph."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sana_kernels.linear_attention import relu_linear_attention
from sana_models.config import FP16_MAX
from sana_models.transformer import SanaTransformer
from tests.float64 import assert_as_exact, errors_against_float64, in_float64
from tests.small_parts import randomise, small_sana


def transformer(dtype: torch.dtype = torch.float32) -> SanaTransformer:
    model = SanaTransformer(small_sana()).eval().requires_grad_(False)
    randomise(model, seed=1)
    return model.to(dtype)


def inputs(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(2)
    latents = torch.randn(2, 8, 8, 6, generator=generator).to(dtype)
    text = torch.randn(2, 5, 24, generator=generator).to(dtype)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    return latents, torch.tensor([999.0, 17.0]), text, mask


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 0.05), (torch.float16, 0.006)])
def test_half_precision_stays_close(dtype, bound):
    """Bound: some twenty roundings of 2^-9 (bf16) or 2^-12 (fp16) relative that add as a random walk, doubled."""
    wide, narrow = transformer()(*inputs()), transformer(dtype)(*inputs(dtype))
    assert narrow.dtype == dtype
    error = (narrow.float() - wide).square().mean().sqrt() / wide.square().mean().sqrt()
    assert 1e-5 < float(error) < bound


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_linear_attention_accumulates_in_fp32(dtype):
    """4096 tokens of ones: the sums reach 4096 * 32 and overflow fp16, and bf16 stops counting at 256.

    Every token attends to all alike: the mean of v. In any order, partial sums stay under 4096 / 4, the sum of one sign, and
    each addition rounds by at most 2^-24 of that. The 4096 roundings add as a random walk of at most 64 times that, 2^-20 in
    the mean; four standard deviations are 2^-18. The same code on the same numbers, widened first, gives the same bits.
    """
    q = k = torch.ones(1, 1, 4096, 32, dtype=dtype)
    v = torch.linspace(-1, 1, 4096).to(dtype)[None, None, :, None].expand(1, 1, 4096, 32)
    out = relu_linear_attention(q, k, v)
    assert out.dtype == torch.float32
    assert errors_against_float64(np.full(out.shape, float(v.double().mean())), out)[0] <= 2**-18
    assert torch.equal(relu_linear_attention(q.float(), k.float(), v.float()), out)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(relu_linear_attention(q, k, v), out)


def test_fp16_clamps_what_would_overflow():
    model = transformer(torch.float16)
    block = model.transformer_blocks[0].attn1
    block.to_out[0].weight.fill_(60000)
    out = block(torch.ones(1, 4, 64, dtype=torch.float16))
    assert torch.isfinite(out).all()
    assert float(out.abs().max()) == 65504


def with_a_large_block(model: SanaTransformer) -> SanaTransformer:
    """Scale one block's output projection to a peak of 2e5, which a small gate lets through as 200."""
    width = model.config.width
    model.transformer_blocks[1].scale_shift_table[2] = 1e-3
    for part in (model.time_embed.linear.weight, model.time_embed.linear.bias):
        part[2 * width : 3 * width] = 0
    peaks: list[float] = []
    projection = model.transformer_blocks[1].attn1.to_out[0]
    hook = projection.register_forward_hook(lambda *call: peaks.append(float(call[2].abs().max())))
    model(*inputs())
    hook.remove()
    projection.weight.mul_(2e5 / peaks[0])
    projection.bias.mul_(2e5 / peaks[0])
    return model


def clipped(dtype: torch.dtype, clip: float | None) -> torch.Tensor:
    """The velocity of a model with a large block, run in `dtype`."""
    model = (
        SanaTransformer(replace(small_sana(qk_norm=False), attention_clip=clip)).eval().requires_grad_(False)
    )
    randomise(model, seed=1)
    return with_a_large_block(model).to(dtype)(*inputs(dtype)).float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_clip_of_a_checkpoint_holds_in_every_precision(dtype):
    """fp16 always clips. Its rounding is 2^-12 relative and bf16's 2^-9; twenty of them as in the test above, doubled."""
    reference = clipped(torch.float16, FP16_MAX)
    spread = reference.square().mean().sqrt()

    def error(clip: float | None) -> float:
        return float((clipped(dtype, clip) - reference).square().mean().sqrt() / spread)

    assert error(FP16_MAX) < 0.05
    assert error(None) > 10 * error(FP16_MAX)


def test_the_transformer_is_one_graph():
    """`fullgraph` raises on any break. Compiled sums run in another order, and another on every processor: the bound is
    eager's own error against float64, most of which is the angle of the time embedding, 999 rounded to 6e-5.
    """
    torch._dynamo.reset()
    model = transformer()
    compiled = torch.compile(model, fullgraph=True)
    given = inputs()
    with torch.no_grad():
        assert_as_exact(compiled(*given), model(*given), in_float64(lambda: model(*given)))
