"""A small world for tests of the runner: a benchmark, two metrics and a generator that need no model.

`python -m tests.runner.fakes` is the `sana-bench` command with these installed, so that a test can kill a real process;
its first argument is the time of one scoring call in seconds.
"""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import ClassVar

import numpy as np

from sana_bench.core.errors import SampleError
from sana_bench.core.fingerprint import FileHashes
from sana_bench.core.images import load_image
from sana_bench.core.registry import BENCHMARKS, GENERATORS, JUDGES, METRICS, Entry
from sana_bench.core.samples import Prompt, Sample
from sana_bench.generators.base import OutOfMemoryError, Request
from sana_bench.judges.base import YesNo
from sana_bench.metrics.base import ScoreRow, Summary
from sana_bench.suites.cells import Cell, GeneratorSpec
from tests import suite_files

TAGS = ("circles", "squares", "stars")
N_PROMPTS = 6
SIZE = 16
LARGEST_BATCH = 64
SCORING_SECONDS = 0.005  # of one call, whatever its size


class Shapes:
    name = "shapes"
    default_images_per_prompt = 4
    metric_names = ("redness", "spread")

    def prompts(self, tier: str) -> list[Prompt]:
        per_tag = N_PROMPTS // len(TAGS)
        return [
            Prompt(
                f"{line:05d}", f"{tier} {TAGS[line // per_tag]} {line}", TAGS[line // per_tag], {"line": line}
            )
            for line in range(N_PROMPTS)
        ]


class Redness:
    """Mean of the red channel; `correct` when it is above the middle."""

    name = "redness"
    protocol = "redness/test@1"
    higher_is_better = True

    def identity(self) -> dict[str, object]:
        return {"version": 1}

    def score(self, samples: Sequence[Sample]) -> list[ScoreRow]:
        time.sleep(SCORING_SECONDS)
        rows = []
        for sample in samples:
            value = float(load_image(sample.image_path)[..., 0].mean())
            details = {"correct": value > 127.5, "reasons": [], "detections": []}
            rows.append(ScoreRow(sample.id, sample.prompt.id, sample.prompt.tag, value, details))
        return rows

    def summarise(self, rows: Sequence[ScoreRow], n_expected: int, seed: int) -> list[Summary]:
        keys = ["overall", *sorted({row.tag for row in rows})]
        return [
            self._summary(key, [r for r in rows if key in ("overall", r.tag)], n_expected) for key in keys
        ]

    def _summary(self, key: str, rows: Sequence[ScoreRow], n_expected: int) -> Summary:
        values = np.array([row.value for row in rows])
        expected = n_expected if key == "overall" else n_expected // len(TAGS)
        prompts = len({row.prompt_id for row in rows})
        counts = (len(rows), expected, prompts)
        return Summary(
            self.name, self.protocol, key, float(values.mean()), float(values.min()), float(values.max()),
            *counts, "grey levels", self.higher_is_better,
        )  # fmt: skip


class Spread:
    """Total variance of 4-number features of the set; no value per image."""

    name = "spread"
    protocol = "spread/test@1"
    higher_is_better = False
    feature_key = "corner-means@1"
    computed = 0

    def identity(self) -> dict[str, object]:
        return {"version": 1}

    def features(self, samples: Sequence[Sample]) -> np.ndarray:
        time.sleep(SCORING_SECONDS)
        type(self).computed += len(samples)
        half = SIZE // 2
        images = np.stack([load_image(sample.image_path) for sample in samples]).astype(np.float32)
        corners = [
            images[:, y : y + half, x : x + half].mean(axis=(1, 2, 3)) for y in (0, half) for x in (0, half)
        ]
        return np.stack(corners, axis=1)

    def score_features(self, samples: Sequence[Sample], features: np.ndarray) -> list[ScoreRow]:
        return []

    def summarise_features(
        self,
        samples: Sequence[Sample],
        feature_chunks: Iterable[tuple[list[Sample], np.ndarray]],
        n_expected: int,
        seed: int,
    ) -> list[Summary]:
        features = np.concatenate([chunk for _, chunk in feature_chunks]).astype(np.float64)
        value = float(features.var(axis=0).sum())
        prompts = len({sample.prompt.id for sample in samples})
        counts = (len(samples), n_expected, prompts)
        return [Summary(self.name, self.protocol, "overall", value, value, value, *counts, "", False)]


class FakeGenerator:
    """Images drawn from the noise seed alone, `steps` milliseconds a batch; prompts can ask for trouble.

    `batches` lists the batch sizes of every successful call in this process.
    """

    batches: ClassVar[list[int]] = []
    largest_batch = LARGEST_BATCH
    failing: tuple[str, ...] = ()

    def __init__(self, spec: GeneratorSpec, device: str) -> None:
        self._sampler = spec.variant.sampler

    def generate(self, requests: list[Request]) -> np.ndarray:
        if len(requests) > self.largest_batch:
            raise OutOfMemoryError(f"{len(requests)} images do not fit")
        if any(request.prompt.endswith(self.failing) for request in requests if self.failing):
            raise SampleError("the output is not finite")
        time.sleep(self._sampler.steps / 1000)
        self.batches.append(len(requests))
        return np.stack([self._image(request) for request in requests])

    def _image(self, request: Request) -> np.ndarray:
        salt = round(self._sampler.guidance_scale * 1000) + self._sampler.steps * 7919
        generator = np.random.Generator(np.random.Philox(key=[request.noise_seed, salt]))
        return generator.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


class ByMean:
    """A judge that prefers bright images."""

    def __init__(self, *_: object) -> None:
        pass

    def load(self) -> None:
        pass

    def identity(self) -> dict[str, object]:
        return {"judge": "mean@1"}

    def judge(self, prompts: Sequence[str], images: np.ndarray) -> list[YesNo]:
        return [YesNo(float(image.mean()), -float(image.mean())) for image in images]


_WORLD = (
    (
        GENERATORS,
        Entry("fake", lambda *given: FakeGenerator(*given), "fake@1", "sana_bench.generators:find_sana"),
    ),
    (BENCHMARKS, Entry(Shapes.name, Shapes)),
    (METRICS, Entry(Redness.name, lambda *_: Redness())),
    (METRICS, Entry(Spread.name, lambda *_: Spread())),
    (JUDGES, Entry("mean", ByMean, "mean@1")),
)


@contextmanager
def installed() -> Iterator[None]:
    """Make the world known to the registries of this process, for the length of a `with` block."""
    with ExitStack() as stack:
        for registry, entry in _WORLD:
            stack.enter_context(registry.added(entry))
        yield


def write_suite(folder: Path, *, steps: tuple[int, ...] = (4, 2)) -> Path:
    """Write a suite `shapes` with one fake variant per entry of `steps`, and the weights they name."""
    weights = folder / "suites" / "variants" / "weights"
    for part in ("transformer", "vae", "text_encoder"):
        (weights / part).mkdir(parents=True)
        (weights / part / "config.json").write_text("{}")
        (weights / part / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    for name in ("tokenizer/tokenizer.json", "scheduler/scheduler_config.json", "model_index.json"):
        (weights / name).parent.mkdir(exist_ok=True)
        (weights / name).write_text("{}")
    for count in steps:
        sampler = f"sampler: {{name: flow_euler, steps: {count}, guidance_scale: 4.5}}"
        suite_files.write_variant(
            folder / "suites", f"fake-{count}", "generator: fake", sampler,
            tier="micro", weights="./weights", height=SIZE, width=SIZE,
        )  # fmt: skip
    benchmark = "{name: shapes, images_per_prompt: 4, metrics: [redness, spread]}"
    names = [f"fake-{count}" for count in steps]
    return suite_files.write_suite(folder / "suites", benchmark, names, tier="micro", name="shapes")


def search(candidates: int, keep: int = 1) -> str:
    """The section of a variant that chooses among images of the fake generator, made one by one."""
    return f"best_of_n: {{generator: fake, candidates: {candidates}, keep: {keep}, batch_size: 1, judge: {{name: mean}}}}"


def single_cell(folder: Path, steps: int, *searches: str) -> Cell:
    """The cell of a suite with one variant, which makes its images alone or in a search; two images a prompt."""
    from sana_bench.runner.resolve import resolve_suite
    from sana_bench.suites.load import load_suite
    from sana_bench.suites.tiers import choose_tier

    write_suite(folder)
    sampler = f"sampler: {{name: flow_euler, steps: {steps}, guidance_scale: 4.5}}"
    lines = ("generator: best_of_n" if searches else "generator: fake", sampler, *searches)
    place = {"tier": "micro", "weights": "./weights", "height": SIZE, "width": SIZE}
    suite_files.write_variant(folder / "suites", "timed", *lines, **place)
    benchmark = "{name: shapes, images_per_prompt: 2, metrics: [redness]}"
    suite = suite_files.write_suite(folder / "suites", benchmark, ["timed"], tier="micro", name="timed")
    (cell,) = resolve_suite(load_suite(suite, "micro"), choose_tier("micro"), FileHashes()).cells()
    return cell


class World:
    """A folder with a suite of fake variants, and the runner on it in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.suite = write_suite(folder)
        self.output = folder / "results"

    def run(self, **options: object) -> int:
        """Run the suite on the micro tier; return the exit code."""
        from sana_bench.runner.run import RunOptions, run_suite

        return run_suite(RunOptions(suite=self.suite, output=self.output, tier="micro", **options))

    def images(self) -> list[Path]:
        """Return every image file, sorted."""
        return sorted((self.output / "runs").glob("*/images/**/*.png"))


if __name__ == "__main__":
    from sana_bench.cli.main import main

    SCORING_SECONDS = float(sys.argv.pop(1))
    with installed():
        main()
