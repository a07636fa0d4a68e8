"""What the built-in loggers write: parameters and numbers by variant, and the report's files."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sana_bench.core.fingerprint import sha256_bytes

__all__ = ["LoggedValue", "TrackingLogger", "TrainingLog", "VariantLog"]

# What the names of parameters and metrics may have in all of the services.
_OTHER = re.compile(r"[^A-Za-z0-9_./ -]")
# What a part of a metric's name may have: the slash parts it, and the point comes before a bound.
_OTHER_IN_PART = re.compile(r"[^A-Za-z0-9_ -]")


@dataclass(frozen=True)
class LoggedValue:
    """One number and how many images it is about."""

    value: float
    images: int


@dataclass(frozen=True)
class VariantLog:
    """One variant of a run.

    `metrics` has `benchmark/metric/key`, and `.low` and `.high` beside it where there is an interval, and `.n_samples`. `key`
    is the same each time the run is resumed.
    """

    run_id: str
    suite: str
    variant: str
    key: str
    state: str
    parameters: dict[str, str]
    metrics: dict[str, LoggedValue]
    files: list[Path]


@dataclass(frozen=True)
class TrainingLog:
    """A training: its name and folder's key, the same each time it is continued, its flat settings, the first step told."""

    name: str
    key: str
    parameters: dict[str, str]
    step: int


class TrackingLogger(ABC):
    """Collects a run and writes it variant by variant at the end, over what an earlier command wrote of it.

    Of a training it writes row by row, as they come.
    """

    def __init__(self, run_directory: Path) -> None:
        self.directory = run_directory
        self._run: dict[str, Any] = {}
        self._summaries: list[dict[str, Any]] = []

    def on_run_start(self, run: dict[str, Any]) -> None:
        """Keep the description of the run."""
        self._run = run

    def on_summary(self, summary: dict[str, Any]) -> None:
        """Keep a number."""
        self._summaries.append(summary)

    def on_run_end(self, result: dict[str, Any]) -> None:
        """Write every variant."""
        for described in self._run["variants"]:
            self.write(self._variant_log(described, result))

    def on_training_start(self, training: dict[str, Any]) -> None:
        """Open what the rows go to."""
        parameters = {_safe(key): str(value) for key, value in _flat(training["config"]).items()}
        key = sha256_bytes(f"{self.directory.resolve()}\n{training['name']}".encode())[:16]
        self.open_training(TrainingLog(training["name"], key, parameters, training["step"]))

    @abstractmethod
    def on_training_row(self, row: dict[str, Any]) -> None:
        """Write the numbers and pictures (files) of a step."""

    @abstractmethod
    def on_training_end(self, result: dict[str, Any]) -> None:
        """Close what the rows went to."""

    @abstractmethod
    def open_training(self, log: TrainingLog) -> None:
        """Open a training's entry, or the one that it has already."""

    @abstractmethod
    def write(self, log: VariantLog) -> None:
        """Write one variant in place of an earlier version of it."""

    def _variant_log(self, described: Mapping[str, Any], result: Mapping[str, Any]) -> VariantLog:
        name, run = described["name"], self._run
        own = [row for row in self._summaries if row["variant"] == name]
        parameters = {
            "run": run["run_id"],
            "run_fingerprint": run["fingerprint"],
            "suite": run["name"],
            "tier": run["tier"],
            "seed": run["seed"],
            **_flat(described),
            **{f"protocol/{row['benchmark']}/{row['metric']}": row["protocol"] for row in own},
        }
        report = self.directory / "report"
        return VariantLog(
            run_id=run["run_id"],
            suite=run["name"],
            variant=name,
            key=sha256_bytes(f"{run['run_id']}\n{name}".encode())[:16],
            state=result["state"],
            parameters={_safe(key): str(value) for key, value in parameters.items() if value is not None},
            metrics=_metrics(own),
            files=sorted(path for path in report.rglob("*") if path.is_file()),
        )


def _metrics(summaries: list[dict[str, Any]]) -> dict[str, LoggedValue]:
    found: dict[str, LoggedValue] = {}
    for row in summaries:
        name = "/".join(_safe(str(row[part]), _OTHER_IN_PART) for part in ("benchmark", "metric", "key"))
        values = {"": row["value"], ".low": row["low"], ".high": row["high"], ".n_samples": row["n_samples"]}
        found |= {
            f"{name}{end}": LoggedValue(float(value), int(row["n_samples"]))
            for end, value in values.items()
            if value is not None
        }
    return found


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _safe(text: str, other: re.Pattern[str] = _OTHER) -> str:
    """A name that the services take; one that had to be changed ends in a hash of what it was, so that two stay two."""
    safe = other.sub("_", text)
    return safe if safe == text else f"{safe}-{sha256_bytes(text.encode())[:8]}"
