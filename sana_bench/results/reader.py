"""The one reader of stored runs: what the suite asked for, paired with what the store has of it. Needs no torch.

A store holds images and scores of many runs, under keys that runs share. Of all that, a run consists of exactly the samples
that its suite asks for: a prompt of the suite with the same text, and an index below the images per prompt.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sana_bench.core.errors import UsageError, nearest
from sana_bench.core.fingerprint import fingerprint
from sana_bench.core.samples import OVERALL, Prompt, Sample, prompts_sha256
from sana_bench.results.run_folder import WRITTEN_AGAIN, RunFiles, find_run, image_path, open_store
from sana_bench.results.schema import FeatureRow, ImageRow, ScoreRecord, SummaryRecord
from sana_bench.results.sequences import StoredSequence, grouped, stopped_early
from sana_bench.results.store import Store
from sana_bench.results.stored_suite import StoredBenchmark, StoredSuite, StoredVariant

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "RunResults",
    "SampleResult",
    "VariantResults",
    "asked_images",
    "batch_seconds",
    "device_label",
    "feature_rows",
    "incomplete_reasons",
    "load_features",
    "load_run",
    "paired_scores",
    "read_run",
    "whole_groups",
]

#: A sample within one variant and benchmark: prompt id and index.
Place = tuple[str, int]


class Wanted(Protocol):
    """What a benchmark asks of each variant, resolved just now or read back."""

    @property
    def n_samples(self) -> int: ...

    @property
    def metrics(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class SampleResult:
    """A sample with its image as the store knows it, and its scores by metric: what every analysis works on.

    `group` are the SHA-256 of the images that a metric joins it with, its own among them.
    """

    sample: Sample
    image: ImageRow
    scores: Mapping[str, ScoreRecord] = field(default_factory=dict)
    group: tuple[str, ...] = ()

    @property
    def benchmark(self) -> str:
        """The benchmark's name."""
        return self.sample.benchmark

    @property
    def prompt(self) -> Prompt:
        """The prompt that was asked for."""
        return self.sample.prompt

    @property
    def index(self) -> int:
        """Which of the prompt's images it is."""
        return self.sample.index

    @property
    def score_key(self) -> tuple[str, str]:
        """What its scores are stored under: the content of the image, and of the prompt with the images joined with it."""
        judged = self.prompt.judged_sha256
        return str(self.image.sha256), fingerprint([judged, *self.group]) if self.group else judged

    @property
    def key(self) -> tuple[str, str, int, str]:
        """What two samples share when they answer the same question: place and judged prompt."""
        return self.benchmark, self.prompt.id, self.index, self.prompt.judged_sha256


@dataclass(frozen=True)
class VariantResults:
    """One variant of a stored run, with everything that the store has of it.

    `rewrites` has by benchmark and prompt id the text that the model was given where that was not the prompt.
    `evidence` has by benchmark and metric what comparing a distance between sets needs, where the features are not in a store.
    `recorded` has by benchmark every sample that the suite asks for and the store has, finished or failed; `samples` are the
    finished ones with their scores. `reasons` say by benchmark why it is incomplete, and `identities` are those of metrics by
    key. `metric_keys` has by benchmark and metric the key that scores are stored under.
    """

    described: StoredVariant
    recorded: Mapping[str, Mapping[Place, ImageRow]]
    samples: list[SampleResult]
    summaries: list[SummaryRecord]
    reasons: Mapping[str, list[str]]
    identities: dict[str, dict[str, Any]]
    rewrites: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    metric_keys: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    evidence: Mapping[tuple[str, str], Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The variant's name."""
        return self.described.name

    @property
    def complete(self) -> bool:
        """Whether every sample and every number that the suite asks for is there."""
        return not any(self.reasons.values())

    def samples_of(self, benchmark: str) -> list[SampleResult]:
        """The finished samples of a benchmark, by prompt and index."""
        return [sample for sample in self.samples if sample.benchmark == benchmark]

    def overall(self, benchmark: str) -> dict[str, SummaryRecord]:
        """The overall numbers of a benchmark by metric."""
        return {
            row.metric: row for row in self.summaries if row.benchmark == benchmark and row.key == OVERALL
        }

    @property
    def batch_ms(self) -> list[float]:
        """Milliseconds an image, once for each batch that was timed: the images of a batch share one measurement.

        No other code decides what the time per image of a variant is that the latency benchmark did not measure.
        """
        return [seconds * 1000 for seconds in batch_seconds(one.image for one in self.samples)]

    def device(self, row: SummaryRecord) -> str:
        """The device that a measured number belongs to, as people call it."""
        identity = self.identities.get(row.metric_key, {})
        if "device" in identity:
            return device_label(identity)
        # Stores may know a time without what it was measured with; its note names the device.
        return row.note.removeprefix("median on ").partition(", batch 1, warm")[0]


@dataclass(frozen=True)
class RunResults:
    """One run of the store; `prompts` are by benchmark and id, `row` is what the store says of the run itself.

    `sequences` are those that it was stopped by, or was to be: no summary comes from them.
    """

    output: Path
    files: RunFiles
    suite: StoredSuite
    prompts: dict[str, dict[str, Prompt]]
    row: Mapping[str, Any]
    variants: dict[str, VariantResults]
    sequences: Sequence[StoredSequence] = ()

    @property
    def run_id(self) -> str:
        """Name of the run directory."""
        return self.files.directory.name

    @property
    def benchmarks(self) -> dict[str, StoredBenchmark]:
        """What was asked for by benchmark."""
        return {benchmark.name: benchmark for benchmark in self.suite.benchmarks}

    @property
    def complete(self) -> bool:
        """Whether every variant is."""
        return all(variant.complete for variant in self.variants.values())

    @property
    def settled(self) -> bool:
        """Whether every variant is complete, or was stopped early because a question about it was answered."""
        return all(
            not reasons or stopped_early(self.sequences, variant.name, benchmark)
            for variant in self.variants.values()
            for benchmark, reasons in variant.reasons.items()
        )

    @property
    def summaries(self) -> list[SummaryRecord]:
        """Every number, variant by variant."""
        return [row for variant in self.variants.values() for row in variant.summaries]

    def variant(self, name: str) -> VariantResults:
        """Return a variant by name, or the only one that `--set` made of it; raises `UsageError` with the nearest name."""
        if name not in self.variants:
            changed = [variant for variant in self.variants if variant.startswith(f"{name}[")]
            if len(changed) == 1:
                return self.variants[changed[0]]
            raise UsageError(f"{self.run_id}: no variant {name!r}{nearest(name, self.variants)}")
        return self.variants[name]


def load_run(output: Path, run: str) -> RunResults:
    """Read a run by directory or by name below `output`; a directory brings its own output folder.

    Raises `UsageError` for an unknown run, a missing store or a run directory that cannot be read.
    """
    files = find_run(run, output)
    with open_store(files.directory.resolve().parents[1]) as store:
        return read_run(store, files)


def read_run(store: Store, files: RunFiles) -> RunResults:
    """Read a run from its directory and an open store.

    Raises `UsageError` for a run that the store does not know and for a damaged run directory.
    """
    files = RunFiles(files.directory.resolve())
    row = store.run(files.directory.name)
    if row is None:
        raise UsageError(f"{files.directory}: the store in {store.output} does not know this run")
    suite = StoredSuite.read(files.suite)
    suite.check_run(files.directory.name, str(files.suite))
    prompts = {benchmark.name: files.read_prompts(benchmark.name) for benchmark in suite.benchmarks}
    for benchmark in suite.benchmarks:
        if prompts_sha256(prompts[benchmark.name].values()) != benchmark.prompts_sha256:
            raise UsageError(
                f"{files.directory}: the prompts of {benchmark.name} are not those that the run asked for: damaged or changed; "
                f"{WRITTEN_AGAIN}"
            )
    summaries = store.summaries(files.directory.name)
    sequences = grouped(store.looks(files.directory.name))
    variants = {}
    for described in suite.variants:
        own = [summary for summary in summaries if summary.variant == described.name]
        looked = [sequence for sequence in sequences if described.name in sequence.variants]
        variants[described.name] = _variant(store, files, suite, prompts, described, own, looked)
    return RunResults(store.output, files, suite, prompts, row, variants, sequences)


def _variant(
    store: Store,
    files: RunFiles,
    suite: StoredSuite,
    prompts: Mapping[str, Mapping[str, Prompt]],
    described: StoredVariant,
    summaries: list[SummaryRecord],
    sequences: list[StoredSequence],
) -> VariantResults:
    recorded, samples, reasons, keys = {}, [], {}, {}
    for benchmark in suite.benchmarks:
        name = benchmark.name
        key = benchmark.image_key(described)
        rows = asked_images(store, key, prompts[name], benchmark.images_per_prompt)
        if not described.generates:  # stores of earlier versions have the time that reading the files took
            rows = {
                place: replace(row, seconds=None, batch_size=None, device=None) for place, row in rows.items()
            }
        own = [row for row in summaries if row.benchmark == name]
        done = _finished(store, files, described, name, prompts[name], rows)
        recorded[name] = rows
        looked = {one.last.metric: one.last.metric_key for one in sequences if one.last.benchmark == name}
        keys[name] = looked | {row.metric: row.metric_key for row in own}
        samples += _scored(store, done, keys[name])
        stopped = stopped_early(sequences, described.name, name)
        failed = len(rows) - len(done)
        reasons[name] = incomplete_reasons(name, benchmark, len(done), failed, own, stopped=stopped)
    identities = {key: store.metric_identity(key) for found in keys.values() for key in found.values()}
    names = [benchmark.name for benchmark in suite.benchmarks] if described.rewritten else []
    rewrites = {name: files.read_rewrites(described.name, name) for name in names}
    return VariantResults(described, recorded, samples, summaries, reasons, identities, rewrites, keys)


def _finished(
    store: Store,
    files: RunFiles,
    described: StoredVariant,
    benchmark: str,
    prompts: Mapping[str, Prompt],
    rows: Mapping[Place, ImageRow],
) -> list[SampleResult]:
    found = []
    for place, row in rows.items():
        if row.status != "ok":
            continue
        # A run's directory holds all of its images; one that was left where an earlier run made it is found there.
        path = files.directory / image_path(described.name, described.fingerprint, benchmark, *place)
        if row.path is not None and not path.is_file():
            path = store.output / row.path
        sample = Sample(described.name, benchmark, prompts[row.prompt_id], row.index, path)
        found.append(SampleResult(sample, row))
    return found


def _scored(store: Store, done: list[SampleResult], keys: Mapping[str, str]) -> list[SampleResult]:
    scores = {metric: paired_scores(store, key, done) for metric, key in sorted(keys.items())}
    return [
        SampleResult(
            one.sample,
            one.image,
            {
                metric: found[one.sample.place]
                for metric, found in scores.items()
                if one.sample.place in found
            },
        )
        for one in done
    ]


def batch_seconds(images: Iterable[ImageRow]) -> list[float]:
    """Seconds an image, once for each batch that was timed: the images of a batch share one measurement."""
    return list(dict.fromkeys(image.seconds for image in images if image.seconds))


def asked_images(
    store: Store, key: str, prompts: Mapping[str, Prompt], images_per_prompt: int
) -> dict[Place, ImageRow]:
    """What the store has under an image key of the samples that are asked for, finished or failed, by prompt and index."""
    return {
        place: row
        for place, row in sorted(store.images(key).items())
        if row.index < images_per_prompt
        and row.prompt_id in prompts
        and row.prompt_sha256 == prompts[row.prompt_id].sha256
    }


def paired_scores(store: Store, metric_key: str, done: Iterable[SampleResult]) -> dict[Place, ScoreRecord]:
    """The stored scores of these images under these prompts, for those that have one."""
    done = list(done)
    joins = int(store.metric_identity(metric_key).get("joins", 1))
    joined = {one.sample.place: one for one in (whole_groups(done, joins) if joins > 1 else ())}
    done = [joined.get(one.sample.place, one) for one in done]
    stored = store.scores(metric_key, (str(one.image.sha256) for one in done))
    return {one.sample.place: stored[one.score_key] for one in done if one.score_key in stored}


def whole_groups(done: Iterable[SampleResult], joins: int) -> list[SampleResult]:
    """The samples of every whole group of `joins` images of a prompt, by prompt and index; each knows the others."""
    by_place = {one.sample.place: one for one in done}
    found = []
    for prompt_id, index in sorted(by_place):
        first = index - index % joins
        group = [by_place.get((prompt_id, place)) for place in range(first, first + joins)]
        whole = tuple(str(one.image.sha256) for one in group if one is not None)
        if len(whole) == joins:
            found.append(replace(by_place[prompt_id, index], group=whole))
    return found


def incomplete_reasons(
    cell: str,
    wanted: Wanted,
    made: int,
    failed: int,
    summaries: Sequence[SummaryRecord],
    told: Mapping[str, str] | None = None,
    stopped: Sequence[str] = (),
) -> list[str]:
    """Why one variant is incomplete on one benchmark; empty when it is complete. No other code decides this.

    `cell` is how the reasons call the two. `made` and `failed` count samples that are asked for, `summaries` are the numbers of
    the cell alone, and `told` says by metric why there is no number, where that is known. `stopped` are the findings of sequences
    that made more images needless.
    """
    told = told or {}
    reasons = []
    if made != wanted.n_samples:
        also = f", {failed} failed" if failed else ""
        if stopped and not failed:
            return [f"{cell} has {made}/{wanted.n_samples} images, stopped early: {'; '.join(stopped)}"]
        reasons.append(f"{cell} has {made}/{wanted.n_samples} images{also}")
    covered = {row.metric for row in summaries if row.key == OVERALL}
    lacking = [metric for metric in wanted.metrics if metric not in covered]
    reasons += dict.fromkeys(told[metric] for metric in lacking if metric in told)
    untold = [metric for metric in lacking if metric not in told]
    if untold and made:
        reasons.append(f"{cell} has no {', '.join(untold)}")
    short = next((row for row in summaries if not row.complete or row.n_samples != row.n_expected), None)
    if short is not None and made == wanted.n_samples:
        reasons.append(
            f"{cell} {short.metric} covers {short.n_samples}/{short.n_expected} images"
            if short.n_samples != short.n_expected
            else f"{cell} was given images that the suite does not ask for"
        )
    return [*reasons, *(f"{cell} {row.metric} has no value" for row in summaries if not isfinite(row.value))]


def device_label(identity: Mapping[str, Any]) -> str:
    """The device of a measured time for people, from what identifies the time: its name, and on a CPU the threads."""
    threads = identity.get("threads")
    if threads is None:
        return str(identity["device"])
    return f"{identity['device']}, {threads} thread{'' if threads == 1 else 's'}"


def load_features(output: Path, feature_key: str, image_sha256s: list[str]) -> "NDArray[Any] | None":
    """Return stored feature vectors (n, d) in the order given; None when any is missing."""
    store = Store.open_existing(output)
    if store is None:
        return None
    with store:
        places: dict[str, FeatureRow] = store.features(feature_key, image_sha256s)
    if not image_sha256s or not set(image_sha256s) <= set(places):
        return None
    try:
        return feature_rows(output, places, image_sha256s)
    except FileNotFoundError:
        return None


def feature_rows(
    output: Path, places: Mapping[str, FeatureRow], image_sha256s: Sequence[str]
) -> "NDArray[Any]":
    """Return feature vectors (n, d) from their chunk files, in the order given.

    Raises `OSError`, and `UsageError` for a chunk file that is damaged or whose rows are of other images.
    """
    import numpy as np

    from sana_bench.core.arrays import ArraysError, read_arrays

    found: dict[str, dict[str, NDArray[Any]]] = {}
    vectors = []
    for sha256 in image_sha256s:
        path, row = places[sha256].path, places[sha256].row
        try:
            chunk = found.get(path) or found.setdefault(
                path, read_arrays(output / path, ("features", "image_sha256"))
            )
            if str(chunk["image_sha256"][row]) != sha256:
                raise ArraysError(f"row {row} is of another image than the store says")
            vectors.append(chunk["features"][row])
        except (ArraysError, IndexError) as error:
            raise UsageError(
                f"{output / path}: damaged features ({error}); run the suite again, or see `sana-bench store check`"
            ) from None
    return np.stack(vectors)
