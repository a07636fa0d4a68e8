"""Where images come from. A generator is found by the name that a variant file gives under `generator`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sana_bench import plugins
from sana_bench.assets import resolve_folder, resolve_weights
from sana_bench.errors import SuiteError, nearest
from sana_bench.generators.base import (
    Generator,
    GeneratorSpec,
    HasStages,
    OutOfMemoryError,
    PreparesPrompts,
    Request,
    SampleError,
    Stage,
    TellsCost,
    TellsFormat,
)
from sana_bench.suite import Variant

__all__ = [
    "Generator",
    "GeneratorSpec",
    "HasStages",
    "OutOfMemoryError",
    "PreparesPrompts",
    "Request",
    "SampleError",
    "Stage",
    "TellsCost",
    "TellsFormat",
    "build",
    "find",
    "is_plugin",
    "names",
    "register",
    "version",
]

Builder = Callable[[GeneratorSpec, str], Generator]
#: From a variant, and the folder that relative paths start from, to its weights on this machine.
Finder = Callable[[Variant, Path], Path]


@dataclass(frozen=True)
class _Registration:
    version: str
    builder: Builder
    finder: Finder


def _find_pipeline(variant: Variant, relative_to: Path) -> Path:
    return resolve_weights(variant.model.weights, relative_to)


def _find_sana(variant: Variant, relative_to: Path) -> Path:
    if variant.sampler is None or variant.sampler.name == "pipeline":
        raise SuiteError(
            f"variant {variant.name!r}: generator sana needs a sampler, flow_dpm_solver or flow_euler"
        )
    return _find_pipeline(variant, relative_to)


def _build_sana(spec: GeneratorSpec, device: str) -> Generator:
    from sana_bench.generators.sana import SanaGenerator

    return SanaGenerator(spec, device)


def _find_diffusers(variant: Variant, relative_to: Path) -> Path:
    from sana_bench.generators.diffusers import find_pipeline

    return find_pipeline(variant, relative_to)


def _build_diffusers(spec: GeneratorSpec, device: str) -> Generator:
    from sana_bench.generators.diffusers import DiffusersGenerator

    return DiffusersGenerator(spec, device)


def _find_images(variant: Variant, relative_to: Path) -> Path:
    from sana_bench.generators.image_folder import find_folder

    return find_folder(variant, relative_to)


def _build_images(spec: GeneratorSpec, device: str) -> Generator:
    from sana_bench.generators.image_folder import ImageFolder

    return ImageFolder(spec)


def _find_best_of_n(variant: Variant, relative_to: Path) -> Path:
    from sana_bench.generators.best_of_n import find_wrapped

    return find_wrapped(variant, relative_to)


def _build_best_of_n(spec: GeneratorSpec, device: str) -> Generator:
    from sana_bench.generators.best_of_n import build_best_of_n

    return build_best_of_n(spec, device)


# The version is part of every image's identity: raise it when a change of code changes images.
_GENERATORS: dict[str, _Registration] = {
    "sana": _Registration("sana@2", _build_sana, _find_sana),
    "diffusers": _Registration("diffusers@1", _build_diffusers, _find_diffusers),
    "best_of_n": _Registration("best_of_n@1", _build_best_of_n, _find_best_of_n),
    "images": _Registration("images@2", _build_images, _find_images),
}


def names() -> list[str]:
    """Return the names of the known generators, plug-ins included."""
    return sorted({*_GENERATORS, *plugins.names("generators")})


def is_plugin(name: str) -> bool:
    """Say whether a generator comes from another package, whose weights have a layout of its own."""
    return name not in _GENERATORS and name in plugins.names("generators")


def register(name: str, version: str, builder: Builder, finder: Finder = _find_pipeline) -> None:
    """Make `builder` available as `generator: NAME`; raises `SuiteError` when the name is taken.

    Unless `finder` says otherwise, its weights are a SANA pipeline folder.
    """
    if name in _GENERATORS:
        raise SuiteError(f"generator {name!r} is registered already")
    _GENERATORS[name] = _Registration(version, builder, finder)


def find(variant: Variant, relative_to: Path) -> Path:
    """Return the folder with a variant's weights or images; nothing is loaded or downloaded.

    Raises `SuiteError` for settings that the generator has no use for and `AssetError` that names what is missing.
    """
    return _registration(variant.generator).finder(variant, relative_to)


def version(name: str) -> str:
    """Return the version of a generator's code; raises `SuiteError` for an unknown one."""
    return _registration(name).version


def build(spec: GeneratorSpec, device: str) -> Generator:
    """Load the generator of a variant onto `device`.

    Raises `SuiteError` for an unknown generator and `AssetError` for weights that are not what they should
    be.
    """
    return _registration(spec.generator).builder(spec, device)


def _registration(name: str) -> _Registration:
    if name in _GENERATORS:
        return _GENERATORS[name]
    plugin = plugins.find("generators", name)
    if plugin is None:
        raise SuiteError(f"unknown generator {name!r}{nearest(name, names())}")
    return _Registration(
        f"{name} ({plugin.identity})",
        lambda spec, device: plugin.build(spec, device, needs=("generate",)),
        # What is in the folder is the plug-in's own affair.
        lambda variant, relative_to: resolve_folder(variant.model.weights, relative_to),
    )
