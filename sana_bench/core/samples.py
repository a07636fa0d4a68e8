"""What a prompt and a sample are, and the name of the summary over all tasks."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sana_bench.core.fingerprint import fingerprint

__all__ = ["OVERALL", "FoundImages", "Prompt", "Sample", "prompts_sha256"]

OVERALL = "overall"


@dataclass(frozen=True, slots=True)
class Prompt:
    """One line of a prompt set. `id` is stable across runs, `tag` is the task it counts for."""

    id: str
    text: str
    tag: str
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Identity of the text that images are made from."""
        return fingerprint(self.text)

    @property
    def judged_sha256(self) -> str:
        """Identity of everything about the prompt that a metric may look at."""
        return fingerprint({"text": self.text, "tag": self.tag, "metadata": self.metadata})


def prompts_sha256(prompts: Iterable[Prompt]) -> str:
    """Identity of the prompts of a benchmark, in their order."""
    return fingerprint([[prompt.id, prompt.text, prompt.tag, prompt.metadata] for prompt in prompts])


@dataclass(frozen=True, slots=True)
class Sample:
    """One image that a suite asks for, and everything needed to judge it: what metrics are given.

    `image_path` is where the image lies, or is to lie once it is made.
    """

    variant: str
    benchmark: str
    prompt: Prompt
    index: int
    image_path: Path

    @property
    def id(self) -> str:
        """Identity within one variant and benchmark, e.g. `00012/00003`."""
        return f"{self.prompt.id}/{self.index:05d}"

    @property
    def place(self) -> tuple[str, int]:
        """Prompt id and sample index: the key of the sample within its cell."""
        return self.prompt.id, self.index


@dataclass(frozen=True)
class FoundImages:
    """Images that exist already: `files` by prompt id and sample index, and a line for each file that is no sample's."""

    files: Mapping[tuple[str, int], Path]
    surplus: tuple[str, ...] = ()
