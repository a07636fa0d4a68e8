"""Number formats by the names that variants, judges and metrics give them."""

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import torch

__all__ = ["NumberFormat", "PrecisionSpec", "torch_dtype"]

#: A number format of weights and products.
NumberFormat = Literal["fp32", "bf16", "fp16"]


class PrecisionSpec(BaseModel):
    """The number format of each network. What is left out follows the transformer's, but for fp16, beside which it is fp32."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    transformer: NumberFormat
    text_encoder: NumberFormat | None = None
    autoencoder: NumberFormat | None = None

    @property
    def whole(self) -> "PrecisionSpec":
        """With all three."""
        beside: NumberFormat = "fp32" if self.transformer == "fp16" else self.transformer
        return PrecisionSpec(
            transformer=self.transformer,
            text_encoder=self.text_encoder or beside,
            autoencoder=self.autoencoder or beside,
        )


def torch_dtype(precision: str | None) -> "torch.dtype":
    """Return torch's number format for `fp32`, `bf16` or `fp16`; raises KeyError for anything else."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[str(precision)]
