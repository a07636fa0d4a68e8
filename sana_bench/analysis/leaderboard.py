"""From every run of an output folder to `sana_reports`' leaderboard: who may be ranked with whom."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from sana_bench.analysis import model_size
from sana_bench.analysis.contributions import contributions
from sana_bench.analysis.gains import Scores, metric_scores, paired_gain
from sana_bench.analysis.report import build_report_data
from sana_bench.assets.locate import resolve_weights
from sana_bench.core import atomic
from sana_bench.core.errors import AssetError, BenchError, UsageError, nearest
from sana_bench.core.fingerprint import FileHashes, HashCache, fingerprint, pipeline_sha256
from sana_bench.core.samples import OVERALL
from sana_bench.core.tiers import TIERS, unknown_tier
from sana_bench.profiling.identity import PROTOCOLS, comparable
from sana_bench.results.reader import RunResults, VariantResults, read_run
from sana_bench.results.run_folder import DEFAULT_OUTPUT, RunFiles, open_store
from sana_bench.results.schema import SummaryRecord
from sana_bench.results.statistics.intervals import t_interval
from sana_bench.results.store import Store
from sana_bench.results.stored_suite import StoredBenchmark
from sana_models.files import first_line
from sana_reports import SummaryCell, VariantInfo
from sana_reports.leaderboard_data import Column, Contrast, Entry, Incomplete, Leaderboard, Table

__all__ = ["collect_leaderboard", "count_parameters", "leaderboard", "paired_contrast", "weights_sha256"]

_LEVEL = 0.95


@dataclass(frozen=True)
class _Result:
    """A complete variant of one run on one benchmark, with its values by image and by prompt for each metric."""

    tier: str
    benchmark: str
    workload: str
    columns: tuple[Column, ...]
    entry: Entry
    scores: Mapping[str, Scores]
    values: Mapping[str, Mapping[str, tuple[str, float]]]
    settings: Mapping[str, Any]


def collect_leaderboard(
    output: Path, *, link_from: Path | None = None, tier: str | None = None, benchmark: str | None = None
) -> Leaderboard:
    """Collect the newest complete result of each variant, and what is incomplete, from all runs of `output`.

    `link_from` is the folder the leaderboard is written into, None for no links to reports.
    Raises `UsageError` when there is no store, or none of its runs has `benchmark`.
    """
    results: list[_Result] = []
    incomplete: list[Incomplete] = []
    known: set[str] = set()
    timed: list[Entry] = []
    with open_store(output) as store:
        # Variants share weights of many gigabytes: no file is hashed twice, nor one that a run has hashed.
        hashes = FileHashes(store.file_hashes())
        palette = store.variant_names()
        for run_id in sorted(store.run_ids()):
            run = store.run(run_id)
            if run is None or tier not in (None, run["tier"]):
                continue
            directory = output / "runs" / run_id
            if not RunFiles(directory).suite.is_file():
                reason = "its run directory is missing from this output folder"
                incomplete += _unreadable(store, run_id, run["tier"], reason)
                continue
            try:
                done, short = _read_run(store, RunFiles(directory), link_from, hashes)
            except (BenchError, OSError, LookupError, TypeError, ValueError) as error:
                # One damaged run must not take the others down.
                reason = (
                    str(error)
                    if isinstance(error, BenchError)
                    else f"{directory}: damaged ({first_line(error)})"
                )
                incomplete += _unreadable(store, run_id, run["tier"], reason)
                continue
            known |= {row.benchmark for row in done}
            timed += [
                row.entry for row in done if row.benchmark == "latency" and row.entry.latency is not None
            ]
            results += [row for row in done if benchmark in (None, row.benchmark)]
            incomplete += short
    known |= {row.benchmark for row in incomplete}
    incomplete = [row for row in incomplete if benchmark in (None, row.benchmark)]
    if benchmark is not None and benchmark not in known:
        raise UsageError(f"--benchmark {benchmark}: no run has it{nearest(benchmark, known)}")
    results = _with_measured_latency(results, timed)
    return Leaderboard(tables=_tables(results), incomplete=incomplete, palette=palette)


def leaderboard(
    output: str | Path = DEFAULT_OUTPUT,
    *,
    to: str | Path | None = None,
    tier: str | None = None,
    benchmark: str | None = None,
) -> Leaderboard:
    """Rank every variant of an output folder as far as the evidence goes, as `sana-bench leaderboard` does.

    Args:
        output: folder of runs and of the result store.
        to: where to write `leaderboard.{html,md,csv,tex}`; nowhere by default.
        tier: only this tier.
        benchmark: only this benchmark.

    Raises:
        UsageError: no result store, an unknown tier, or a benchmark that no run has.
    """
    if tier not in (None, *TIERS):
        raise unknown_tier("leaderboard", str(tier))
    folder = None if to is None else Path(to)
    board = collect_leaderboard(Path(output), link_from=folder, tier=tier, benchmark=benchmark)
    if folder is not None:
        from sana_reports.leaderboard import write_leaderboard

        write_leaderboard(board, folder, write=atomic.write_text)
    return board


def _unreadable(store: Store, run_id: str, tier: str, reason: str) -> list[Incomplete]:
    """What the store knows of a run whose directory is gone or damaged."""
    rows = dict.fromkeys((row.variant, row.benchmark) for row in store.summaries(run_id))
    return [
        Incomplete(variant=variant, tier=tier, benchmark=benchmark, run=run_id, reasons=[reason])
        for variant, benchmark in rows or [("all variants", "")]
    ]


def _with_measured_latency(results: list[_Result], timed: list[Entry]) -> list[_Result]:
    """Give a variant the newest time that the latency benchmark took of it, in whatever run, instead of batch times."""
    newest = {entry.fingerprint: entry.latency for entry in sorted(timed, key=lambda e: (e.created, e.run))}
    return [
        replace(row, entry=replace(row.entry, latency=newest.get(row.entry.fingerprint) or row.entry.latency))
        for row in results
    ]


def _read_run(
    store: Store, files: RunFiles, link_from: Path | None, hashes: HashCache
) -> tuple[list[_Result], list[Incomplete]]:
    run = read_run(store, files)
    data = build_report_data(store, run)
    infos = {info.name: info for info in data.variants}
    link = None
    if link_from is not None and (files.report / "report.html").is_file():
        link = quote(
            Path(os.path.relpath(files.report.resolve() / "report.html", link_from.resolve())).as_posix()
        )
    results, incomplete = [], []
    for variant in run.variants.values():
        for benchmark, reasons in variant.reasons.items():
            if reasons:
                short = Incomplete(
                    variant=variant.name,
                    tier=run.suite.tier,
                    benchmark=benchmark,
                    run=run.run_id,
                    reasons=reasons,
                )
                incomplete.append(short)
                continue
            cells = {
                cell.metric: cell
                for cell in data.summaries
                if (cell.variant, cell.benchmark, cell.key) == (variant.name, benchmark, OVERALL)
            }
            entry = _entry(run, variant, benchmark, infos[variant.name], cells, link, hashes)
            results.append(_result(run, variant, run.benchmarks[benchmark], entry))
    return results, incomplete


def _entry(
    run: RunResults,
    variant: VariantResults,
    benchmark: str,
    info: VariantInfo,
    cells: Mapping[str, SummaryCell],
    link: str | None,
    hashes: HashCache,
) -> Entry:
    described = variant.described
    weights, sha256 = described.weights, described.weights_sha256
    return Entry(
        variant=variant.name,
        fingerprint=info.fingerprint,
        description=info.description,
        kind=info.kind,
        derived_from=info.derived_from,
        run=run.run_id,
        created=str(run.row["created"]),
        weights=weights,
        weights_sha256=sha256,
        parameters=info.parameters or count_parameters(weights, sha256, hashes, described.weights_variant),
        depth=info.depth,
        cut_from=info.cut_from,
        cut_from_depth=info.cut_from_depth,
        rewritten=info.rewritten,
        published=info.published,
        settings=info.settings if info.published else {},
        cost=info.costs.get(benchmark),
        latency=info.latency,
        numbers=cells,
        report=link,
    )


def _result(run: RunResults, variant: VariantResults, benchmark: StoredBenchmark, entry: Entry) -> _Result:
    overall = variant.overall(benchmark.name)
    scores = {metric: metric_scores(variant, benchmark.name, metric) for metric in overall}
    values: dict[str, Mapping[str, tuple[str, float]]] = {}
    for metric, scored in scores.items():
        by_prompt: dict[str, list[float]] = {}
        for (prompt, _), value in zip(scored, contributions(metric, list(scored.values())), strict=True):
            by_prompt.setdefault(prompt, []).append(value)
        if by_prompt and all(len(found) == benchmark.images_per_prompt for found in by_prompt.values()):
            prompts = run.prompts[benchmark.name]
            values[metric] = {
                key: (prompts[key].tag, float(np.mean(by_prompt[key]))) for key in sorted(by_prompt)
            }
    workload = fingerprint(
        {
            "prompts": benchmark.prompts_sha256,
            "images_per_prompt": benchmark.images_per_prompt,
            **({"settings": benchmark.settings} if benchmark.settings else {}),
            "metrics": sorted(
                (row.metric, row.protocol, _evaluator(variant, row)) for row in overall.values()
            ),
        }
    )
    columns = tuple(
        Column(metric=row.metric, protocol=row.protocol, unit=row.unit, higher_is_better=row.higher_is_better)
        for row in sorted(overall.values(), key=lambda row: benchmark.metrics.index(row.metric))
    )
    settings = benchmark.settings
    return _Result(run.suite.tier, benchmark.name, workload[:12], columns, entry, scores, values, settings)


def _evaluator(variant: VariantResults, row: SummaryRecord) -> str:
    """Identity of what a metric measured with; for times this is the device, whatever the variant."""
    if row.metric not in PROTOCOLS:
        return row.metric_key
    return fingerprint(comparable(variant.identities[row.metric_key]))


def _tables(results: Iterable[_Result]) -> list[Table]:
    groups: dict[tuple[str, str, str], list[_Result]] = {}
    for result in results:
        groups.setdefault((result.tier, result.benchmark, result.workload), []).append(result)
    tables = []
    for (tier, benchmark, workload), found in sorted(groups.items()):
        chosen = _newest(found)
        tables.append(
            Table(
                tier=tier,
                benchmark=benchmark,
                workload=workload,
                columns=chosen[0].columns,
                settings=chosen[0].settings,
                entries=[_with_gains(result, chosen) for result in chosen],
                contrasts=_contrasts(chosen),
            )
        )
    return tables


def _newest(results: list[_Result]) -> list[_Result]:
    """One result per variant fingerprint: the newest, with the runs of the others in `other_runs`."""
    by_variant: dict[str, list[_Result]] = {}
    for result in sorted(results, key=lambda r: (r.entry.created, r.entry.run), reverse=True):
        by_variant.setdefault(result.entry.fingerprint, []).append(result)
    chosen = []
    for newest, *older in by_variant.values():
        entry = replace(newest.entry, other_runs=[result.entry.run for result in older])
        chosen.append(replace(newest, entry=entry))
    return sorted(chosen, key=lambda r: (r.entry.variant, r.entry.fingerprint))


def _with_gains(result: _Result, results: list[_Result]) -> Entry:
    """The entry with its gains over what it was made from, be that from another run; its own run's goes before others'."""
    entry = result.entry
    bases = [other for other in results if other.entry.variant == entry.derived_from]
    bases.sort(key=lambda other: (other.entry.run == entry.run, other.entry.created))
    numbers = {name: replace(cell, gain=None) for name, cell in entry.numbers.items()}
    if bases:
        base = bases[-1]
        for name, cell in numbers.items():
            if name not in PROTOCOLS and name in base.entry.numbers:
                difference = cell.value - base.entry.numbers[name].value
                scores = (base.scores.get(name, {}), result.scores.get(name, {}))
                gain = paired_gain(base.entry.variant, name, scores, difference)
                numbers[name] = replace(cell, gain=gain)
    return replace(entry, numbers=numbers)


def _contrasts(results: list[_Result]) -> list[Contrast]:
    pairs = list(combinations(results, 2))
    contrasts = []
    for column in results[0].columns:
        for left, right in pairs:
            a, b = left.values.get(column.metric), right.values.get(column.metric)
            if a is None or b is None or a.keys() != b.keys():
                continue
            by_task = _is_mean_of_tasks(a, left.entry.numbers[column.metric].value)
            if by_task is None:
                continue
            strata = [tag for tag, _ in a.values()] if by_task else [""] * len(a)
            differences = [b[key][1] - a[key][1] for key in a]
            found = paired_contrast(differences, strata, level=1 - (1 - _LEVEL) / len(pairs))
            if found is not None:
                difference, low, high = found
                contrasts.append(
                    Contrast(
                        metric=column.metric,
                        left=left.entry.fingerprint,
                        right=right.entry.fingerprint,
                        difference=difference,
                        low=low,
                        high=high,
                        n_prompts=len(differences),
                    )
                )
    return contrasts


def _is_mean_of_tasks(values: Mapping[str, tuple[str, float]], overall: float) -> bool | None:
    """Whether the metric's overall number is the mean of its task means, or of all prompts; None for neither.

    Only such a number has a paired difference by prompt (a Fréchet distance has none).
    """
    tasks: dict[str, list[float]] = {}
    for tag, value in values.values():
        tasks.setdefault(tag, []).append(value)
    # Both sides are float64 means of the same few thousand values.
    if np.isclose(np.mean([np.mean(found) for found in tasks.values()]), overall, rtol=1e-9, atol=1e-12):
        return True
    if np.isclose(np.mean([value for _, value in values.values()]), overall, rtol=1e-9, atol=1e-12):
        return False
    return None


def paired_contrast(
    differences: list[float], strata: list[str], *, level: float
) -> tuple[float, float, float] | None:
    """Mean of stratum means of per-prompt differences with its t interval; None with a stratum of one prompt.

    Prompts are the independent units: images of one prompt are averaged before. Degrees of freedom by
    Welch and Satterthwaite.
    """
    found = t_interval(differences, range(len(differences)), strata, level=level)
    return None if np.isnan(found.low) else (found.value, found.low, found.high)


def weights_sha256(weights: str) -> str:
    """Hash of the plain weights that `weights` names on this machine; raises `AssetError` when they are missing."""
    return pipeline_sha256(resolve_weights(weights, Path.cwd()))


def count_parameters(
    weights: str, sha256: str, hashes: HashCache | None = None, weights_variant: str | None = None
) -> int | None:
    """Parameters of the denoising network by its safetensors headers; None if these weights are not at hand."""
    try:
        directory = resolve_weights(weights, Path.cwd(), weights_variant)
        if pipeline_sha256(directory, hashes, weights_variant) != sha256:
            return None
    except (AssetError, OSError):
        return None
    return model_size.count_parameters(directory, weights_variant)
