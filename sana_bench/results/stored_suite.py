"""The suite that a run was asked for, read back from its directory as typed data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml

from sana_bench.core.errors import UsageError
from sana_bench.core.fingerprint import fingerprint, image_key, short
from sana_bench.core.text import read_text
from sana_bench.results.documents import Suite, checked

__all__ = ["StoredBenchmark", "StoredSuite", "StoredVariant"]


@dataclass(frozen=True)
class StoredBenchmark:
    """A benchmark as a run was asked for it; `settings` are those that it changed of every variant's model."""

    name: str
    images_per_prompt: int
    metrics: tuple[str, ...]
    n_prompts: int
    prompts_sha256: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def image_key(self, variant: "StoredVariant") -> str:
        """Identity, with prompt and sample index, of the images of a variant on this benchmark."""
        return image_key(variant.fingerprint, self.name, self.settings)

    @property
    def n_samples(self) -> int:
        """Images that each variant needs."""
        return self.n_prompts * self.images_per_prompt

    @classmethod
    def read(cls, described: Mapping[str, Any]) -> Self:
        """Take one entry of the resolved suite."""
        return cls(
            described["name"],
            described["images_per_prompt"],
            tuple(described["metrics"]),
            described["n_prompts"],
            described["prompts_sha256"],
            described.get("settings") or {},
        )


@dataclass(frozen=True)
class StoredVariant:
    """A variant as a run resolved it.

    `settings` is the whole variant file with every default filled in, and the hash of its weights. Runs made before
    `kind`, `derived_from` or `best_of_n` were written down are of full-size models.
    """

    name: str
    fingerprint: str
    settings: Mapping[str, Any]

    @property
    def description(self) -> str:
        """What the variant file says."""
        return str(self.settings.get("description", ""))

    @property
    def derived_from(self) -> str:
        """The variant that this one was made from; empty where there is none."""
        return str(self.settings.get("derived_from") or "")

    @property
    def weights(self) -> str:
        """Where the weights came from."""
        return str((self.settings.get("model") or {}).get("weights", ""))

    @property
    def weights_variant(self) -> str | None:
        """Which of their files were read; None for the plain ones."""
        return (self.settings.get("model") or {}).get("weights_variant")

    @property
    def weights_sha256(self) -> str:
        """SHA-256 over the files of the weights."""
        return str(self.settings.get("weights_sha256", ""))

    @property
    def precision(self) -> str:
        """The number format of the networks, in words."""
        found = self.settings.get("precision", "")
        if isinstance(found, Mapping):
            return ", ".join(f"{network} {format}" for network, format in found.items() if format)
        return str(found)

    @property
    def published(self) -> tuple[str, ...]:
        """The rows of published tables that it reproduces."""
        return tuple(self.settings.get("published") or ())

    @property
    def rewritten(self) -> bool:
        """Whether the model was given other texts than the prompts."""
        return self.settings.get("prompt_rewrites") is not None

    @property
    def generates(self) -> bool:
        """Whether its images were made for the run; otherwise they existed, and reading them took a time of no meaning."""
        return self.settings.get("generator") != "images"

    @property
    def winners_a_search(self) -> int | None:
        """How many images of one search best-of-N keeps; None for a variant that does not search."""
        search = self.settings.get("best_of_n")
        return int(search["keep"]) if search else None

    @property
    def kind(self) -> str:
        """How the variant came to be."""
        return str(self.settings.get("kind", "full"))

    @classmethod
    def read(cls, described: Mapping[str, Any]) -> Self:
        """Take one entry of the resolved suite."""
        settings = {key: value for key, value in described.items() if key not in ("fingerprint", "name")}
        return cls(described["name"], described["fingerprint"], settings)


@dataclass(frozen=True)
class StoredSuite:
    """The suite of a run with every default filled in; `document` is the file as plain data."""

    name: str
    tier: str
    seed: int
    benchmarks: tuple[StoredBenchmark, ...]
    variants: tuple[StoredVariant, ...]
    document: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read `suite.resolved.yaml`; raises `UsageError`, in one line, for a file that is damaged or gone."""
        try:
            document = yaml.safe_load(read_text(path))
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            raise UsageError(f"{path}: damaged suite file: {' '.join(str(error).split())}") from None
        return cls.of(document, f"{path}: damaged suite file")

    @classmethod
    def of(cls, document: Any, where: str) -> Self:
        """Read the content of the file; raises `UsageError`, `where` in front, for anything but a suite that was resolved."""
        checked(Suite, document, where)
        return cls(
            document["name"],
            document["tier"],
            document["seed"],
            tuple(StoredBenchmark.read(described) for described in document["benchmarks"]),
            tuple(StoredVariant.read(described) for described in document["variants"]),
            document,
        )

    @property
    def fingerprint(self) -> str:
        """Identity of the run that the suite is of, as `sana_bench.suites.cells.ResolvedSuite.fingerprint`."""
        named = [[variant.name, variant.fingerprint] for variant in self.variants]
        return fingerprint({**self.document, "variants": named})

    def check_run(self, run_id: str, where: str) -> None:
        """Raise `UsageError`, `where` in front, unless this is the suite of the run of this name, which ends in its hash."""
        if run_id.rpartition("-")[2] != short(self.fingerprint):
            raise UsageError(f"{where}: is not the suite of the run {run_id}: damaged or changed")
