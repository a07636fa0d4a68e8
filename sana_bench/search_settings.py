"""Settings of inference-time scaling in a variant file."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

__all__ = ["BestOfNSpec", "JudgeSpec"]

# What benchmarks score with: a search that it steers would be judged by its own examiner.
_METRIC_JUDGES = ("detector", "geneval", "mask2former", "micro_detector")


def _check_judge(name: str) -> str:
    if name in _METRIC_JUDGES:
        raise ValueError(
            "that is what the benchmark scores with; choose another judge, such as clip_score or vila"
        )
    return name


class JudgeSpec(BaseModel):
    """Who chooses among candidates; `weights` as for a model, where the judge needs any."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Annotated[str, AfterValidator(_check_judge)]
    weights: str | None = Field(default=None, min_length=1, max_length=500)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"


def _check_power(value: int) -> int:
    if value & (value - 1):
        raise ValueError("must be a power of two: candidates meet in pairs")
    return value


class BestOfNSpec(BaseModel):
    """Inference-time scaling: `candidates` images a search from the wrapped `generator`, of which `keep` become samples.

    `batch_size` candidates are made and judged at once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    generator: str = "sana"
    candidates: Annotated[int, Field(ge=1, le=65536), AfterValidator(_check_power)]
    keep: Annotated[int, Field(ge=1, le=1024), AfterValidator(_check_power)] = 1
    batch_size: int = Field(default=16, ge=1, le=4096)
    judge: JudgeSpec

    @model_validator(mode="after")
    def _keeps_some(self) -> Self:
        if self.keep > self.candidates:
            raise ValueError("keep must not be larger than candidates")
        return self
