"""Where suites, variants and policies lie: those in `./suites` first, then the ones that are shipped."""

import os
from collections.abc import Iterable
from pathlib import Path

from sana_bench.core.errors import SuiteError, nearest
from sana_models.files import is_there

__all__ = ["find_policy", "find_suite", "suite_files", "suites_dir", "variant_files"]


def suites_dir() -> Path:
    """Return the folder of the shipped suites: data of the installed package, or `suites/` of a checkout."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "shipped" / "suites"
    return packaged if packaged.is_dir() else package.parent / "suites"


def suite_files() -> dict[str, Path]:
    """Return the suites by name; one in `./suites` hides the shipped one of its name."""
    return _by_name(_homes())


def variant_files(beside: Path | None = None) -> dict[str, Path]:
    """Return the variants by name: those in the folder `beside`, by default `./suites/variants`, before the shipped ones."""
    shipped = suites_dir() / "variants"
    return _by_name([beside, shipped] if beside is not None else (home / "variants" for home in _homes()))


def find_suite(what: Path) -> Path:
    """Return the suite file at the path `what`, or of that name; raises `SuiteError` with the nearest."""
    if is_there(what, Path.is_file):
        return what
    named = suite_files()
    if what.stem in named and str(what) in (what.stem, what.name):
        return named[what.stem]
    beside = (
        [str(other) for other in what.parent.glob("*.yaml")] if what.suffix and is_there(what.parent) else []
    )
    hint = nearest(str(what), beside) or nearest(what.stem, named)
    from sana_bench.suites.schema import source_of  # a shell that completes names waits for no schema

    if (source := source_of(str(what))) != str(what) and source in named:
        count = str(what).rpartition("@")[2]
        hint = f"; a part of its prompts: {source} --set benchmarks.0.prompts={count}"
    raise SuiteError(f"{what}: no such suite file{hint}")


def find_policy(what: Path) -> Path:
    """Return the gate's policy at the path `what`, or of that name; raises `SuiteError` with the nearest."""
    named = _by_name(home / "policies" for home in _homes())
    if is_there(what, Path.is_file):
        return what
    if str(what) not in named:
        raise SuiteError(f"{what}: no such policy{nearest(what.stem, named)}")
    return named[str(what)]


def _homes() -> list[Path]:
    own, shipped = Path("suites"), suites_dir()
    if not own.is_dir():
        return [shipped]
    return [own] if own.resolve() == shipped.resolve() else [own, shipped]


def _by_name(folders: Iterable[Path]) -> dict[str, Path]:
    """The YAML files of folders by name, sorted; the first folder that has a name wins."""
    found: dict[str, Path] = {}
    for folder in folders:
        for name in os.listdir(folder) if folder.is_dir() else ():
            if name.endswith(".yaml"):
                found.setdefault(name.removesuffix(".yaml"), folder / name)
    return dict(sorted(found.items()))
