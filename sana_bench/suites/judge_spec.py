"""The pydantic models of a judge, as variants and metrics name one."""

from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

__all__ = ["JudgeSpec", "ServerSpec"]

# What benchmarks score with: a search that it steers would be judged by its own examiner.
_METRIC_JUDGES = ("detector", "geneval", "mask2former", "micro_detector")


def _check_judge(name: str) -> str:
    if name in _METRIC_JUDGES:
        raise ValueError(
            "that is what the benchmark scores with; choose another judge, such as clip_score or vila"
        )
    return name


def _check_address(address: str) -> str:
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an address such as http://localhost:8000/v1")
    # Suites and what is made of them are passed on.
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ValueError("must hold no key or password; a key is read from the environment")
    return address.rstrip("/")


class ServerSpec(BaseModel):
    """Where a served judge answers, and how it is asked.

    `thinking: false` asks for an answer at once. Up to `at_once` questions are on their way, each waited for `timeout_s` seconds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    address: Annotated[str, Field(max_length=500), AfterValidator(_check_address)]
    top_logprobs: int = Field(default=20, ge=1, le=100_000)
    thinking: bool = True
    at_once: int = Field(default=8, ge=1, le=1024)
    timeout_s: int = Field(default=120, ge=1, le=3600)


class JudgeSpec(BaseModel):
    """Who chooses among candidates or answers a metric's questions; `weights` as for a model, where the judge needs any.

    For a judge behind a `server` they are the model's name there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Annotated[str, AfterValidator(_check_judge)]
    weights: str | None = Field(default=None, min_length=1, max_length=500)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    server: ServerSpec | None = None

    @model_validator(mode="after")
    def _check_server(self) -> Self:
        if self.server is not None and self.name != "served":
            raise ValueError("server belongs to the judge served")
        return self

    @model_serializer(mode="wrap")
    def _named(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = dump(self)
        # Only where there is one: what other judges chose keeps the identity that it had.
        return {name: value for name, value in found.items() if name != "server" or value is not None}
