"""Numbers of a store's runs in order of time, with the steps in them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sana_bench.core.errors import UsageError, nearest
from sana_bench.core.progress import format_moment, say
from sana_bench.core.samples import OVERALL
from sana_bench.core.text import escaped
from sana_bench.results.run_folder import RunFiles, open_store
from sana_bench.results.statistics.steps import Step, detect_steps
from sana_bench.results.stored_suite import StoredSuite

__all__ = ["History", "Point", "collect_histories", "history_lines"]


@dataclass(frozen=True)
class Point:
    """One run's number with its interval."""

    run: str
    created: str
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class History:
    """One metric of one variant over the runs that can be compared: same images asked for, same way of judging."""

    variant: str
    benchmark: str
    metric: str
    protocol: str
    tier: str
    unit: str
    points: list[Point]
    steps: list[Step]


def collect_histories(
    stores: Iterable[Path], *, variant: str | None = None, metric: str | None = None, level: float = 0.01
) -> list[History]:
    """Return the histories of complete overall numbers over the runs of one or more output folders.

    Runs belong together when variant fingerprint, benchmark, prompts, number of images, metric and its identity are the same;
    the prompts of a run whose directory is lost are unknown. One store holds a run of one fingerprint once; repeats over time
    lie in output folders of their own.

    Raises `UsageError` for a folder without a store and for a variant or metric that no run has.
    """
    series: dict[tuple[object, ...], list[tuple[Point, tuple[str, str, str, str, str, str]]]] = {}
    names: dict[str, set[str]] = {"variant": set(), "metric": set()}
    for output in stores:
        with open_store(output) as store:
            for run_id in store.run_ids():
                run = store.run(run_id) or {}
                prompts = _prompts(output, run_id)
                for row in store.summaries(run_id):
                    if row.key != OVERALL or not row.complete:
                        continue
                    names["variant"].add(row.variant)
                    names["metric"].add(row.metric)
                    key = (
                        row.image_key,
                        row.metric_key,
                        row.n_expected,
                        prompts.get(row.benchmark),
                        run["tier"],
                    )
                    head = (row.variant, row.benchmark, row.metric, row.protocol, run["tier"], row.unit)
                    point = Point(run_id, run["created"], row.value, row.low, row.high)
                    series.setdefault(key, []).append((point, head))
    for what, wanted in (("variant", variant), ("metric", metric)):
        if wanted is not None and wanted not in names[what]:
            raise UsageError(f"--{what} {wanted}: no complete run has it{nearest(wanted, names[what])}")
    histories = []
    for rows in series.values():
        rows.sort(key=lambda row: (row[0].created, row[0].run))
        head = rows[-1][1]
        if variant in (None, head[0]) and metric in (None, head[2]):
            points = [point for point, _ in rows]
            histories.append(
                History(*head, points, detect_steps([point.value for point in points], level=level))
            )
    return sorted(histories, key=lambda h: (h.benchmark, h.metric, h.variant, h.points[0].created))


def _prompts(output: Path, run_id: str) -> dict[str, str]:
    """What identifies the prompts of a run's benchmarks; empty where its directory is lost, or damaged, which is told."""
    path = RunFiles(output / "runs" / run_id).suite
    if not path.is_file():
        return {}
    try:
        suite = StoredSuite.read(path)
    except UsageError as error:
        # One damaged run must not take the others down; on standard error, because the histories may be JSON.
        say(f"{error}; which prompts this run had is unknown", error=True)
        return {}
    return {benchmark.name: benchmark.prompts_sha256 for benchmark in suite.benchmarks}


def history_lines(histories: Iterable[History]) -> list[str]:
    """Return a table per history for a terminal; a step stands at the first run of its new level."""
    lines = []
    for history in histories:
        unit = f" ({history.unit})" if history.unit else ""
        lines.append(f"{history.benchmark}/{history.metric} of {history.variant}{unit}, {history.protocol}")
        steps = {step.index: step for step in history.steps}
        for index, point in enumerate(history.points):
            interval = (
                "" if point.low is None or point.high is None else f" [{point.low:.4g}, {point.high:.4g}]"
            )
            line = f"  {format_moment(point.created)}  {point.run}  {point.value:.4g}{interval}"
            if (step := steps.get(index)) is not None:
                line += f"  step: {step.before:.4g} -> {step.after:.4g}, p = {step.p_value:.2g}"
            lines.append(line)
        runs = "run" if len(history.points) == 1 else "runs"
        lines.append(
            f"  {len(history.points)} {runs}, {len(steps) or 'no'} step{'' if len(steps) == 1 else 's'}"
        )
    return [escaped(line, "") for line in lines]
