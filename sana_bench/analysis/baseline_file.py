"""A baseline as one file: everything of a variant that a comparison needs, to be kept under version control.

JSON, a line for each prompt, number and image: the benchmarks with their prompts, the variant's settings, what each number was
made with, the scores of every image, and for distances between sets what their comparison needs of the images. No images.
"""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from sana_bench import __version__
from sana_bench.analysis.compare import Selected
from sana_bench.core import atomic
from sana_bench.core.errors import IncompleteError, UsageError
from sana_bench.core.fingerprint import fingerprint
from sana_bench.core.registry import MEASURED
from sana_bench.core.samples import OVERALL, Prompt, Sample
from sana_bench.core.text import read_text
from sana_bench.metrics.fid.compare import NotMeasuredError, evidence_of, in_order, reference_of
from sana_bench.results.reader import RunResults, SampleResult, VariantResults
from sana_bench.results.run_folder import RunFiles, image_path, is_path_name
from sana_bench.results.schema import ImageRow, ScoreRecord, SummaryRecord
from sana_bench.results.stored_suite import StoredBenchmark, StoredSuite, StoredVariant
from sana_bench.suites.config_files import Document, validate

__all__ = ["read_baseline", "write_baseline"]

_KIND: Final = "sana-bench baseline"
_VERSION: Final = 1
#: What is kept of where the numbers come from.
_PROVENANCE = ("updated", "code", "packages", "device", "device_name")
# Far beyond any score, and far from where squares overflow.
_Number = Annotated[float, Field(strict=True, ge=-1e30, le=1e30)]
_Count = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Score(_Part):
    value: _Number
    correct: bool | None = None


class _Image(_Part):
    benchmark: str
    prompt: str
    index: _Count
    sha256: str
    seconds: Annotated[float, Field(gt=0, le=1e30)] | None = None
    batch_size: int | None = None
    device: str | None = None
    scores: dict[str, _Score] = {}


class _Evidence(_Part):
    """Of a set: features of the images in order as base64 of float32, `width` an image, or numbers, by group or prompt."""

    benchmark: str
    metric: str
    numbers: list[_Number] = []
    features: str = ""
    width: _Count = 0


class _Prompt(_Part):
    benchmark: str
    id: str
    text: str
    tag: str
    metadata: dict[str, Any] = {}


class _Metric(_Part):
    key: str
    identity: dict[str, Any]


class _Variant(_Part):
    name: str
    fingerprint: str
    settings: dict[str, Any]


class _File(_Part):
    kind: Literal["sana-bench baseline"]
    version: Literal[1]
    sana_bench: str
    run: str
    created: str
    suite: str
    tier: str
    seed: int
    provenance: dict[str, Any]
    variant: _Variant
    benchmarks: list[StoredBenchmark]
    metrics: list[_Metric]
    numbers: list[SummaryRecord]
    prompts: list[_Prompt]
    images: list[_Image]
    evidence: list[_Evidence]


def write_baseline(side: Selected, path: Path) -> list[str]:
    """Write a variant of a run as a baseline; return a line for each number that comparisons will lack something of.

    Raises:
        IncompleteError: the variant lacks images or scores: nothing could be compared with it.
        UsageError: `path` is a file that is no baseline, which is not replaced.
    """
    run, variant = side
    if not variant.complete:
        first = next(reason for found in variant.reasons.values() for reason in found)
        raise IncompleteError(f"{run.run_id}:{variant.name}: {first}; a baseline is complete")
    if path.exists() and (not path.is_file() or not _is_baseline(path)):
        raise UsageError(f"{path}: is there already, and is no baseline")
    evidence, lacking = _evidence(run, variant)
    provenance = run.row["provenance"]
    file = _File(
        kind=_KIND,
        version=_VERSION,
        sana_bench=__version__,
        run=run.run_id,
        created=str(run.row["created"]),
        suite=run.suite.name,
        tier=run.suite.tier,
        seed=run.suite.seed,
        provenance={name: provenance[name] for name in _PROVENANCE if name in provenance},
        variant=_Variant(
            name=variant.name,
            fingerprint=variant.described.fingerprint,
            settings=dict(variant.described.settings),
        ),
        benchmarks=list(run.suite.benchmarks),
        metrics=[_Metric(key=key, identity=found) for key, found in sorted(variant.identities.items())],
        numbers=variant.summaries,
        prompts=[
            _Prompt(benchmark=name, id=prompt.id, text=prompt.text, tag=prompt.tag, metadata=prompt.metadata)
            for name, prompts in run.prompts.items()
            for prompt in prompts.values()
        ],
        images=[_image(sample) for sample in variant.samples],
        evidence=evidence,
    )
    data = file.model_dump(mode="json", exclude_defaults=True)
    atomic.write_text(path, _text({**data, "sha256": fingerprint(data)}))
    return lacking


def read_baseline(path: Path) -> Selected:
    """Read a baseline as a run of one variant; its images are elsewhere.

    Raises:
        UsageError: in one line, for a file that is no baseline, is damaged, or is of a newer version.
    """
    data = _read(path)
    version = data.get("version")
    if isinstance(version, int) and version > _VERSION:
        raise UsageError(
            f"{path}: baseline version {version} is newer than this sana-bench, which reads up to {_VERSION}"
        )
    written = data.pop("sha256", None)
    try:
        found: str | None = fingerprint(data)
    except (ValueError, RecursionError):  # a number that is none, half of a character, or too deep
        found = None
    if found is None or written != found:
        raise UsageError(f"{path}: damaged baseline: it is not as it was written; export it again")
    return _Reading(path, validate(_File, Document(path, data))).selected()


def _is_baseline(path: Path) -> bool:
    try:
        _read(path)
    except UsageError:
        return False
    return True


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(read_text(path))
    except OSError as error:
        raise UsageError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict) or data.get("kind") != _KIND:
        raise UsageError(f"{path}: no baseline; sana-bench baseline export makes one")
    return data


def _image(one: SampleResult) -> _Image:
    scores = {
        metric: _Score(value=score.value, correct=score.details.get("correct"))
        for metric, score in one.scores.items()
    }
    row = one.image
    return _Image(
        benchmark=one.benchmark, prompt=one.prompt.id, index=one.index, sha256=str(row.sha256),
        seconds=row.seconds, batch_size=row.batch_size, device=row.device, scores=scores,
    )  # fmt: skip


def _evidence(run: RunResults, variant: VariantResults) -> tuple[list[_Evidence], list[str]]:
    """What comparisons of distances between sets need, and a line for each whose features or reference are lost."""
    found, lacking = [], []
    for row in variant.summaries:
        samples = variant.samples_of(row.benchmark)
        if row.key != OVERALL or row.metric in MEASURED or any(row.metric in one.scores for one in samples):
            continue
        try:
            identity = variant.identities[row.metric_key]
            evidence = evidence_of(run, identity, in_order(samples), reference_of((run,), identity))
        except NotMeasuredError as reason:
            lacking.append(f"{row.benchmark}/{row.metric} cannot be compared: {reason}")
            continue
        is_numbers = evidence.ndim == 1
        found.append(
            _Evidence(
                benchmark=row.benchmark,
                metric=row.metric,
                numbers=evidence.tolist() if is_numbers else [],
                features=""
                if is_numbers
                else base64.b64encode(evidence.astype("<f4").tobytes()).decode("ascii"),
                width=0 if is_numbers else evidence.shape[1],
            )
        )
    return found, lacking


def _text(data: dict[str, Any]) -> str:
    """JSON with a line for each entry of a list, so that a change shows as the lines that changed."""

    def line(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    parts = []
    for key, value in data.items():
        entries = ",\n".join(map(line, value)) if isinstance(value, list) else ""
        parts.append(f"{line(key)}: " + (f"[\n{entries}\n]" if isinstance(value, list) else line(value)))
    return "{\n" + ",\n".join(parts) + "\n}\n"


class _Reading:
    """A file of the right form, whose parts are put together and held against each other."""

    def __init__(self, path: Path, file: _File) -> None:
        self._path = path
        self._file = file
        self._files = RunFiles(Path("runs", file.run))
        self._benchmarks = {one.name: one for one in file.benchmarks}
        self._prompts: dict[str, dict[str, Prompt]] = {name: {} for name in self._benchmarks}

    def selected(self) -> Selected:
        file = self._file
        metrics = {row.metric for row in file.numbers}
        for name in (file.run, file.variant.name, *self._benchmarks, *metrics):
            self._need(is_path_name(name), f"{name!r} is no name")
        for prompt in file.prompts:
            own = self._prompts.get(prompt.benchmark, {})
            known = prompt.benchmark in self._benchmarks and prompt.id not in own
            self._need(known and is_path_name(prompt.id), f"prompt {prompt.id!r} is not one of a benchmark")
            own[prompt.id] = Prompt(prompt.id, prompt.text, prompt.tag, prompt.metadata)
        identities = {one.key: one.identity for one in file.metrics}
        for row in file.numbers:
            identity = identities.get(row.metric_key, {})
            of = {"name": row.metric, "protocol": row.protocol, "identity": identity}
            known = row.benchmark in self._benchmarks and fingerprint(of) == row.metric_key
            self._need(known, f"the number {row.metric} is of nothing that is in it")
            # Times of two variants are compared by what their identities share.
            self._need(isinstance(identity.get("metric", ""), str), f"the identity of {row.metric} is none")
        described = StoredVariant(file.variant.name, file.variant.fingerprint, file.variant.settings)
        samples = [self._sample(image) for image in file.images]
        places = {(one.benchmark, *one.sample.place) for one in samples}
        self._need(len(places) == len(samples), "an image is in it twice")
        suite = StoredSuite(
            file.suite, file.tier, file.seed, tuple(file.benchmarks), (described,), document={}
        )
        reasons: dict[str, list[str]] = {name: [] for name in self._benchmarks}
        variant = VariantResults(
            described, {}, samples, file.numbers, reasons, identities, evidence=self._evidence(samples)
        )
        known_of_it = {"created": file.created, "provenance": file.provenance}
        variants = {described.name: variant}
        run = RunResults(self._path.parent, self._files, suite, self._prompts, known_of_it, variants)
        return run, variant

    def _sample(self, image: _Image) -> SampleResult:
        where = f"image {image.prompt}/{image.index} of {image.benchmark}"
        prompt = self._prompts.get(image.benchmark, {}).get(image.prompt)
        if prompt is None or image.index >= self._benchmarks[image.benchmark].images_per_prompt:
            raise self._damaged(f"{where} is none that a benchmark asks for")
        for metric in set(image.scores) & set(MEASURED):
            self._need(image.scores[metric].value > 0, f"{where} has a time that is none")
        variant = self._file.variant
        place = image_path(variant.name, variant.fingerprint, image.benchmark, prompt.id, image.index)
        sample = Sample(variant.name, image.benchmark, prompt, image.index, self._files.directory / place)
        row = ImageRow(
            prompt.id, image.index, prompt.sha256, "ok", None, image.sha256, None,
            image.seconds, image.batch_size, image.device,
        )  # fmt: skip
        scores = {
            metric: ScoreRecord(
                image.sha256,
                prompt.judged_sha256,
                score.value,
                {} if score.correct is None else {"correct": score.correct},
            )
            for metric, score in image.scores.items()
        }
        return SampleResult(sample, row, scores)

    def _evidence(self, samples: Sequence[SampleResult]) -> dict[tuple[str, str], NDArray[Any]]:
        found: dict[tuple[str, str], NDArray[Any]] = {}
        for one in self._file.evidence:
            n_images = sum(sample.benchmark == one.benchmark for sample in samples)
            if one.numbers:
                found[one.benchmark, one.metric] = np.array(one.numbers)
                continue
            try:
                rows = np.frombuffer(base64.b64decode(one.features, validate=True), "<f4")
                rows = rows.reshape(n_images, one.width)
            except ValueError:
                raise self._damaged(f"features of {one.metric} that are not {n_images} images'") from None
            self._need(bool(np.isfinite(rows).all()), f"features of {one.metric} that are not finite")
            found[one.benchmark, one.metric] = rows
        return found

    def _need(self, holds: bool, problem: str) -> None:
        if not holds:
            raise self._damaged(problem)

    def _damaged(self, problem: str) -> UsageError:
        return UsageError(f"{self._path}: damaged baseline: {problem}")
