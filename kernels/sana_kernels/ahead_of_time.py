"""Compile every kernel with every shipped configuration for an architecture, without a GPU, and read what it uses."""

import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sana_kernels import gated_depthwise_kernels as depthwise
from sana_kernels import linear_attention_kernels as attention
from sana_kernels.bias_silu_triton import bias_silu_kernel
from sana_kernels.configs import ATTENTION, DEPTHWISE, DEPTHWISE_BACKWARD, NARROW_ROWS, ROW
from sana_kernels.gated_residual_triton import gated_residual_backward_kernel, gated_residual_forward_kernel
from sana_kernels.layer_norm_modulate_triton import (
    layer_norm_modulate_backward_kernel,
    layer_norm_modulate_forward_kernel,
)
from sana_kernels.rms_norm_triton import rms_norm_backward_kernel, rms_norm_forward_kernel

__all__ = ["SHARED_MEMORY_LIMITS", "Build", "Usage", "builds", "compile_build"]

#: Bytes of shared memory that one block may take, by compute capability (CUDA C++ programming guide, table of
#: technical specifications).
SHARED_MEMORY_LIMITS = {80: 163 * 1024, 89: 99 * 1024, 90: 227 * 1024}

#: Arguments that are fp32 whatever the model's dtype.
_ALWAYS_FP32 = {
    "inverse",
    "contexts",
    "normalisers",
    "grad_contexts",
    "grad_normalisers",
    "partial",
    "partial_weight",
}
_FLOATS = {"eps"}
_INTEGERS = {
    "tokens", "rows", "rows_per_program", "tokens_per_program", "programs", "width", "height", "total",
    "heads", "head_dim", "splits",
}  # fmt: skip
#: Sizes that are multiples of 16 in all published models, which lets Triton load vectors.
_ALIGNED = {"width", "total", "head_dim"}


@dataclass(frozen=True)
class Build:
    """One kernel with one configuration and dtype."""

    kernel: Any
    dtype: str
    constants: tuple[tuple[str, Any], ...]
    warps: int

    @property
    def name(self) -> str:
        """The kernel's name."""
        return str(self.kernel.fn.__name__).removesuffix("_kernel")

    @property
    def configuration(self) -> str:
        """What it is compiled with, as one phrase."""
        constants = ", ".join(f"{key.lower()} {value}" for key, value in self.constants)
        return f"{constants}, warps {self.warps}"


@dataclass(frozen=True)
class Usage:
    """What a compiled kernel takes of a multiprocessor: registers a thread, bytes of stack and of shared memory."""

    registers: int
    stack: int
    local: int
    shared: int

    def problem(self, capability: int) -> str | None:
        """Say what is wrong with it, if anything: a spill, all 255 registers, or too much shared memory."""
        if self.stack or self.local:
            return f"spills {max(self.stack, self.local)} bytes of registers to memory"
        if self.registers >= 255:
            return f"takes {self.registers} registers"
        limit = SHARED_MEMORY_LIMITS[capability]
        return f"takes {self.shared} of {limit} bytes of shared memory" if self.shared > limit else None


def builds() -> Iterator[Build]:
    """Yield every kernel with every shipped configuration.

    The tables know element sizes, not formats: bf16 stands for fp16 as well.
    """
    row_kernels = [
        rms_norm_backward_kernel,
        layer_norm_modulate_forward_kernel,
        layer_norm_modulate_backward_kernel,
        gated_residual_forward_kernel,
        gated_residual_backward_kernel,
        attention.inverse_norm_kernel,
    ]
    for dtype, size in (("bf16", 2), ("fp32", 4)):
        for row in NARROW_ROWS:
            yield Build(bias_silu_kernel, dtype, (("BLOCK", row.block), ("ROWS", row.rows)), row.warps)
            for bias, residual in product((False, True), repeat=2):
                form = (("BIAS", bias), ("RESIDUAL", residual), ("BLOCK", row.block), ("ROWS", row.rows))
                yield Build(rms_norm_forward_kernel, dtype, form, row.warps)
        for kernel in row_kernels:
            for row in ROW:
                yield Build(kernel, dtype, (("BLOCK", row.block),), row.warps)
        yield from _attention_builds(dtype, size)
        yield from _depthwise_builds(dtype)


def _depthwise_builds(dtype: str) -> Iterator[Build]:
    strip = DEPTHWISE
    sizes = (("COLUMNS", strip.columns), ("CHANNELS", strip.channels), ("ROWS", strip.rows))
    # The distances of the model of 1.6 billion weights: they are known when the kernel is compiled.
    known = (("HIDDEN", 5600), ("STRIDE_W", 11200))
    for backward in (False, True):
        constants = (*known, ("BACKWARD", backward), *sizes)
        yield Build(depthwise.gated_depthwise_kernel, dtype, constants, strip.warps)
    for back in DEPTHWISE_BACKWARD:
        block = (("COLUMNS", back.columns), ("CHANNELS", back.channels), ("ROWS", back.rows))
        yield Build(depthwise.depthwise_input_backward_kernel, dtype, block, back.warps)
        yield Build(depthwise.depthwise_weight_backward_kernel, dtype, block, back.warps)


def _attention_builds(dtype: str, size: int) -> Iterator[Build]:
    config = ATTENTION[size]
    sizes = (("BLOCK_N", config.block), ("BLOCK_D", config.head_dim))
    for norm in (False, True):
        constants = (("PRECISION", config.precision), ("NORM", norm), *sizes)
        for kernel, tokens in (
            (attention.context_kernel, config.tokens),
            (attention.attend_kernel, config.attended),
            (attention.query_backward_kernel, config.tokens),
            (attention.key_backward_kernel, config.tokens),
        ):
            yield Build(kernel, dtype, (*constants, ("TOKENS", tokens)), config.warps)


def compile_build(build: Build, capability: int) -> Usage:
    """Compile for a compute capability (80, 89 or 90) and return what the machine code takes."""
    names = build.kernel.arg_names
    constants = dict(build.constants)
    signature = {name: _type(name, build.dtype, build.kernel, constants) for name in names}
    attributes = {
        (names.index(name),): [["tt.divisibility", 16]] for name in names if _is_aligned(name, signature)
    }
    source = ASTSource(build.kernel, signature, constexprs=constants, attrs=attributes)
    compiled = triton.compile(
        source, target=GPUTarget("cuda", capability, 32), options={"num_warps": build.warps}
    )
    return _usage(compiled.asm["cubin"], int(compiled.metadata.shared))


def _type(name: str, dtype: str, kernel: Any, constants: dict[str, Any]) -> str:
    if name in constants:
        return "constexpr"
    if name in _FLOATS:
        return "fp32"
    if name in _INTEGERS or name.startswith("stride_"):
        return "i32"
    fp32 = name in _ALWAYS_FP32 or (kernel is attention.inverse_norm_kernel and name == "out")
    return "*fp32" if fp32 else f"*{dtype}"


def _is_aligned(name: str, signature: dict[str, str]) -> bool:
    return signature[name].startswith("*") or name in _ALIGNED or name.startswith("stride_")


def _usage(cubin: bytes, shared: int) -> Usage:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        told = subprocess.run(
            [tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    line = next(line for line in told.splitlines() if "REG:" in line)
    numbers = {key: value for key, _, value in (word.partition(":") for word in line.split())}
    return Usage(int(numbers["REG"]), int(numbers["STACK"]), int(numbers["LOCAL"]), shared)
