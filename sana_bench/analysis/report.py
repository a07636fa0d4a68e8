"""From a run directory and the result store to `sana_reports`' plain data, and to the report files."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from sana_bench.analysis.gains import image_cost, run_gains
from sana_bench.analysis.latency_tables import latency_sheets
from sana_bench.core.errors import UsageError, nearest
from sana_bench.core.fingerprint import image_key
from sana_bench.core.samples import Prompt
from sana_bench.results.run_folder import RunFiles, image_path
from sana_bench.results.schema import ImageRow, ScoreRecord, SummaryRecord
from sana_bench.results.store import Store
from sana_bench.suites.load import FULL
from sana_reports import KINDS, Gain, Latency, ReportData, ReportPaths, SampleCell, SummaryCell, VariantInfo

__all__ = ["build_report_data", "regenerate_report", "write_run_report"]

# A heading names so many variants; more are counted.
_NAMED = 4


def regenerate_report(files: RunFiles) -> tuple[str, ReportPaths]:
    """Write the report of a finished or unfinished run again; raises `UsageError` when its store is gone."""
    output = files.directory.resolve().parents[1]
    store = Store.open_existing(output)
    if store is None:
        raise UsageError(f"{files.directory}: there is no result store in {output}")
    with store:
        run = store.run(files.directory.resolve().name)
        if run is None:
            raise UsageError(f"{files.directory}: the store in {output} does not know this run")
        return _write(build_report_data(store, files, run["provenance"]), files)


def write_run_report(store: Store, files: RunFiles, provenance: Mapping[str, Any]) -> tuple[str, ReportPaths]:
    """Write the report of a run; return the terminal table and the files."""
    return _write(build_report_data(store, files, provenance), files)


def _write(data: ReportData, files: RunFiles) -> tuple[str, ReportPaths]:
    from sana_reports import render_terminal, write_report

    return render_terminal(data), write_report(data, files.report)


def build_report_data(store: Store, files: RunFiles, provenance: Mapping[str, Any]) -> ReportData:
    """Collect the numbers, images and verdicts of a run."""
    resolved = yaml.safe_load(files.suite.read_text(encoding="utf-8"))
    run = store.run(files.directory.resolve().name) or {}
    summaries = store.summaries(files.directory.resolve().name)
    variants, samples, reasons = [], [], []
    for described in resolved["variants"]:
        images = {
            b["name"]: store.images(image_key(described["fingerprint"], b["name"]))
            for b in resolved["benchmarks"]
        }
        own = _incomplete_reasons(described["name"], resolved["benchmarks"], images, summaries)
        reasons += [f"{described['name']}: {reason}" for reason in own]
        rows = [row for found in images.values() for row in found.values()]
        info = _variant_info(described, rows, own, summaries, provenance)
        variants.append(_with_costs(info, described, resolved["benchmarks"], images, provenance))
        for name, found in images.items():
            samples += _samples(store, files, described, name, found, summaries)
    order = {described["name"]: position for position, described in enumerate(resolved["variants"])}
    prompts = {b["name"]: files.read_prompts(b["name"]) for b in resolved["benchmarks"]}
    gains = run_gains(store, resolved, prompts, summaries)
    return ReportData(
        title=f"{resolved['name']}: {', '.join(order) if len(order) <= _NAMED else f'{len(order)} variants'}",
        suite_name=resolved["name"],
        tier=resolved["tier"],
        tier_reason=str(provenance.get("tier_reason", "")),
        created=str(run.get("created", "")),
        fingerprint=str(run.get("fingerprint", "")),
        complete=not reasons,
        incomplete_reasons=reasons,
        variants=variants,
        summaries=[
            _summary_cell(row, gains) for row in sorted(summaries, key=lambda row: order[row.variant])
        ],
        samples=samples,
        provenance=provenance,
        selfcheck=str(provenance.get("selfcheck", {}).get("summary", "")),
        sheets=latency_sheets(store, files, resolved),
    )


def _incomplete_reasons(
    variant: str,
    benchmarks: list[dict[str, Any]],
    images: Mapping[str, Mapping[tuple[str, int], ImageRow]],
    summaries: list[SummaryRecord],
) -> list[str]:
    reasons = []
    for benchmark in benchmarks:
        name = benchmark["name"]
        expected = benchmark["n_prompts"] * benchmark["images_per_prompt"]
        rows = [row for row in images[name].values() if row.index < benchmark["images_per_prompt"]]
        made = sum(row.status == "ok" for row in rows)
        failed = sum(row.status == "failed" for row in rows)
        if made < expected:
            reasons.append(f"{name} has {made}/{expected} images" + (f", {failed} failed" if failed else ""))
        own = [row for row in summaries if row.variant == variant and row.benchmark == name]
        covered = {row.metric for row in own}
        lacking = [metric for metric in benchmark["metrics"] if metric not in covered]
        if lacking and made:
            reasons.append(f"{name} has no {', '.join(lacking)}")
        short = [row for row in own if not row.complete]
        if short and made == expected:
            row = short[0]
            reasons.append(
                f"{name} {row.metric} covers {row.n_samples}/{row.n_expected} images"
                if row.n_samples != row.n_expected
                else f"{name} was given images that nobody asked for"
            )
    return reasons


def _variant_info(
    described: Mapping[str, Any],
    rows: list[ImageRow],
    reasons: list[str],
    summaries: list[SummaryRecord],
    provenance: Mapping[str, Any],
) -> VariantInfo:
    settings = {
        key: described[key]
        for key in ("generator", "model", "sampler", "precision", "quantization", "weights_sha256")
        if key in described
    }
    return VariantInfo(
        name=described["name"],
        fingerprint=described["fingerprint"],
        description=described["description"],
        kind=_kind(described),
        derived_from=str(described.get("derived_from") or ""),
        settings=settings,
        latency=_measured_latency(described["name"], summaries)
        or _latency(rows, str(provenance.get("device_name", ""))),
        incomplete_reasons=reasons,
    )


def _with_costs(
    info: VariantInfo,
    described: Mapping[str, Any],
    benchmarks: list[dict[str, Any]],
    images: Mapping[str, Mapping[tuple[str, int], ImageRow]],
    provenance: Mapping[str, Any],
) -> VariantInfo:
    """The variant with the size of its model as the run recorded it, and what its images cost."""
    facts = provenance.get("models", {}).get(described["name"], {})
    costs = {}
    for benchmark in benchmarks:
        rows = images[benchmark["name"]].values()
        wanted = [row for row in rows if row.index < benchmark["images_per_prompt"]]
        if (cost := image_cost(described, wanted, facts.get("image_flops"))) is not None:
            costs[benchmark["name"]] = cost
    return replace(
        info,
        parameters=facts.get("parameters"),
        depth=facts.get("depth"),
        cut_from=facts.get("cut_from", ""),
        cut_from_depth=facts.get("cut_from_depth"),
        costs=costs,
    )


def _kind(described: Mapping[str, Any]) -> str:
    """The variant's kind; runs of before it was written down are of full-size models."""
    kind = str(described.get("kind", FULL))
    if kind not in KINDS:
        raise UsageError(f"variant {described['name']}: unknown kind {kind!r}{nearest(kind, KINDS)}")
    return kind


def _measured_latency(variant: str, summaries: list[SummaryRecord]) -> Latency | None:
    """The median that the latency benchmark found, if the run has it."""
    row = next((row for row in summaries if (row.variant, row.metric) == (variant, "latency")), None)
    if row is None or not row.complete:
        return None
    where = row.note.removeprefix("median on ").partition(", batch 1, warm")[0]
    return Latency(
        value_ms=row.value,
        low_ms=math.nan if row.low is None else row.low,
        high_ms=math.nan if row.high is None else row.high,
        n_images=row.n_samples,
        device=where,
        note="one image at a time, warm: median with its 95 % interval",
    )


def _latency(rows: list[ImageRow], device_name: str) -> Latency | None:
    """Median time per image with the 20th and 80th percentile, over the batches as they were generated."""
    timed = sorted(row.seconds * 1000 for row in rows if row.status == "ok" and row.seconds)
    if len(timed) < 2:
        return None
    fifths = statistics.quantiles(timed, n=5, method="inclusive")
    sizes = sorted({row.batch_size for row in rows if row.status == "ok" and row.batch_size})
    return Latency(
        value_ms=statistics.median(timed),
        low_ms=fifths[0],
        high_ms=fifths[3],
        n_images=len(timed),
        device=device_name,
        note=f"batch time / batch size, p20 to p80; batches of {', '.join(map(str, sizes))}",
    )


def _samples(
    store: Store,
    files: RunFiles,
    described: Mapping[str, Any],
    benchmark: str,
    images: Mapping[tuple[str, int], ImageRow],
    summaries: list[SummaryRecord],
) -> list[SampleCell]:
    prompts = files.read_prompts(benchmark)
    rows = [row for row in images.values() if row.status == "ok" and row.prompt_id in prompts]
    keys = {
        row.metric: row.metric_key
        for row in summaries
        if row.variant == described["name"] and row.benchmark == benchmark
    }
    scores = {
        metric: store.scores(key, (str(row.sha256) for row in rows)) for metric, key in sorted(keys.items())
    }
    judged = {prompt.id: prompt.judged_sha256 for prompt in prompts.values()}
    cells = []
    for row in sorted(rows, key=lambda row: (row.prompt_id, row.index)):
        found = {
            metric: record
            for metric, records in scores.items()
            if (record := records.get((str(row.sha256), judged[row.prompt_id]))) is not None
        }
        path = files.directory.resolve() / image_path(
            described["name"], described["fingerprint"], benchmark, row.prompt_id, row.index
        )
        cells.append(_sample_cell(described["name"], benchmark, prompts[row.prompt_id], row, path, found))
    return cells


def _sample_cell(
    variant: str, benchmark: str, prompt: Prompt, row: ImageRow, path: Path, found: Mapping[str, ScoreRecord]
) -> SampleCell:
    verdict = next((record for record in found.values() if "correct" in record.details), None)
    details = verdict.details if verdict is not None else {}
    answers = [answer for record in found.values() for answer in record.details.get("answers", ())]
    rewards = {
        metric: record.details["reward"] for metric, record in found.items() if "reward" in record.details
    }
    return SampleCell(
        variant=variant,
        benchmark=benchmark,
        prompt_id=prompt.id,
        index=row.index,
        prompt=prompt.text,
        tag=prompt.tag,
        image_path=path,
        correct=details.get("correct"),
        reasons=details.get("reasons", ()),
        detections=details.get("detections", ()),
        scores={metric: record.value for metric, record in found.items() if record is not verdict},
        answers=answers,
        rewards=rewards,
    )


def _summary_cell(row: SummaryRecord, gains: Mapping[tuple[str, str, str], Gain]) -> SummaryCell:
    return SummaryCell(
        variant=row.variant,
        benchmark=row.benchmark,
        metric=row.metric,
        protocol=row.protocol,
        key=row.key,
        value=row.value,
        low=math.nan if row.low is None else row.low,
        high=math.nan if row.high is None else row.high,
        n_samples=row.n_samples,
        n_expected=row.n_expected,
        n_prompts=row.n_prompts,
        unit=row.unit,
        higher_is_better=row.higher_is_better,
        note=row.note,
        gain=gains.get((row.variant, row.benchmark, row.metric)) if row.key == "overall" else None,
    )
