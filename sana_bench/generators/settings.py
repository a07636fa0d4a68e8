"""Settings of a variant that only some generators know."""

from sana_bench.errors import SuiteError
from sana_bench.suite import Variant

__all__ = ["refuse_sana_settings"]


def refuse_sana_settings(variant: Variant) -> None:
    """Raise `SuiteError` for a setting that another generator than sana would silently ignore."""
    if variant.model.tiling is not None:
        raise SuiteError(f"variant {variant.name!r}: model.tiling belongs to generator sana")
    if variant.kernels != "auto":
        raise SuiteError(f"variant {variant.name!r}: kernels belongs to generator sana")
    if variant.quantization != "none":
        raise SuiteError(f"variant {variant.name!r}: quantization belongs to generator sana")
