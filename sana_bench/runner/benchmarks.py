"""A benchmark of a suite with its prompts read, its defaults filled in, and what its metrics look for checked. Needs no torch."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from sana_bench.assets.reference_set import reference_sha256
from sana_bench.benchmarks.prompt_file import read_prompts
from sana_bench.benchmarks.subset import stratified
from sana_bench.core.errors import SuiteError
from sana_bench.core.fingerprint import HashCache, file_sha256
from sana_bench.core.registry import BENCHMARKS, MEASURED, METRICS, SET_METRICS
from sana_bench.core.samples import Prompt
from sana_bench.core.text import lone_surrogate
from sana_bench.results.run_folder import is_path_name
from sana_bench.suites.cells import ResolvedBenchmark
from sana_bench.suites.schema import (
    LARGEST_BATCH,
    NAMED_REFERENCES,
    OWN_METRICS,
    THROUGHPUT_PARAMETERS,
    BenchmarkSpec,
    MetricSpec,
    Suite,
)

__all__ = ["asked_of", "is_as_shipped", "resolve_benchmark"]


def resolve_benchmark(spec: BenchmarkSpec, suite: Suite, hashes: HashCache) -> ResolvedBenchmark:
    """A benchmark with its prompts read and its defaults filled in.

    Raises `SuiteError` for ids that cannot be used, and for a metric that looks for something that the prompts do not have;
    `UsageError` for a prompt file that cannot be read, and `AssetError` for published prompts that are not there.
    """
    if _has_own_prompts(spec, suite):
        prompts = suite.prompts.get(spec.label) or read_prompts(Path(str(spec.prompt_file))).prompts
    else:
        prompts = tuple(BENCHMARKS.build(spec.source).prompts(suite.tier))
    images_per_prompt, metrics = asked_of(spec, suite)
    if spec.subset is not None:
        prompts = tuple(stratified(prompts, spec.subset))
    _check_names(spec.label, prompts)
    resolved = ResolvedBenchmark(
        name=spec.label,
        prompts=prompts,
        images_per_prompt=images_per_prompt,
        metrics=metrics,
        choices=tuple(metric for metric in spec.metric_specs if metric.is_choice),
        contents={
            metric.name: sha256
            for metric in spec.metric_specs
            if (sha256 := _content_sha256(metric, hashes)) is not None
        },
        settings=spec.settings.model_dump() if spec.settings is not None else {},
    )
    _check_prompts(resolved, published=spec.prompt_file is None and spec.label not in suite.prompts)
    return resolved


def asked_of(spec: BenchmarkSpec, suite: Suite) -> tuple[int, tuple[str, ...]]:
    """Images per prompt and names of metrics that a suite asks for, the benchmark's own where it leaves them out."""
    images_per_prompt, metrics = 1, OWN_METRICS
    if not _has_own_prompts(spec, suite):
        benchmark = BENCHMARKS.build(spec.source)
        images_per_prompt = benchmark.default_images_per_prompt
        metrics = tuple(name for name in benchmark.metric_names if _is_of_tier(name, suite.tier))
    named = tuple(metric.name for metric in spec.metric_specs)
    return spec.images_per_prompt or images_per_prompt, named or metrics


def is_as_shipped(spec: BenchmarkSpec, suite: Suite) -> bool:
    """Whether all prompts of a benchmark of ours are judged by its own metrics, which find in them what they look for."""
    if _has_own_prompts(spec, suite) or spec.subset is not None or BENCHMARKS.plugin(spec.source) is not None:
        return False
    own = BENCHMARKS.build(spec.source).metric_names
    return all(metric.name in own and not metric.is_choice for metric in spec.metric_specs)


def _is_of_tier(metric: str, tier: str) -> bool:
    """Whether a benchmark's own metric is measured on a tier; what the suite names itself is not asked."""
    return tier == "full" or metric in MEASURED or not METRICS.entry(metric).full_only


def _has_own_prompts(spec: BenchmarkSpec, suite: Suite) -> bool:
    return spec.label in suite.prompts or spec.prompt_file is not None


def _content_sha256(metric: MetricSpec, hashes: HashCache) -> str | None:
    """The hash of the function's file or of the reference that a metric names."""
    if metric.function is not None:
        return file_sha256(metric.function_place[0], hashes)
    if metric.reference is None or metric.reference in NAMED_REFERENCES:
        return None
    return reference_sha256(Path(metric.reference), hashes)


def _check_prompts(benchmark: ResolvedBenchmark, *, published: bool) -> None:
    """Raise `SuiteError` where a metric looks for something in prompts that one of them does not have."""
    for name in benchmark.metrics:
        choice = benchmark.choice(name)
        if name in MEASURED:
            known = THROUGHPUT_PARAMETERS if name == "throughput" else {}
            choice.parameters_among(known, {"batch_size": (1, LARGEST_BATCH)} if choice.parameters else None)
            if choice.protocol is not None:
                raise SuiteError(f"metric {name!r} has no protocols to choose from")
        if name in MEASURED or choice.function is not None:
            continue
        if name in SET_METRICS and not published and choice.reference is None:
            raise SuiteError(
                f"benchmark {benchmark.name!r}: {name} of one's own prompts needs a reference: a folder of images or a file "
                "of statistics"
            )
        entry = METRICS.entry(name)
        joined = entry.joins.get(str(choice.protocol), 1)
        if joined > 1 and benchmark.images_per_prompt not in (1, joined):
            raise SuiteError(
                f"benchmark {benchmark.name!r}: {choice.protocol} joins {joined} images of a prompt, "
                f"and images_per_prompt is {benchmark.images_per_prompt}; {joined}, or 1 where files are joined already"
            )
        if not any(entry.concerns(prompt.metadata) for prompt in benchmark.prompts):
            raise SuiteError(
                f"benchmark {benchmark.name!r}: metric {name!r} looks for {entry.only!r} in prompts, and none has it"
            )
        for key in entry.reads:
            lacking = next(
                (p for p in benchmark.prompts if not (p.text if key == "prompt" else key in p.metadata)), None
            )
            if lacking is not None:
                raise SuiteError(
                    f"benchmark {benchmark.name!r}: metric {name!r} looks for {key!r} in every prompt, "
                    f"and prompt {lacking.id} has none"
                )


def _check_names(benchmark: str, prompts: Sequence[Prompt]) -> None:
    """Raise `SuiteError` for a name that would lead out of the run directory, or that two prompts share."""
    if not is_path_name(benchmark):
        raise SuiteError(f"the benchmark name {benchmark!r} cannot be the name of a folder")
    for prompt in prompts:
        if not is_path_name(prompt.id):
            raise SuiteError(
                f"benchmark {benchmark!r}: the prompt id {prompt.id!r} cannot be the name of a folder"
            )
    for prompt in prompts:
        half = lone_surrogate(json.dumps([prompt.text, prompt.tag, prompt.metadata], ensure_ascii=False))
        if half is not None:
            raise SuiteError(f"benchmark {benchmark!r}: prompt {prompt.id} holds {half}, half of a character")
    repeated = [name for name, count in Counter(prompt.id for prompt in prompts).items() if count > 1]
    if repeated:
        raise SuiteError(f"benchmark {benchmark!r}: the prompt id {repeated[0]!r} appears twice")
