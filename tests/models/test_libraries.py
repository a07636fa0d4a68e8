"""Libraries import torchao only where a variant asks for it."""

import ast
import sys
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
