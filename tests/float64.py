"""What float32 code computes but for rounding: the same code in float64, and a bound that holds on every processor.

Two ways to compute the same number in float32 (eager and compiled, one row and a batch, two orders of a sum) differ by
rounding, and by how much depends on the processor's vector width, fused products and matrix library. An absolute bound on
their difference is therefore a measurement of one machine. What does not depend on it is that neither is less exact than the
other: each is held to its own distance from float64.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

__all__ = ["FACTOR", "FLOOR", "assert_as_exact", "errors_against_float64", "in_float64"]

#: How many times the plain version's error another version may have. Both round the same values about as often, in another
#: order: their largest errors over an output are two draws of one extreme, seldom a factor of two apart. A fused product
#: saves one rounding of two, which is the other factor of two.
FACTOR = 4.0

#: Roundings (2^-23 of the largest output) that are always allowed: the plain version may happen to be exact. The last
#: few operations, that is a sum, a scale, a shift and a store, take one each, in either version.
FLOOR = 8.0


class _Widened(TorchFunctionMode):
    """Every float32 tensor is float64 before an operation sees it, and every request for float32 asks for float64."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.float:
            func = torch.Tensor.double
        args, kwargs = tree_map(_wide, (args, kwargs or {}))
        return func(*args, **kwargs)


def _wide(value: Any) -> Any:
    if value is torch.float32:
        return torch.float64
    if isinstance(value, torch.Tensor) and value.dtype == torch.float32:
        return value.double()
    return value


def in_float64(compute: Callable[[], Any]) -> np.ndarray:
    """What `compute` returns, with all its tensors in float64, also where the code says `float()` or `torch.float32`.

    Weights and inputs keep their float32 values; draw them outside, since a generator gives other numbers in float64. For
    forward passes only: an operation in place on a float32 tensor made outside would change a copy.
    """
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad(), _Widened():
            found = compute()
    finally:
        torch.set_default_dtype(default)
    if isinstance(found, torch.Tensor):
        assert found.dtype == torch.float64
    return _numbers(found)


def _numbers(values: Any) -> np.ndarray:
    return np.asarray(values.detach().double() if isinstance(values, torch.Tensor) else values, np.float64)


def errors_against_float64(exact: np.ndarray, *found: Any) -> list[float]:
    """The largest absolute difference of each version from the float64 values."""
    versions = [_numbers(values) for values in found]
    assert all(values.shape == exact.shape for values in versions)
    return [float(np.abs(values - exact).max()) for values in versions]


def assert_as_exact(changed: Any, plain: Any, exact: np.ndarray) -> None:
    """`changed` is at most `FACTOR` times as far from float64 as `plain`, plus `FLOOR` roundings of the largest value.

    `plain` itself is bounded by nothing but float64's nearness: its error must stay under 1e-4 of the largest value, which
    no sound float32 sum of a few hundred terms reaches (2^-23 a term, adding as a random walk, is 2e-6).
    """
    off, error = errors_against_float64(exact, changed, plain)
    largest = float(np.abs(exact).max())
    assert error <= 1e-4 * largest, f"the plain version is off by {error} of values up to {largest}"
    allowed = FACTOR * error + FLOOR * 2.0**-23 * largest
    assert off <= allowed, f"off float64 by {off}, allowed {allowed}; the plain version by {error}"
