"""A run's profiles as tables of a report, one set a device: times of different devices never share a table."""

import statistics
from collections.abc import Callable, Iterable, Sequence

from sana_bench.profiling.projection import projections, stage_bounds
from sana_bench.profiling.record import Profile, read_profiles
from sana_bench.profiling.roofline import ASSUMPTIONS, PEAKS
from sana_bench.profiling.times import Times
from sana_bench.results.reader import RunResults, paired_scores
from sana_bench.results.statistics.latency import quantile_interval
from sana_bench.results.store import Store
from sana_reports.labels import MISSING
from sana_reports.published_speed import quoted_speed
from sana_reports.text_table import TextTable

__all__ = ["latency_tables"]

Measured = tuple[Profile, Times]


def latency_tables(store: Store, run: RunResults) -> list[TextTable]:
    """Everything that was profiled in a run; empty for a run without the latency benchmark."""
    if "latency" not in run.benchmarks:
        return []
    order = list(run.variants)
    measured: list[Measured] = []
    for profile in read_profiles(run.files.directory):
        variant = run.variants.get(profile.variant)
        if variant is not None and variant.described.fingerprint == profile.fingerprint:
            # Not by the run's summaries, which are of the device that measured last.
            scores = paired_scores(store, profile.latency_key, variant.samples_of("latency"))
            measured.append((profile, Times.of(scores.values())))
    measured.sort(key=lambda pair: (pair[0].label, order.index(pair[0].variant)))
    tables: list[TextTable] = []
    for label in dict.fromkeys(profile.label for profile, _ in measured):
        own = [pair for pair in measured if pair[0].label == label]
        timed = [pair for pair in own if pair[1].records]
        swept = [pair for pair in own if pair[0].stopped]
        tables += [_latency(label, timed), _stages(timed)] if timed else []
        tables += [_throughput("Throughput" if timed else f"Throughput on {label}", swept)] if swept else []
        tables += [_memory(own), _device(own)]
        tables += [_roofline(timed)] if any(profile.work for profile, _ in timed) else []
    tables += _projected([pair for pair in measured if pair[1].records])
    quoted = quoted_speed(run.suite.tier)
    return [*tables, *([quoted] if quoted is not None and measured else [])]


def _latency(label: str, own: Sequence[Measured]) -> TextTable:
    rows: list[tuple[str, Callable[[Profile, Times], str]]] = [
        ("median ms [95 %]", lambda _, t: _quantile(t, 0.5)),
        ("p90 ms [95 %]", lambda _, t: _quantile(t, 0.9)),
        ("p99 ms [95 %]", lambda _, t: _quantile(t, 0.99)),
        ("timed images", lambda _, t: str(len(t.records))),
        ("noise", lambda _, t: t.noise()),
        ("first image (cold), ms", lambda p, _: f"{p.cold_ms:.1f}"),
        ("cold over warm", lambda p, t: f"{p.cold_ms / statistics.median(t.milliseconds):.2f}"),
        ("loading, s", lambda p, _: f"{p.load_s:.2f}"),
        ("compiling, s", lambda p, _: f"{p.compile_s:.2f}" if p.compile_s else "none (eager)"),
    ]
    notes = [
        f"One image at a time, prompt to pixels in memory, after {own[0][0].warmups} untimed images; variants in turns. "
        "Text is encoded anew for every image.",
        "Loading is shared by variants of the same weights. With so few images, p99 is little more than the slowest one.",
        "Not comparable with other devices or, on a CPU, with other numbers of threads.",
    ]
    return _text_table(f"Latency on {label}", own, rows, notes)


def _stages(own: Sequence[Measured]) -> TextTable:
    medians = [times.stages() for _, times in own]
    names = [*dict.fromkeys(name for row in medians for name in row)]
    rows: list[tuple[str, ...]] = []
    for name in names:
        cells = []
        for (_, times), row in zip(own, medians, strict=True):
            share = row.get(name, 0.0) / statistics.median(times.milliseconds)
            cells.append(f"{row[name]:.2f} ms ({100 * share:.0f} %)" if name in row else MISSING)
        rows.append(("all transformer steps" if name == "transformer step" else name, *cells))
    steps = [times.step_ms() for _, times in own]
    if any(step is not None for step in steps):
        rows.append(("one transformer step", *(MISSING if s is None else f"{s:.2f} ms" for s in steps)))
    note = "Median for one image, and its share of the median latency. Writing the PNG comes afterwards and is not included."
    return TextTable(title="Where the time goes", header=_header(own), rows=rows, notes=(note,))


def _throughput(title: str, own: Sequence[Measured]) -> TextTable:
    sizes = sorted({batch.size for profile, _ in own for batch in profile.batches})
    rows: list[tuple[str, ...]] = []
    for size in sizes:
        cells = []
        for profile, _ in own:
            found = next((batch for batch in profile.batches if batch.size == size and batch.seconds), None)
            rate = f"{size / statistics.median(found.seconds):.2f} images/s" if found else MISSING
            cells.append(rate)
        rows.append((f"batch {size}", *cells))
    rows.append(("stopped at", *(profile.stopped for profile, _ in own)))
    note = f"Median of {own[0][0].repeats} batches of each size."
    return TextTable(title=title, header=_header(own), rows=rows, notes=(note,))


def _memory(own: Sequence[Measured]) -> TextTable:
    """Memory is measured with batches, energy with single images: a run may have asked for one of them alone."""
    energy = ("energy per image", lambda _, t: _energy(t))
    if not any(profile.stopped for profile, _ in own):
        return _text_table("Energy", own, [energy], [])
    own = [pair for pair in own if pair[0].batches]
    if not own:
        return TextTable(
            title="Memory and energy",
            header=("",),
            rows=(),
            notes=("Not even a single image fits into memory.",),
        )
    first, last = 0, -1
    rows: list[tuple[str, Callable[[Profile, Times], str]]] = [
        ("peak, batch 1", lambda p, _: _mib(p.batches[first].peak_bytes)),
        ("added by the batch of 1", lambda p, _: _mib(p.batches[first].growth_bytes)),
        (
            "peak, largest batch",
            lambda p, _: f"{_mib(p.batches[last].peak_bytes)} (batch {p.batches[last].size})",
        ),
        ("in use by NVML, largest batch", lambda p, _: _nvml(p)),
        energy,
    ]
    source = "; ".join(dict.fromkeys(batch.memory_source for profile, _ in own for batch in profile.batches))
    together = own[0][0].together
    notes = [
        f"Memory by {source}. {together} variant{'s' if together > 1 else ''} loaded in the process at once."
    ]
    return _text_table("Memory and energy", own, rows, notes)


def _device(own: Sequence[Measured]) -> TextTable:
    rows: list[tuple[str, Callable[[Profile, Times], str]]] = [
        ("clock, MHz (lowest, median, highest)", lambda p, _: _spread(p.monitor.get("clock_mhz"))),
        ("temperature, °C", lambda p, _: _spread(p.monitor.get("temperature_c"))),
        ("power, W", lambda p, _: _spread(p.monitor.get("power_w"))),
        ("slowed down", lambda p, t: _slowdowns(p, t)),
        ("system load, before and after", lambda p, _: _load(p)),
        ("driver", lambda p, _: p.driver or MISSING),
    ]
    flagged = [profile.variant for profile, times in own if times.slowdowns]
    notes: list[str] = []
    busy = [p for p, _ in own if max(p.monitor.get("load_average") or [0]) > (p.monitor.get("cores") or 1)]
    if busy:
        notes.append(
            "More processes wanted to run than there are cores, so other work slowed these times down."
        )
    if flagged:
        notes.append(
            f"Times of {', '.join(flagged)} were taken while the device was slowed down; measure again."
        )
    return _text_table("The device during the run", own, rows, notes)


def _roofline(own: Sequence[Measured]) -> TextTable:
    header = (
        "Stage", "GFLOP", "MB", "FLOP/byte", "measured ms", "share of roofline here",
        *(f"least ms, {name}" for name in PEAKS),
    )  # fmt: skip
    rows: list[tuple[str, ...]] = []
    notes: list[str] = []
    for profile, times in own:
        for bound in stage_bounds(profile, times.stages()):
            work = bound.work
            rows.append(
                (
                    f"{profile.variant}: {bound.stage}", f"{work.flops / 1e9:.3g}", f"{work.bytes / 1e6:.3g}",
                    f"{work.flops / work.bytes:.1f}" if work.bytes else MISSING, f"{bound.measured_ms:.2f}",
                    MISSING if bound.share is None else f"{100 * bound.share:.0f} %",
                    *(f"{bound.bounds_ms[name]:.2g}" for name in PEAKS),
                )
            )  # fmt: skip
        if profile.torch_flops:
            total = sum(work["flops"] for work in profile.work.values())
            notes.append(
                f"{profile.variant}: {total / 1e9:.4g} GFLOP an image counted from the configuration, "
                f"{profile.torch_flops / 1e9:.4g} by torch ({100 * (total / profile.torch_flops - 1):+.2f} %)."
            )
    peaks = [profile.peaks for profile, _ in own if profile.peaks]
    if peaks:
        notes.append(f"Peaks here: {peaks[0]['source']}.")
    notes.append(
        "Shortest possible times on other devices, from data-sheet peaks, which no program reaches; "
        + _sources()
        + "."
    )
    return TextTable(title="Arithmetic and rooflines", header=header, rows=rows, notes=notes)


def _projected(measured: Sequence[Measured]) -> list[TextTable]:
    found = projections([(profile, _inside(times)) for profile, times in measured])
    if not found:
        return []
    rows = [
        (
            f"{one.variant}: {one.source} to {one.target}", f"{one.milliseconds:.1f}",
            MISSING if one.measured_ms is None else f"{one.measured_ms:.1f}",
            "not measured there" if one.error is None else f"{100 * one.error:+.0f} %",
        )
        for one in found
    ]  # fmt: skip
    header = ("Projection", "projected ms", "measured ms", "error")
    return [
        TextTable(
            title="Projections to other devices",
            header=header,
            rows=rows,
            notes=(f"Assumes that {ASSUMPTIONS}.",),
        )
    ]


def _inside(times: Times) -> dict[str, float]:
    """Stages that are part of the latency."""
    return {name: value for name, value in times.stages().items() if name != "image encoding"}


def _text_table(
    title: str,
    own: Sequence[Measured],
    rows: Iterable[tuple[str, Callable[[Profile, Times], str]]],
    notes: Sequence[str],
) -> TextTable:
    cells = [(name, *(show(profile, times) for profile, times in own)) for name, show in rows]
    return TextTable(title=title, header=_header(own), rows=cells, notes=notes)


def _header(own: Sequence[Measured]) -> tuple[str, ...]:
    return ("", *(profile.variant for profile, _ in own))


def _quantile(times: Times, quantile: float) -> str:
    found = quantile_interval(times.milliseconds, quantile, seed=0)
    if len(times.records) == 1:
        return f"{found.value:.1f} (no interval: one image)"
    return f"{found.value:.1f} [{found.low:.1f}, {found.high:.1f}]"


def _mib(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"


def _nvml(profile: Profile) -> str:
    used = profile.batches[-1].nvml_bytes
    return _mib(used) if used is not None else "not measured"


def _energy(times: Times) -> str:
    if not times.records:
        return "not measured"
    joules, method = times.joules
    return f"{joules:.2f} J ({method})" if joules is not None else f"not measured ({method})"


def _spread(values: Sequence[float] | None) -> str:
    return ", ".join(f"{value:.0f}" for value in values) if values else "not measured"


def _slowdowns(profile: Profile, times: Times) -> str:
    if not profile.monitor.get("tells_slowdowns"):
        return "not measured"
    shares = profile.monitor.get("slowdowns") or {}
    parts = [f"{name} in {100 * share:.0f} % of readings" for name, share in shares.items()]
    parts += [f"{count} images during {reason}" for reason, count in times.slowdowns.items()]
    return "; ".join(parts) or f"not seen in {profile.monitor.get('readings', 0)} readings"


def _load(profile: Profile) -> str:
    load = profile.monitor.get("load_average") or []
    return f"{', '.join(f'{value:.1f}' for value in load)} on {profile.monitor.get('cores')} cores"


def _sources() -> str:
    return ", ".join(f"{peaks.name} by {peaks.source}" for peaks in PEAKS.values())
