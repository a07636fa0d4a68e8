"""Where images come from. A generator is found by the name that a variant file gives under `generator`."""

from collections.abc import Callable
from dataclasses import dataclass

from sana_bench import plugins
from sana_bench.errors import SuiteError, nearest
from sana_bench.generators.base import Generator, GeneratorSpec, OutOfMemoryError, Request, SampleError

__all__ = [
    "Generator",
    "GeneratorSpec",
    "OutOfMemoryError",
    "Request",
    "SampleError",
    "build",
    "is_plugin",
    "names",
    "register",
    "version",
]

Builder = Callable[[GeneratorSpec, str], Generator]


@dataclass(frozen=True)
class _Registration:
    version: str
    builder: Builder


def _build_sana(spec: GeneratorSpec, device: str) -> Generator:
    from sana_bench.generators.sana import SanaGenerator

    return SanaGenerator(spec, device)


# The version is part of every image's identity: raise it when a change of code changes images.
_GENERATORS: dict[str, _Registration] = {"sana": _Registration("sana@1", _build_sana)}


def names() -> list[str]:
    """Return the names of the known generators, plug-ins included."""
    return sorted({*_GENERATORS, *plugins.names("generators")})


def is_plugin(name: str) -> bool:
    """Say whether a generator comes from another package, whose weights have a layout of its own."""
    return name not in _GENERATORS and name in plugins.names("generators")


def register(name: str, version: str, builder: Builder) -> None:
    """Make `builder` available as `generator: NAME`; raises `SuiteError` when the name is taken."""
    if name in _GENERATORS:
        raise SuiteError(f"generator {name!r} is registered already")
    _GENERATORS[name] = _Registration(version, builder)


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
        f"{name} ({plugin.identity})", lambda spec, device: plugin.build(spec, device, needs=("generate",))
    )
