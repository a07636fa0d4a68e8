"""Names of the harness in pages and docstrings: the module is there, and so is what it is said to hold."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from sana_bench.core.registry import REGISTRIES
from tests import ROOT
from tests.docs.test_links import PAGES

PACKAGES = {"sana_bench": ROOT, "sana_models": ROOT / "models", "sana_kernels": ROOT / "kernels"}
PACKAGES["sana_reports"] = ROOT / "reports"
MODULES = sorted(path for name, folder in PACKAGES.items() for path in (folder / name).rglob("*.py"))
#: Groups of entry points are named like modules.
GROUPS = {f"sana_bench.{kind}" for kind in REGISTRIES}
#: A file of this repository, or a dotted name; neither is part of a longer path or of an address.
_FILE = re.compile(
    r"(?<![\w./-])(?:sana_bench|models|kernels|reports|tests|scripts|benchmarks)/[\w/.-]*\.py\b"
)
_DOTTED = re.compile(rf"(?<![\w./-])(?:{'|'.join(PACKAGES)})\.[a-z_]\w*(?:\.[A-Za-z_]\w*)*(?![\w-])")


def problems(text: str) -> list[str]:
    """Dotted names that do not resolve, and files and tests that are not there."""
    files = [name for name in set(_FILE.findall(text)) if not (ROOT / name).exists()]
    names = [name for name in set(_DOTTED.findall(text)) if name not in GROUPS and not resolves(name)]
    # NAME stands for one of the reader's own.
    return sorted(name for name in [*files, *names, *lost_tests(text)] if "NAME" not in name)


def lost_tests(text: str) -> set[str]:
    """Tests that a text names after a file, and that the file does not have."""
    files = list(_FILE.finditer(text))
    ends = [*(file.start() for file in files[1:]), len(text)]
    lost = set()
    for file, end in zip(files, ends, strict=False):
        path = ROOT / file[0]
        has = set(re.findall(r"def (test_\w+)", path.read_text(encoding="utf-8"))) if path.exists() else set()
        named = re.findall(r"`(test_\w+)`", text[file.end() : end])
        lost |= {f"{file[0]}: {name}" for name in named if name not in has}
    return lost


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or something that a module holds."""
    module, names = name, []
    while not _is_module(module):
        module, _, last = module.rpartition(".")
        names.insert(0, last)
    found = importlib.import_module(module)
    for part in names:
        if not hasattr(found, part):
            return False
        found = getattr(found, part)
    return True


def _is_module(name: str) -> bool:
    path = PACKAGES[name.partition(".")[0]] / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()


def docstrings(path: Path) -> str:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return "\n".join(ast.get_docstring(node) or "" for node in nodes if isinstance(node, kinds))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_names_on_pages_exist(page):
    assert problems(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_names_in_docstrings_exist(package):
    found = {
        path.relative_to(ROOT).as_posix(): problems(docstrings(path))
        for path in MODULES
        if (PACKAGES[package] / package) in path.parents
    }
    assert found
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("`sana_bench.core.images.load_image` of sana_bench/core/images.py", []),
        ("`sana_bench.core.images.no_image`", ["sana_bench.core.images.no_image"]),
        ("`sana_bench.images.load_image`", ["sana_bench.images.load_image"]),
        ("see tests/core/test_image.py", ["tests/core/test_image.py"]),
        ("tests/docs/test_names.py: `test_what_is_missing_is_found`", []),
        ("tests/docs/test_names.py: `test_gone`", ["tests/docs/test_names.py: test_gone"]),
        ("https://example.org/sana_bench.images and sana_bench.org-1", []),
    ],
)
def test_what_is_missing_is_found(text, missing):
    assert problems(text) == missing
