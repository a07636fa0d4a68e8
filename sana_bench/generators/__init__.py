"""Where images come from. A generator is found by the name that a variant file gives under `generator`."""

from pathlib import Path

from sana_bench.assets.checks import pipeline_class
from sana_bench.assets.locate import resolve_folder, resolve_weights
from sana_bench.core.errors import SuiteError
from sana_bench.core.registry import GENERATORS
from sana_bench.generators.base import Generator
from sana_bench.suites.cells import GeneratorSpec
from sana_bench.suites.schema import Variant

__all__ = ["build", "find", "find_sana"]


def find(variant: Variant, relative_to: Path) -> Path | None:
    """Return the folder with a variant's weights or images, None for a generator without any; nothing is loaded or downloaded.

    What is in the folder of a plug-in's weights is the plug-in's own affair. Raises `SuiteError` for settings that the
    generator has no use for and `AssetError` that names what is missing.
    """
    finder = GENERATORS.entry(variant.generator).load_finder()
    if finder is None:
        return resolve_folder(variant.model.weights, relative_to)
    folder: Path | None = finder(variant, relative_to)
    return folder


def build(spec: GeneratorSpec, device: str) -> Generator:
    """Load the generator of a variant onto `device`.

    Raises `SuiteError` for an unknown generator and `AssetError` for weights that are not what they should
    be.
    """
    generator: Generator = GENERATORS.build(spec.generator, spec, device)
    return generator


def find_sana(variant: Variant, relative_to: Path) -> Path:
    """Return a variant's SANA pipeline folder; raises as `find` does."""
    if variant.sampler is None or variant.sampler.name == "pipeline":
        raise SuiteError(
            f"variant {variant.name!r}: generator sana needs a sampler, flow_dpm_solver or flow_euler, or scm for SANA-Sprint"
        )
    parts = variant.precisions
    if "fp16" in (parts.text_encoder, parts.autoencoder):
        raise SuiteError(
            f"variant {variant.name!r}: SANA's text encoder and autoencoder overflow in fp16; write bf16 or fp32"
        )
    folder = resolve_weights(variant.model.weights, relative_to, variant.model.weights_variant)
    is_sprint = pipeline_class(folder) == "SanaSprintPipeline"
    if is_sprint != (variant.sampler.name == "scm"):
        allowed = "scm" if is_sprint else "flow_dpm_solver or flow_euler"
        raise SuiteError(
            f"variant {variant.name!r}: sampler is {variant.sampler.name}; these weights are sampled with {allowed}"
        )
    return folder
