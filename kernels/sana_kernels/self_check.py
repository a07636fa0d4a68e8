"""Triton against PyTorch on the device at hand, before a model relies on it: a wrong kernel is an error and not a number."""

from functools import cache

import torch

from sana_kernels.dispatch import KernelError, operations

__all__ = ["check_operations"]

#: Of the reference's largest value: eight roundings of the dtype, whose products may run in TF32 below fp32.
_BOUNDS = {torch.float32: 1e-4, torch.float16: 8 * 2**-11, torch.bfloat16: 8 * 2**-8}


@cache
def check_operations(device: torch.device, dtype: torch.dtype) -> None:
    """Compare every Triton operation with PyTorch's on small odd-sized tensors; once a process, device and dtype.

    Raises KernelError naming the first operation that differs or does not run, and what to choose instead.
    """
    generator = torch.Generator("cpu").manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device="cpu").to(device, dtype)

    tokens = [drawn(2, 70, 96) for _ in range(3)]
    row, weight = drawn(2, 1, 96), drawn(96)
    inputs: list[tuple[str, tuple[torch.Tensor, ...], dict[str, float]]] = [
        ("linear_attention", (*tokens, weight, weight), {"head_dim": 32, "norm_eps": 1e-5}),
        ("linear_attention", (*tokens,), {"head_dim": 32}),
        ("gated_depthwise", (drawn(2, 5, 7, 80), drawn(80, 1, 3, 3), drawn(80)), {}),
        ("layer_norm_modulate", (tokens[0], row, row), {"eps": 1e-6}),
        ("gated_residual", (tokens[0], row, tokens[1]), {}),
        ("rms_norm", (tokens[0], weight), {"eps": 1e-5}),
        ("bias_silu", (tokens[0], weight), {}),
        ("rms_norm", (tokens[0], weight, row[0, 0], tokens[1]), {"eps": 1e-5}),
    ]
    plain, fused = operations("torch"), operations("triton")
    advice = f"on {device} with {dtype}; choose kernels 'torch' and report it"
    with torch.no_grad():
        for name, arguments, options in inputs:
            expected = getattr(plain, name)(*(t.float() for t in arguments), **options)
            found = getattr(fused, name)(*arguments, **options).float()
            error = float((found - expected).abs().max() / expected.abs().max())
            if not error <= _BOUNDS[dtype]:
                raise KernelError(
                    f"the Triton kernel {name} is off by {error:.2g} of the largest value {advice}"
                )
