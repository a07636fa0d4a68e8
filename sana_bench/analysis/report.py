"""From a stored run to `sana_reports`' plain data, and to the report files."""

import math
import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from sana_bench.analysis.compare import compare_with_first
from sana_bench.analysis.comparison import MetricComparison
from sana_bench.analysis.gains import Gains, image_cost, run_gains
from sana_bench.analysis.latency_tables import latency_tables
from sana_bench.core import atomic
from sana_bench.core.cut_texts import cut_lines
from sana_bench.core.errors import UsageError, nearest
from sana_bench.core.progress import format_moment
from sana_bench.core.registry import MEASURED
from sana_bench.core.samples import OVERALL
from sana_bench.results.reader import RunResults, SampleResult, VariantResults, read_run
from sana_bench.results.run_folder import RunFiles, open_store
from sana_bench.results.schema import SummaryRecord
from sana_bench.results.sequences import StoredSequence
from sana_bench.results.store import Store
from sana_reports import (
    KINDS,
    Gain,
    Latency,
    LookCell,
    ReportData,
    ReportPaths,
    SampleCell,
    SequenceCell,
    SequenceTask,
    SummaryCell,
    VariantInfo,
    Verdict,
)

__all__ = ["build_report_data", "regenerate_report", "write_run_report"]

# A heading names so many variants; more are counted.
_NAMED = 4
_SETTINGS = (
    "generator",
    "model",
    "sampler",
    "precision",
    "quantization",
    "prompt_rewrites",
    "weights_sha256",
)
# What most variants leave as it is.
_SELDOM_SET = ("tf32", "compile", "cuda_graphs")


def regenerate_report(files: RunFiles) -> tuple[str, ReportPaths]:
    """Write the report of a finished or unfinished run again; raises `UsageError` when its store is gone."""
    with open_store(files.directory.resolve().parents[1]) as store:
        return write_run_report(store, files)


def write_run_report(store: Store, files: RunFiles) -> tuple[str, ReportPaths]:
    """Write the report of a run; return the terminal table and the files."""
    from sana_reports import render_terminal, write_report

    run = read_run(store, files)
    data = build_report_data(store, run)
    if len(run.variants) > 1:
        data = _compared(data, run)
    return render_terminal(data), write_report(data, files.report, write=atomic.write_text)


def build_report_data(store: Store, run: RunResults) -> ReportData:
    """The numbers, images and verdicts of a run, as a report shows them."""
    provenance = run.row["provenance"]
    gains = run_gains(run)
    names = list(run.variants)
    reasons = [
        f"{name}: {reason}"
        for name, variant in run.variants.items()
        for found in variant.reasons.values()
        for reason in found
    ]
    return ReportData(
        title=f"{run.suite.name}: {', '.join(names) if len(names) <= _NAMED else f'{len(names)} variants'}",
        suite_name=run.suite.name,
        tier=run.suite.tier,
        tier_reason=str(provenance.get("tier_reason", "")),
        created=format_moment(str(run.row["created"])),
        fingerprint=str(run.row["fingerprint"]),
        complete=not reasons,
        incomplete_reasons=reasons,
        variants=[_variant_info(variant, provenance) for variant in run.variants.values()],
        summaries=[
            _summary_cell(row, variant, gains)
            for variant in run.variants.values()
            for row in variant.summaries
        ],
        samples=[
            _sample_cell(sample, variant) for variant in run.variants.values() for sample in variant.samples
        ],
        provenance=provenance,
        cut_texts=cut_lines(provenance.get("events", ())),
        selfcheck=str(provenance.get("selfcheck", {}).get("summary", "")),
        devices=_mixed_devices(provenance),
        prompt_licences=provenance.get("prompt_licences", {}),
        speed_tables=latency_tables(store, run),
        palette=store.variant_names(),
        sequences=[_sequence_cell(one) for one in run.sequences],
        benchmark_settings={one.name: one.settings for one in run.suite.benchmarks if one.settings},
    )


def _sequence_cell(sequence: StoredSequence) -> SequenceCell:
    last = sequence.last
    return SequenceCell(
        benchmark=last.benchmark,
        metric=last.metric,
        variant=last.variant,
        against=last.against or "",
        rule=sequence.rule,
        verdict=last.verdict,
        finding=sequence.finding,
        answered=sequence.answered,
        n_expected=last.n_expected,
        effect=last.effect,
        looks=[
            LookCell(n_images=look.n_images, value=look.value, low=look.low, high=look.high)
            for look in sequence.looks
        ],
        tasks=[
            SequenceTask(
                key=key, n_prompts=task["prompts"], value=task["value"], p_value=task.get("p_value", math.nan)
            )
            for key, task in last.tasks.items()
        ],
    )


def _compared(data: ReportData, run: RunResults) -> ReportData:
    """The report with its verdicts, and their intervals in the gains over the first variant that have none of their own."""
    first, verdicts = next(iter(run.variants)), _verdicts(run)
    found = {(one.variant, one.benchmark, one.metric): one.gain for one in verdicts if one.key == OVERALL}
    summaries = []
    for cell in data.summaries:
        gain = found.get((cell.variant, cell.benchmark, cell.metric))
        bare = cell.gain is not None and cell.gain.over == first and not math.isfinite(cell.gain.low)
        summaries.append(replace(cell, gain=gain) if bare and gain is not None else cell)
    return replace(data, compared_with=first, verdicts=verdicts, summaries=summaries)


def _verdicts(run: RunResults) -> list[Verdict]:
    """What `compare` says of every variant against the first, metric by metric."""
    first, *others = run.variants.values()
    units = {(row.benchmark, row.metric): row.unit for row in run.summaries}
    by_row = [
        (other.name, row)
        for other, comparison in zip(others, compare_with_first(run), strict=True)
        for row in comparison.metrics
        # What the generation of images took is no question where they existed already.
        if row.benchmark or (first.described.generates and other.described.generates)
    ]
    return [
        Verdict(
            variant=name,
            benchmark=row.benchmark,
            metric=row.metric,
            key=row.key,
            unit="share" if row.metric == "latency" else units.get((row.benchmark, row.metric), ""),
            higher_is_better=row.higher_is_better,
            outcome=row.verdict,
            reason=row.reason,
            gain=_gain(first.name, row),
        )
        for name, row in by_row
    ]


def _gain(over: str, row: MetricComparison) -> Gain | None:
    effect = row.effect
    if effect is None:
        return None
    return Gain(over=over, difference=effect.difference, low=effect.low, high=effect.high)


def _variant_info(variant: VariantResults, provenance: Mapping[str, Any]) -> VariantInfo:
    """A variant with the size of its model as the run recorded it, and what its images cost."""
    described = variant.described
    if described.kind not in KINDS:
        raise UsageError(
            f"variant {variant.name}: unknown kind {described.kind!r}{nearest(described.kind, KINDS)}"
        )
    size = provenance.get("models", {}).get(variant.name, {})
    costs = {name: image_cost(variant, name, size.get("image_flops")) for name in variant.recorded}
    return VariantInfo(
        name=variant.name,
        fingerprint=described.fingerprint,
        description=described.description,
        kind=described.kind,
        derived_from=described.derived_from,
        settings=_settings(described.settings),
        latency=_measured_latency(variant) or _latency(variant, provenance),
        parameters=size.get("parameters"),
        depth=size.get("depth"),
        rewritten=described.rewritten,
        published=described.published,
        cut_from=size.get("cut_from", ""),
        cut_from_depth=size.get("cut_from_depth"),
        costs={name: cost for name, cost in costs.items() if cost is not None},
        incomplete_reasons=[reason for found in variant.reasons.values() for reason in found],
    )


def _settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: settings[key] for key in _SETTINGS if key in settings}
    return found | {
        key: settings[key] for key in _SELDOM_SET if settings.get(key) not in (None, False, "none")
    }


def _measured_latency(variant: VariantResults) -> Latency | None:
    """The median that the latency benchmark found, if the run has it."""
    row = next((row for row in variant.summaries if row.metric == "latency"), None)
    if row is None or not row.complete:
        return None
    return Latency(
        value_ms=row.value,
        low_ms=math.nan if row.low is None else row.low,
        high_ms=math.nan if row.high is None else row.high,
        n_images=row.n_samples,
        device=variant.device(row),
        note="one image at a time, warm: median with its 95 % interval",
    )


def _mixed_devices(provenance: Mapping[str, Any]) -> str:
    """A line that names the devices where images and scores come from several kinds; else empty."""
    counts: dict[str, Counter[str]] = {}
    for worker in provenance.get("workers", {}).values():
        own = counts.setdefault(str(worker.get("device_name")), Counter())
        own.update(images=worker.get("n_images", 0), scores=worker.get("n_scores", 0))
    if len(counts) < 2:
        return ""
    kinds = "; ".join(
        f"{own['images']} images and {own['scores']} scores on {kind}" for kind, own in sorted(counts.items())
    )
    return f"Mixed devices, whose numbers may differ in their last bits: {kinds}."


def _latency(variant: VariantResults, provenance: Mapping[str, Any]) -> Latency | None:
    """Median time per image with the 20th and 80th percentile, over the batches as they were generated.

    None where nothing was generated, and for images of several devices: their times have no common median.
    """
    rows = [sample.image for sample in variant.samples if sample.image.seconds]
    devices = {row.device for row in rows}
    if len(rows) < 2 or len(devices) > 1:
        return None
    (device,) = devices
    batches = variant.batch_ms
    fifths = statistics.quantiles(batches, n=5, method="inclusive") if len(batches) > 1 else [math.nan] * 4
    spread = "p20 to p80" if len(batches) > 1 else "of one batch, so without a spread"
    sizes = sorted({row.batch_size for row in rows if row.batch_size})
    return Latency(
        value_ms=statistics.median(batches),
        low_ms=fifths[0],
        high_ms=fifths[3],
        n_images=len(rows),
        device=str(provenance.get("device_name", "") if device == provenance.get("device") else device),
        note=f"batch time / batch size, {spread}; batches of {', '.join(map(str, sizes))}",
    )


def _sample_cell(one: SampleResult, variant: VariantResults) -> SampleCell:
    verdict = next((record for record in one.scores.values() if "correct" in record.details), None)
    details = verdict.details if verdict is not None else {}
    return SampleCell(
        variant=one.sample.variant,
        benchmark=one.benchmark,
        prompt_id=one.prompt.id,
        index=one.index,
        prompt=one.prompt.text,
        given=variant.rewrites.get(one.benchmark, {}).get(one.prompt.id, ""),
        tag=one.prompt.tag,
        image_path=one.sample.image_path,
        correct=details.get("correct"),
        reasons=details.get("reasons", ()),
        detections=details.get("detections", ()),
        scores={metric: record.value for metric, record in one.scores.items() if record is not verdict},
        answers=[answer for record in one.scores.values() for answer in record.details.get("answers", ())],
        rewards={
            metric: record.details["reward"]
            for metric, record in one.scores.items()
            if "reward" in record.details
        },
    )


def _summary_cell(row: SummaryRecord, variant: VariantResults, gains: Gains) -> SummaryCell:
    bounds = {
        "low": math.nan if row.low is None else row.low,
        "high": math.nan if row.high is None else row.high,
    }
    gain = gains.get((row.variant, row.benchmark, row.metric)) if row.key == OVERALL else None
    shared = {name.name for name in fields(SummaryCell)} & {name.name for name in fields(SummaryRecord)}
    cell = SummaryCell(**{name: getattr(row, name) for name in shared} | bounds, gain=gain)
    if row.metric not in MEASURED:
        return cell
    batch_size = variant.identities.get(row.metric_key, {}).get("batch_size")
    return replace(cell, device=variant.device(row), batch_size=batch_size)
