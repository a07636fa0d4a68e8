"""One variant on one benchmark as plain data, with every identity that decides what can be reused."""

import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sana_bench.core.fingerprint import fingerprint, image_key, short
from sana_bench.core.on_demand import OnDemand
from sana_bench.core.registry import BENCHMARKS, GENERATORS, METRICS
from sana_bench.core.samples import FoundImages, Prompt, Sample, prompts_sha256
from sana_bench.results.run_folder import image_path
from sana_bench.suites.rewrites import PromptRewrites
from sana_bench.suites.schema import THROUGHPUT_PARAMETERS, MetricSpec, Suite, Variant, source_of
from sana_bench.suites.tiers import TierChoice
from sana_kernels import Backend

__all__ = [
    "NOISE_VERSION",
    "NO_WEIGHTS",
    "Cell",
    "GeneratorSpec",
    "ResolvedBenchmark",
    "ResolvedSuite",
    "ResolvedVariant",
    "joined_images",
    "limited",
    "noise_seed",
]

NOISE_VERSION = "sana-bench noise v1"


def noise_seed(suite_seed: int, benchmark: str, prompt_id: str, index: int) -> int:
    """Return the seed in [0, 2**63) of one sample's noise.

    It is the first 8 bytes (little endian, top bit dropped) of the SHA-256 over the five parts, each preceded
    by its length, so that no two different samples share an input.
    """
    digest = hashlib.sha256()
    for part in (NOISE_VERSION, str(suite_seed), benchmark, prompt_id, str(index)):
        encoded = part.encode("utf-8")
        digest.update(struct.pack("<Q", len(encoded)))
        digest.update(encoded)
    return int.from_bytes(digest.digest()[:8], "little") & (2**63 - 1)


@dataclass(frozen=True)
class GeneratorSpec:
    """A variant with its weights found on this machine.

    `text_cache` is a folder for text embeddings that all variants of a run share, `search_cache` one for unfinished and finished
    searches of best-of-N; None keeps none on disk. Relative paths of the variant start from `variants_dir`.
    `lora_path` is the file of the variant's LoRA, and `lora_sha256` the hash of what is read of it; `autoencoder_path` and
    `autoencoder_sha256` are those of an autoencoder that is not the weights' own.
    `found` are existing images that were matched to the prompts before.
    """

    variant: Variant
    weights_path: Path
    weights_sha256: str
    text_cache: Path | None = None
    search_cache: Path | None = None
    variants_dir: Path | None = None
    lora_path: Path | None = None
    lora_sha256: str = ""
    autoencoder_path: Path | None = None
    autoencoder_sha256: str = ""
    found: FoundImages | None = None

    @property
    def lora(self) -> dict[str, Any] | None:
        """What identifies the variant's LoRA: its content, wherever it lies, and its scale."""
        lora = self.variant.lora
        return None if lora is None else {"sha256": self.lora_sha256, "scale": lora.scale}

    @property
    def generator(self) -> str:
        """The registered name of the generator."""
        return self.variant.generator


# What a variant of a generator without weights gives as `model.weights`.
NO_WEIGHTS = "none"


def joined_images(metrics: Iterable[MetricSpec], images_per_prompt: int) -> int:
    """How many of a prompt's images some of these metrics join; 1 where none does, or where there is one image a prompt."""
    if images_per_prompt == 1:
        return 1
    named = (spec for spec in metrics if spec.name in METRICS)
    return max((METRICS.entry(spec.name).joins.get(str(spec.protocol), 1) for spec in named), default=1)


def limited(n_samples: int, limit: int | None, joins: int) -> int:
    """How many of so many samples `--limit` leaves: images that are joined stay together."""
    return n_samples if limit is None else min(n_samples, -(-limit // joins) * joins)


@dataclass(frozen=True)
class ResolvedBenchmark:
    """A benchmark with its defaults filled in and its prompts loaded."""

    name: str
    prompts: tuple[Prompt, ...]
    images_per_prompt: int
    metrics: tuple[str, ...]
    # Metrics that the suite gives a protocol or parameters; all others use their defaults.
    choices: tuple[MetricSpec, ...] = ()
    # By metric, the hash of the file or folder that its choice names.
    contents: Mapping[str, str] = field(default_factory=dict)
    # Keys of the model that it changes of every variant.
    settings: Mapping[str, Any] = field(default_factory=dict)

    def choice(self, metric: str) -> MetricSpec:
        """The metric with the protocol and parameters to use."""
        return next((spec for spec in self.choices if spec.name == metric), MetricSpec(name=metric))

    @property
    def throughput_batch(self) -> int | None:
        """The one batch size that throughput is asked for; None for the best of a sweep."""
        return self.choice("throughput").parameters_among(THROUGHPUT_PARAMETERS)["batch_size"] or None

    @property
    def n_samples(self) -> int:
        """Images that each variant needs."""
        return len(self.prompts) * self.images_per_prompt

    @cached_property
    def joins(self) -> int:
        """How many images of a prompt are looked at together: more than 1 where a protocol joins them, and there are several."""
        return joined_images(self.choices, self.images_per_prompt)

    def at_most(self, limit: int | None) -> int:
        """The number of samples that `--limit` leaves."""
        return limited(self.n_samples, limit, self.joins)

    @cached_property
    def places(self) -> tuple[tuple[Prompt, int], ...]:
        """Prompt and index of all samples in the order of work: first indices first, tasks in turn.

        Any beginning of this order is spread over the tasks, which is what `--limit` takes. Images that are joined follow one
        another.
        """
        by_tag: dict[str, list[Prompt]] = {}
        for prompt in self.prompts:
            by_tag.setdefault(prompt.tag, []).append(prompt)
        longest = max(map(len, by_tag.values()), default=0)
        spread = [group[turn] for turn in range(longest) for group in by_tag.values() if turn < len(group)]
        return tuple(
            (prompt, index)
            for first in range(0, self.images_per_prompt, self.joins)
            for prompt in spread
            for index in range(first, first + self.joins)
        )

    def describe(self) -> dict[str, Any]:
        """Return what identifies the benchmark in a run."""
        plugin = BENCHMARKS.plugin(source_of(self.name))
        return {
            **({"plugin": plugin.identity} if plugin is not None else {}),
            "name": self.name,
            "images_per_prompt": self.images_per_prompt,
            "metrics": list(self.metrics),
            **(
                {"choices": [spec.describe(self.contents.get(spec.name)) for spec in self.choices]}
                if self.choices
                else {}
            ),
            **({"settings": dict(self.settings)} if self.settings else {}),
            "n_prompts": len(self.prompts),
            "prompts_sha256": prompts_sha256(self.prompts),
        }


@dataclass(frozen=True)
class ResolvedVariant:
    """A variant whose weights were found and hashed; `search` is what identifies the search of a best-of-N variant.

    `rewrites` are the texts that the model is given where they are not the prompts.
    """

    spec: GeneratorSpec
    suite_seed: int
    kernels: Backend = "torch"
    search: Mapping[str, Any] | None = None
    rewrites: PromptRewrites | None = None

    @property
    def variant(self) -> Variant:
        """The validated variant file."""
        return self.spec.variant

    @property
    def name(self) -> str:
        """The variant's name."""
        return self.spec.variant.name

    def identity(self) -> dict[str, Any]:
        """Return the settings that change images; names and descriptions do not."""
        variant = self.variant
        return {
            "generator": GENERATORS.entry(variant.generator).revision,
            "noise": NOISE_VERSION,
            "weights_sha256": self.spec.weights_sha256,
            # Only where there is one: other variants keep the identity that they had.
            **({"weights_variant": variant.model.weights_variant} if variant.model.weights_variant else {}),
            "height": variant.model.height,
            "width": variant.model.width,
            "instruction": variant.model.instruction,
            "conditioning": variant.model.conditioning,
            "sampler": variant.sampler.model_dump(mode="json") if variant.sampler else None,
            "tiling": variant.model.tiling.model_dump(mode="json") if variant.model.tiling else None,
            "precision": variant.plain_precision,
            **({"tf32": variant.tf32} if variant.tf32 is not None else {}),
            "quantization": variant.quantization,
            # Named where it is not plain PyTorch, which made every image before there was a choice.
            **({"kernels": self.kernels} if self.kernels != "torch" else {}),
            **({"compile": variant.compile} if variant.compile != "none" else {}),
            **({"cuda_graphs": True} if variant.cuda_graphs else {}),
            "suite_seed": self.suite_seed,
            # Only where there is one: other variants keep the identity that they had.
            **({"autoencoder": self.spec.autoencoder_sha256} if self.spec.autoencoder_sha256 else {}),
            **({"lora": self.spec.lora} if self.spec.lora is not None else {}),
            **({"best_of_n": dict(self.search)} if self.search is not None else {}),
            **({"prompt_rewrites": self.rewrites.sha256} if self.rewrites is not None else {}),
        }

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that changes the variant's images."""
        return fingerprint(self.identity())


@dataclass(frozen=True)
class Cell:
    """One variant on one benchmark: the unit that is generated and scored together."""

    variant: ResolvedVariant
    benchmark: ResolvedBenchmark

    @cached_property
    def image_key(self) -> str:
        """Identity, with prompt and sample index, of an image of this cell in any run."""
        return image_key(self.variant.fingerprint, self.benchmark.name, self.benchmark.settings)

    @cached_property
    def spec(self) -> GeneratorSpec:
        """What the images are made with: the variant, with the settings that the benchmark changes."""
        variant = self.variant.variant
        model = variant.model.model_copy(update=dict(self.benchmark.settings))
        return replace(self.variant.spec, variant=variant.model_copy(update={"model": model}))

    @property
    def label(self) -> str:
        """How messages call the cell."""
        return f"{self.benchmark.name} / {self.variant.name}"

    @property
    def samples(self) -> Sequence[Sample]:
        """All samples in the order of work, each with the path of its image relative to the run directory."""
        return OnDemand(self._sample, range(self.benchmark.n_samples))

    def given_text(self, prompt: Prompt) -> str:
        """The text that the model is given for a prompt: the prompt's own, or what a rewriter made of it."""
        rewrites = self.variant.rewrites
        found = rewrites.text(self.benchmark.name, prompt.id) if rewrites is not None else None
        return prompt.text if found is None else found

    def _sample(self, number: int) -> Sample:
        prompt, index = self.benchmark.places[number]
        return Sample(
            self.variant.name, self.benchmark.name, prompt, index, self.image_path(prompt.id, index)
        )

    def image_path(self, prompt_id: str, index: int) -> Path:
        """Path of a sample's image relative to the run directory."""
        return image_path(self.variant.name, self.variant.fingerprint, self.benchmark.name, prompt_id, index)

    def noise_seed(self, sample: Sample) -> int:
        """Seed of the sample's initial noise; the winners of one search share that of the first."""
        search = self.variant.variant.best_of_n
        first = sample.index - sample.index % search.keep if search is not None else sample.index
        return noise_seed(self.variant.suite_seed, self.benchmark.name, sample.prompt.id, first)


@dataclass(frozen=True)
class ResolvedSuite:
    """A suite ready to run on this machine."""

    suite: Suite
    tier: TierChoice
    benchmarks: tuple[ResolvedBenchmark, ...]
    variants: tuple[ResolvedVariant, ...]

    @property
    def seed(self) -> int:
        """The suite's seed."""
        return self.suite.file.seed

    def describe(self) -> dict[str, Any]:
        """Return the suite with every default and hash filled in, as plain data."""
        return {
            "schema_version": self.suite.file.schema_version,
            "name": self.suite.file.name,
            "tier": self.tier.tier,
            "seed": self.seed,
            "benchmarks": [benchmark.describe() for benchmark in self.benchmarks],
            "variants": [
                {
                    **variant.variant.model_dump(mode="json"),
                    "weights_sha256": variant.spec.weights_sha256,
                    "fingerprint": variant.fingerprint,
                }
                for variant in self.variants
            ],
        }

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the run: what is asked for, not how far it got or from which folder it was started."""
        described = self.describe()
        described["variants"] = [[variant.name, variant.fingerprint] for variant in self.variants]
        return fingerprint(described)

    @property
    def run_id(self) -> str:
        """Name of the run directory."""
        return f"{self.suite.file.name}-{self.tier.tier}-{short(self.fingerprint)}"

    def cells(self, selected: Sequence[str] | None = None) -> list[Cell]:
        """Return the cells of the selected variants (all by default), benchmark by benchmark."""
        variants = self.variants
        if selected is not None:
            names = {self.suite.variant(name).name for name in selected}
            variants = tuple(variant for variant in variants if variant.name in names)
        return [Cell(variant, benchmark) for benchmark in self.benchmarks for variant in variants]
