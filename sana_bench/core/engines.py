"""The names of the engines, and what a command says of the one to take."""

from dataclasses import dataclass
from typing import Literal, get_args

__all__ = ["ENGINES", "EngineName", "EngineRequest"]

EngineName = Literal["auto", "local", "ray"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)


@dataclass(frozen=True)
class EngineRequest:
    """How the work is to be shared: `address` is that of a running Ray cluster, `timeout_s` the longest that a batch may take."""

    engine: EngineName = "auto"
    workers: int | None = None
    address: str | None = None
    timeout_s: float | None = None
