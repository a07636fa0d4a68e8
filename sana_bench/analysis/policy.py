"""What matters: by metric, the change that a gate lets fail and that a comparison says how many prompts would show."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from sana_bench.suites.config_files import read_yaml, validate
from sana_bench.suites.find import find_policy

__all__ = ["DEFAULT_POLICY", "Policy", "Rule", "load_policy"]

#: The policy that holds where none is named.
DEFAULT_POLICY = "default"
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Rule(BaseModel):
    """What matters for one metric, in its own units."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    worse_by: _Positive
    too_good_by: _Positive | None = None
    alpha: Annotated[float, Field(gt=0, lt=1)] | None = None
    required: bool = True


class Policy(BaseModel):
    """Rules by metric name (`latency` included)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    schema_version: Literal[1]
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    metrics: Annotated[dict[str, Rule], Field(min_length=1)]

    @property
    def sizes(self) -> dict[str, float]:
        """The smallest change that matters, by metric."""
        return {name: rule.worse_by for name, rule in self.metrics.items()}


def load_policy(policy: str | Path = DEFAULT_POLICY) -> Policy:
    """Read a policy by name or file; raises `SuiteError` with file, line and the nearest key or name."""
    return validate(Policy, read_yaml(find_policy(Path(policy))))
