"""A suite whose variants pass a known share of its images, in three tasks of thirty prompts: for runs that stop early.

`python -m tests.runner.dice` is the `sana-bench` command with these installed; its first argument is
the time of a batch in seconds.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from sana_bench.core.errors import SampleError
from sana_bench.core.images import load_image
from sana_bench.core.registry import BENCHMARKS, GENERATORS, METRICS, Entry, Limits
from sana_bench.core.samples import Prompt, Sample
from sana_bench.generators.base import Request
from sana_bench.metrics.base import ScoreRow, Summary, mean_summary
from sana_bench.results.reader import load_run
from sana_bench.results.sequences import StoredSequence
from sana_bench.runner.run import RunOptions, run_suite
from sana_bench.suites.cells import GeneratorSpec
from sana_bench.suites.stop import StopRequest
from tests import suite_files
from tests.runner import fakes
from tests.runner import numbers_of_runs as numbers

TAGS, PER_TAG, IMAGES = ("circles", "squares", "stars"), 30, 2
N = len(TAGS) * PER_TAG * IMAGES
SIZE = fakes.SIZE
DECIDED = StopRequest("decided")


class Many:
    name = "many"
    default_images_per_prompt = IMAGES
    metric_names = ("luck", "spread", "free", "partly")

    def prompts(self, tier: str) -> list[Prompt]:
        return [
            Prompt(
                f"{tag}-{line:02d}", f"{tag} number {line}", tag, {} if tag == "stars" else {"plain": True}
            )
            for tag in TAGS
            for line in range(PER_TAG)
        ]


class Luck:
    """Passes where the red channel is bright."""

    name = "luck"
    protocol = "luck/test@1"
    higher_is_better = True

    def identity(self) -> dict[str, object]:
        return {"version": 1}

    def score(self, samples: Sequence[Sample]) -> list[ScoreRow]:
        found = []
        for one in samples:
            value = float(load_image(one.image_path)[..., 0].mean() > 127)
            details = {"correct": bool(value), "reasons": []}
            found.append(ScoreRow(one.id, one.prompt.id, one.prompt.tag, value, details))
        return found

    def summarise(self, rows: Sequence[ScoreRow], n_expected: int, seed: int) -> list[Summary]:
        return [mean_summary(self, rows, n_expected, seed, unit="fraction", pass_rate=True)]


class Partly(Luck):
    """Of plain prompts alone."""

    name = "partly"
    protocol = "partly/test@1"


class Free(Luck):
    """Its scores could be anything."""

    name = "free"
    protocol = "free/test@1"


class Dice:
    """Bright images, with a chance of a tenth of the guidance scale; variants share their luck. `failing` prompts have none."""

    made: list[tuple[str, int]] = []  # noqa: RUF012
    stop_after: int | None = None
    failing: str | None = None
    seconds = 0.0

    def __init__(self, spec: GeneratorSpec, device: str) -> None:
        self._rate = spec.variant.sampler.guidance_scale / 10

    def generate(self, requests: list[Request]) -> np.ndarray:
        if self.failing is not None and any(self.failing in request.prompt for request in requests):
            raise SampleError("the output is not finite")
        if self.stop_after is not None and len(self.made) >= self.stop_after:
            raise KeyboardInterrupt
        time.sleep(self.seconds)
        self.made.extend((request.prompt_id, request.index) for request in requests)
        return np.stack([self._image(request.noise_seed) for request in requests])

    def _image(self, seed: int) -> np.ndarray:
        rng = np.random.Generator(np.random.Philox(key=[seed, 1]))
        image = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        image[..., 0] = 255 if rng.random() < self._rate else 0
        return image


class World:
    """A suite `many` of the variants `poor`, `fair` and `good`, which pass 30, 50 and 80 % of the images."""

    def __init__(self, folder: Path) -> None:
        fakes.write_suite(folder, steps=())
        for name, rate in (("poor", 3.0), ("fair", 5.0), ("good", 8.0)):
            sampler = f"sampler: {{steps: 1, guidance_scale: {rate}}}"
            suite_files.write_variant(
                folder / "suites", name, "generator: dice", sampler,
                tier="micro", weights="./weights", height=SIZE, width=SIZE,
            )  # fmt: skip
        benchmark = f"{{name: many, images_per_prompt: {IMAGES}, metrics: [luck, spread]}}"
        self.suite = suite_files.write_suite(
            folder / "suites", benchmark, ["poor", "fair", "good"], tier="micro", name="many"
        )
        self.output = folder / "results"

    def run(self, stop: StopRequest = DECIDED, **options: object) -> int:
        options = {"variants": ("poor", "good"), **options}
        return run_suite(RunOptions(suite=self.suite, output=self.output, tier="micro", stop=stop, **options))

    def sequence(self) -> StoredSequence:
        (found,) = load_run(self.output, "latest").sequences
        return found

    def images(self) -> int:
        return len(numbers.image_bytes(self.output))


@contextmanager
def installed() -> Iterator[None]:
    """Make all this known to the registries of this process, for the length of a `with` block."""
    added = (
        (BENCHMARKS, Entry(Many.name, Many)),
        (METRICS, Entry(Luck.name, lambda *_: Luck(), limits=Limits(0, 1, by_task=True))),
        (METRICS, Entry(Partly.name, lambda *_: Partly(), only="plain", limits=Limits(0, 1, by_task=True))),
        (METRICS, Entry(Free.name, lambda *_: Free())),
        (METRICS, Entry("spread", lambda *_: fakes.Spread())),
        (GENERATORS, Entry("dice", Dice, "dice@1", "sana_bench.generators:find_sana")),
    )
    with ExitStack() as stack:
        for registry, entry in added:
            stack.enter_context(registry.added(entry))
        yield


if __name__ == "__main__":
    from sana_bench.cli.main import main

    Dice.seconds = float(sys.argv.pop(1))
    with installed():
        main()
