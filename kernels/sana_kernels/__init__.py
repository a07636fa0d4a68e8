"""Triton kernels for what SANA's transformer spends memory traffic on, each beside its plain PyTorch reference."""

from sana_kernels.dispatch import (
    Backend,
    KernelError,
    Kernels,
    Operations,
    check_sizes,
    operations,
    resolve_backend,
)

__all__ = ["Backend", "KernelError", "Kernels", "Operations", "check_sizes", "operations", "resolve_backend"]
