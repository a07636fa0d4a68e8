"""What the runner asks of a source of images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sana_bench.core.cut_texts import CutTexts
from sana_bench.core.errors import SuiteError
from sana_bench.core.samples import Sample
from sana_bench.suites.cells import Cell
from sana_bench.suites.schema import Variant

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "CutsPrompts",
    "Generator",
    "HasStages",
    "OutOfMemoryError",
    "PreparesPrompts",
    "Request",
    "Stage",
    "TellsCost",
    "TellsFormat",
    "refuse_sana_settings",
    "request_for",
]


def refuse_sana_settings(variant: Variant) -> None:
    """Raise `SuiteError` for a setting that another generator than sana would silently ignore."""
    if variant.model.tiling is not None:
        raise SuiteError(f"variant {variant.name!r}: model.tiling belongs to generator sana")
    if variant.kernels != "auto":
        raise SuiteError(f"variant {variant.name!r}: kernels belongs to generator sana")
    if variant.model.autoencoder is not None:
        raise SuiteError(f"variant {variant.name!r}: model.autoencoder belongs to generator sana")
    if variant.lora is not None:
        raise SuiteError(f"variant {variant.name!r}: lora belongs to generator sana")
    if variant.quantization != "none":
        raise SuiteError(f"variant {variant.name!r}: quantization belongs to generator sana")
    if variant.compile != "none" or variant.cuda_graphs:
        raise SuiteError(f"variant {variant.name!r}: compile and cuda_graphs belong to generator sana")
    if not isinstance(variant.plain_precision, str):
        raise SuiteError(f"variant {variant.name!r}: precision by network belongs to generator sana")


class OutOfMemoryError(Exception):
    """A batch did not fit into the device's memory; a smaller one may."""


@dataclass(frozen=True)
class Request:
    """One image to make, as a generator is told: the prompt, the seed of its initial noise, and which of the prompt's images.

    `prompt_id` is the benchmark's name of the prompt, which tells prompts of equal text apart; empty where there is none.
    `original` is the prompt before it was rewritten, where it was: what a judge judges against.
    """

    prompt: str
    noise_seed: int
    index: int = 0
    prompt_id: str = ""
    original: str | None = None

    @property
    def judged_prompt(self) -> str:
        """The text that the image is to show."""
        return self.prompt if self.original is None else self.original


def request_for(cell: Cell, sample: Sample) -> Request:
    """What a generator is told of a sample. Images that exist are found by the prompt, whatever their model was given."""
    own = sample.prompt.text
    given = cell.given_text(sample.prompt) if cell.variant.variant.generates else own
    original = own if given != own else None
    return Request(given, cell.noise_seed(sample), sample.index, sample.prompt.id, original)


class Generator(Protocol):
    """Turns a batch of requests into images; a pure function of the requests and its own settings."""

    def generate(self, requests: list[Request]) -> "np.ndarray | Sequence[np.ndarray]":
        """Return uint8 images of shape (len(requests), height, width, 3), in order; a list where their sizes may differ.

        Raises `OutOfMemoryError` when the batch is too large for the device and `SampleError` when the output
        of any request is not an image (for instance not finite).
        """
        ...


@runtime_checkable
class PreparesPrompts(Protocol):
    """A generator that can do work for a prompt once, before its images are made and timed."""

    def prepare(self, prompt: str) -> None:
        """Do what `generate` will not have to do again for this prompt."""
        ...


@runtime_checkable
class CutsPrompts(Protocol):
    """A generator whose text encoders take a limited number of tokens."""

    def cut_texts(self, prompts: Sequence[str]) -> list[CutTexts]:
        """How many of these texts each text encoder is given without their end."""
        ...


@dataclass(frozen=True)
class Stage:
    """A part of the work of an image: every call of `owner.method` counts to it. Stages do not contain one another."""

    name: str
    owner: Any
    method: str


@runtime_checkable
class TellsCost(Protocol):
    """A generator that makes more images than it gives."""

    def cost(self, request: Request) -> dict[str, float] | None:
        """What the image of a request of the last call cost; None where that is counted with another image."""
        ...


@runtime_checkable
class TellsFormat(Protocol):
    """A generator that hands out images of files."""

    def source_format(self, request: Request) -> str | None:
        """`jpeg` where the image of a request was decoded from a JPEG, so that no metric compresses it again; else None."""
        ...


@runtime_checkable
class HasStages(Protocol):
    """A generator whose time can be split."""

    def stages(self) -> Sequence[Stage]:
        """The parts in order; a part of the name `transformer step` is called once a step."""
        ...

    def forget(self) -> None:
        """Drop what was kept of earlier prompts, so that the next image pays for its text."""
        ...
