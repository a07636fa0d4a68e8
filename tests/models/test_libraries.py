"""Libraries import torchao only where a variant asks for it; what is imported is a dependency, and no other package is."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

from sana_models.libraries import without_torchao

ROOT = Path(__file__).parents[2]
LIBRARIES = {"transformers", "diffusers", "open_clip"}
FILES = [path for room in ("models", "sana_bench") for path in (ROOT / room).rglob("*.py")]


def is_guard(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.With) and ast.unparse(node.items[0].context_expr) == "without_torchao()"
    ) or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")


def unguarded(node: ast.AST) -> list[int]:
    """Lines that import one of the libraries outside of `without_torchao`."""
    if is_guard(node):
        return []
    names = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        names = [node.module or ""]
    found = [node.lineno for name in names if name.partition(".")[0] in LIBRARIES]
    return found + [line for child in ast.iter_child_nodes(node) for line in unguarded(child)]


def test_every_import_of_these_libraries_is_guarded():
    guard = ROOT / "models" / "sana_models" / "libraries.py"
    found = {
        str(path.relative_to(ROOT)): lines
        for path in FILES
        if path != guard and (lines := unguarded(ast.parse(path.read_text(encoding="utf-8"))))
    }
    assert found == {}
    assert sum("without_torchao()" in path.read_text(encoding="utf-8") for path in FILES) > 10


def test_torchao_is_hidden_inside_and_importable_afterwards(monkeypatch):
    monkeypatch.delitem(sys.modules, "torchao", raising=False)
    with without_torchao():
        with without_torchao(), pytest.raises(ImportError):
            import torchao  # noqa: F401
        assert sys.modules["torchao"] is None
    assert "torchao" not in sys.modules


def test_timm_is_hidden_from_open_clip_and_not_from_judges(monkeypatch):
    from transformers.utils import is_timm_available

    there = is_timm_available()
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    is_timm_available.cache_clear()
    with without_torchao():
        with pytest.raises(ImportError):
            import timm  # noqa: F401
        assert not is_timm_available()
    assert "timm" not in sys.modules
    assert is_timm_available() == there


def test_it_is_importable_after_an_import_that_failed(monkeypatch):
    monkeypatch.delitem(sys.modules, "torchao", raising=False)
    with pytest.raises(ModuleNotFoundError), without_torchao():
        import there_is_no_such_module  # noqa: F401
    assert "torchao" not in sys.modules


def test_a_torchao_that_the_user_imported_stays(monkeypatch):
    own = type(sys)("torchao")
    monkeypatch.setitem(sys.modules, "torchao", own)
    with without_torchao():
        assert sys.modules["torchao"] is own
    assert sys.modules["torchao"] is own


#: What a package on the index is imported as, where that is another name.
MODULES = {
    "open_clip_torch": "open_clip", "huggingface-hub": "huggingface_hub", "pillow": "PIL", "PyYAML": "yaml",
    "nvidia-ml-py": "pynvml",
}  # fmt: skip

#: What torch, jinja2 and pydantic bring with them.
COMPANIONS = {"triton", "markupsafe", "pydantic_core"}


def imported_modules(path: Path) -> set[str]:
    """The first part of every module that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found.add(node.module.partition(".")[0])
    return found


def test_the_packages_need_what_they_import_and_import_what_they_need():
    """Beside the extras, which are imported only where they are asked for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {re.split(r"[<>=!~\[ ]", one)[0] for one in project["dependencies"]}
    extras = {
        re.split(r"[<>=!~\[ ]", one)[0]
        for name, ones in project["optional-dependencies"].items()
        if name not in ("test", "lint")
        for one in ones
    }
    own = {path.name for room in ("models", "kernels", "reports") for path in (ROOT / room).iterdir()} | {
        "sana_bench"
    }
    found = {module for room in ("models", "sana_bench", "kernels", "reports")
             for path in (ROOT / room).rglob("*.py") for module in imported_modules(path)}  # fmt: skip
    foreign = found - set(sys.stdlib_module_names) - own
    assert {MODULES.get(name, name) for name in needed} <= foreign
    assert foreign - {MODULES.get(name, name) for name in needed | extras} <= COMPANIONS
