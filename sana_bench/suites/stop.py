"""When a run may stop before the whole suite is made: the key `stop` of a suite, and `--until`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sana_bench.core.errors import SuiteError, UsageError, nearest
from sana_bench.core.registry import MEASURED, METRICS, SET_METRICS, Limits

__all__ = ["StopRequest", "StopSpec", "chosen_question"]


_DEFAULT_EFFECT = 0.02
# Metrics without a score for an image, and what they have instead.
_OF_SETS = {
    **dict.fromkeys(
        (*SET_METRICS, "vendi"), "judges a set of images as a whole and has no difference by prompt"
    ),
    "oneig_diversity": "holds the images of a prompt against each other and has no score for an image",
}


class StopSpec(BaseModel):
    """The question that a run is to answer: whether two variants differ (`compare`), or how good one is (`width`).

    Of `compare`, B is better or worse than A, or their difference lies within `effect` on either side of 0. An interval is at
    most `width` wide, from end to end. Both are in the metric's unit; without an effect it is 2 % of the metric's range.
    `error` is the chance that a verdict is wrong, however often one looks. `benchmark` and `metric` may be left out where the
    suite leaves no choice; of several metrics it is then the first that can stop a run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    compare: Annotated[tuple[str, str] | None, Field(strict=False)] = None
    width: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    benchmark: str | None = None
    metric: str | None = None
    effect: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    error: float = Field(default=0.05, gt=0, lt=1)

    def size(self, limits: Limits) -> float:
        """The effect; where none is given 2 % of what scores with these limits can differ by."""
        return _DEFAULT_EFFECT * (limits.high - limits.low) if self.effect is None else self.effect

    @model_validator(mode="after")
    def _asks_one_thing(self) -> Self:
        if (self.compare is None) == (self.width is None):
            raise ValueError("give either compare, two variants, or width")
        if self.compare is not None and self.compare[0] == self.compare[1]:
            raise ValueError("compare takes two different variants")
        return self


@dataclass(frozen=True)
class StopRequest:
    """What the command line says: `until` is `decided`, `width=W` or `all`; None stands for what the suite says."""

    until: str | None = None
    compare: tuple[str, ...] | None = None
    effect: float | None = None
    error: float | None = None

    def applied(self, own: StopSpec | None, variants: Sequence[str]) -> StopSpec | None:
        """The question to answer, None for the whole suite; `own` is the suite's, `variants` are those asked for.

        Raises `UsageError` for options that do not go together.
        """
        given = {name: value for name, value in vars(self).items() if value is not None and name != "until"}
        if self.until == "all" or (self.until is None and own is None):
            if given:
                raise UsageError(f"--{next(iter(given))} belongs to --until decided")
            return None
        kept = own.model_dump(exclude_unset=True) if own is not None else {}
        if self.until is not None and self.until.startswith("width="):
            kept = {key: value for key, value in kept.items() if key != "compare"}
            kept["width"] = _number("--until width=", self.until.removeprefix("width="))
        elif self.until not in (None, "decided"):
            raise UsageError(f"--until {self.until}: one of decided, width=NUMBER, all")
        elif self.until is not None or self.compare is not None:
            kept.pop("width", None)
            if "compare" not in kept and self.compare is None:
                kept["compare"] = _only_two(variants)
        try:
            return StopSpec.model_validate({**kept, **given})
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            raise UsageError(_told(problem["loc"], problem["msg"])) from None


def chosen_question(stop: StopSpec, benchmarks: Mapping[str, Sequence[str]]) -> tuple[str, str]:
    """The benchmark and the metric that are asked about; `benchmarks` has the metrics of each by name.

    Raises `SuiteError` for what is not there, for several that fit, and for metrics that no sequence can be made of.
    """
    if stop.benchmark is not None and stop.benchmark not in benchmarks:
        raise SuiteError(f"stop: no benchmark {stop.benchmark!r}{nearest(stop.benchmark, benchmarks)}")
    asked = {name: metrics for name, metrics in benchmarks.items() if stop.benchmark in (None, name)}
    if stop.metric in _OF_SETS:
        raise SuiteError(
            f"stop: {stop.metric} {_OF_SETS[stop.metric]}, so it cannot stop a run; it is measured once all images are there"
        )
    if stop.metric in MEASURED:
        raise SuiteError(f"stop: {stop.metric} is measured while images are made, and cannot stop a run")
    there = [
        (name, metric)
        for name, metrics in asked.items()
        for metric in metrics
        if stop.metric in (None, metric)
    ]
    found = [
        (name, metric) for name, metric in there if metric in METRICS and METRICS.entry(metric).find_limits()
    ]
    if there and not found and stop.metric is not None:
        raise SuiteError(
            f"stop: {stop.metric} is no mean over prompts of scores with limits that are known beforehand, so no look before "
            "the end is safe"
        )
    if not found:
        known = [metric for metrics in asked.values() for metric in metrics]
        lacking = (
            f"metric {stop.metric!r}{nearest(stop.metric, known)}"
            if stop.metric
            else "metric that can stop a run"
        )
        raise SuiteError(f"stop: no {lacking}; the suite has {', '.join(dict.fromkeys(known))}")
    if len({name for name, _ in found}) > 1:
        raise SuiteError(f"stop: say which benchmark: {', '.join(dict.fromkeys(name for name, _ in found))}")
    return found[0]


def _number(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{option}{text}: expected a number, such as {option}0.02") from None


def _only_two(variants: Sequence[str]) -> tuple[str, str]:
    if len(variants) != 2:
        raise UsageError(f"--compare A,B says which two of {', '.join(variants)}")
    return variants[0], variants[1]


def _told(location: tuple[int | str, ...], message: str) -> str:
    reason = message.removeprefix("Value error, ")
    option = f"--{location[0]}" if location else "--until"
    return f"{option}: {reason[:1].lower()}{reason[1:]}"
