"""A run as decisions need it: settings, summaries, scores, times and image paths, read without torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sana_bench.core.errors import UsageError, nearest
from sana_bench.core.fingerprint import image_key
from sana_bench.core.samples import Prompt
from sana_bench.results.run_folder import find_run
from sana_bench.results.schema import FeatureRow, ScoreRecord, SummaryRecord
from sana_bench.results.store import Store

__all__ = ["RunResults", "SampleResult", "VariantResults", "load_features", "load_run"]


@dataclass(frozen=True)
class SampleResult:
    """One finished image with its scores by metric; `seconds` are per image."""

    benchmark: str
    prompt_id: str
    index: int
    tag: str
    prompt: str
    prompt_sha256: str
    image_sha256: str
    image_path: Path
    seconds: float | None
    batch_size: int | None
    device: str
    scores: Mapping[str, ScoreRecord]

    @property
    def key(self) -> tuple[str, str, int, str]:
        """What two samples share when they answer the same question: place and judged prompt."""
        return self.benchmark, self.prompt_id, self.index, self.prompt_sha256


@dataclass(frozen=True)
class VariantResults:
    """One variant of a run."""

    name: str
    fingerprint: str
    settings: dict[str, Any]
    complete: bool
    summaries: list[SummaryRecord]
    samples: list[SampleResult]
    identities: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class RunResults:
    """One run of the store; `benchmarks` holds the resolved description of each by name."""

    output: Path
    run_id: str
    suite: str
    tier: str
    seed: int
    fingerprint: str
    complete: bool
    provenance: dict[str, Any]
    benchmarks: dict[str, dict[str, Any]]
    variants: dict[str, VariantResults]

    def variant(self, name: str) -> VariantResults:
        """Return a variant by name; raises `UsageError` with the nearest name."""
        if name not in self.variants:
            raise UsageError(f"{self.run_id}: no variant {name!r}{nearest(name, self.variants)}")
        return self.variants[name]


def load_run(output: Path, run: str) -> RunResults:
    """Read a run by directory or by name below `output`; a directory brings its own output folder.

    Raises `UsageError` for an unknown run, a missing store or a run directory that cannot be read.
    """
    files = find_run(run, output)
    directory = files.directory.resolve()
    output = directory.parents[1]
    try:
        resolved = yaml.safe_load(files.suite.read_text(encoding="utf-8"))
        benchmarks = {described["name"]: described for described in resolved["benchmarks"]}
        prompts = {name: files.read_prompts(name) for name in benchmarks}
        variants, suite, tier, seed = (resolved[key] for key in ("variants", "name", "tier", "seed"))
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise UsageError(f"{directory}: damaged run directory: {error}") from None
    store = Store.open_existing(output)
    if store is None:
        raise UsageError(f"{directory}: there is no result store in {output}")
    with store:
        row = store.run(directory.name)
        if row is None:
            raise UsageError(f"{directory}: the store in {output} does not know this run")
        summaries = store.summaries(directory.name)
        loaded = {
            described["name"]: _variant(store, described, benchmarks, prompts, summaries)
            for described in variants
        }
    return RunResults(
        output, directory.name, suite, tier, seed, row["fingerprint"],
        all(variant.complete for variant in loaded.values()), row["provenance"], benchmarks, loaded,
    )  # fmt: skip


def load_features(output: Path, feature_key: str, image_sha256s: list[str]) -> Any:
    """Return stored feature vectors (n, d) in the order given; None when any is missing."""
    import numpy as np

    store = Store.open_existing(output)
    if store is None:
        return None
    with store:
        places: dict[str, FeatureRow] = store.features(feature_key, image_sha256s)
    if not image_sha256s or not set(image_sha256s) <= set(places):
        return None
    files = {}
    for path in {places[sha256].path for sha256 in image_sha256s}:
        if not (output / path).is_file():
            return None
        with np.load(output / path, allow_pickle=False) as archive:
            files[path] = archive["features"]
    return np.stack([files[places[sha256].path][places[sha256].row] for sha256 in image_sha256s])


def _variant(
    store: Store,
    described: dict[str, Any],
    benchmarks: dict[str, dict[str, Any]],
    prompts: dict[str, dict[str, Prompt]],
    summaries: list[SummaryRecord],
) -> VariantResults:
    own = [row for row in summaries if row.variant == described["name"]]
    samples: list[SampleResult] = []
    complete = True
    for name, benchmark in benchmarks.items():
        found = _samples(store, described["fingerprint"], benchmark, prompts[name], own)
        expected = benchmark["n_prompts"] * benchmark["images_per_prompt"]
        covered = {row.metric for row in own if row.benchmark == name}
        complete &= len(found) == expected and set(benchmark["metrics"]) <= covered
        samples += found
    return VariantResults(
        name=described["name"],
        fingerprint=described["fingerprint"],
        settings={key: value for key, value in described.items() if key not in ("fingerprint", "name")},
        complete=complete and all(row.complete for row in own),
        summaries=own,
        samples=samples,
        identities={row.metric_key: store.metric_identity(row.metric_key) for row in own},
    )


def _samples(
    store: Store,
    variant_fingerprint: str,
    benchmark: dict[str, Any],
    prompts: dict[str, Prompt],
    summaries: list[SummaryRecord],
) -> list[SampleResult]:
    name = benchmark["name"]
    images = store.images(image_key(variant_fingerprint, name)).values()
    rows = [
        row
        for row in images
        if row.status == "ok" and row.prompt_id in prompts and row.index < benchmark["images_per_prompt"]
    ]
    keys = {row.metric: row.metric_key for row in summaries if row.benchmark == name}
    scores = {metric: store.scores(key, (str(row.sha256) for row in rows)) for metric, key in keys.items()}
    samples = []
    for row in sorted(rows, key=lambda row: (row.prompt_id, row.index)):
        prompt = prompts[row.prompt_id]
        judged = prompt.judged_sha256
        samples.append(
            SampleResult(
                name, row.prompt_id, row.index, prompt.tag, prompt.text, judged, str(row.sha256),
                store.output / str(row.path), row.seconds, row.batch_size, str(row.device or ""),
                {metric: s for metric, found in scores.items()
                 if (s := found.get((str(row.sha256), judged))) is not None},
            )
        )  # fmt: skip
    return samples
