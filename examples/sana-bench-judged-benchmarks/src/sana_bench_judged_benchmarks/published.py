"""What the published repositories hold, read where the user put them: prompts, and the wording of requests to a judge."""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sana_bench import AssetError
from sana_bench.assets.locate import data_root

__all__ = ["Request", "literal", "published_file", "read_script"]


def published_file(benchmark: str, name: str, source: str) -> Path:
    """The file `name` below the data root; raises `AssetError` that says where to get it."""
    path = data_root() / benchmark / name
    if not path.is_file():
        raise AssetError(f"{path} is missing: get it with `curl -L --create-dirs -o {path} {source}`")
    return path


def read_script(path: Path) -> ast.Module:
    """The syntax of a Python file, which is never run; raises `AssetError` for one that is none."""
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError) as error:
        raise AssetError(f"{path}: not a Python file ({error})") from None


def literal(script: ast.Module, name: str, path: Path) -> Any:
    """The first value written out in a script for a variable; raises `AssetError` when there is none."""
    for node in ast.walk(script):
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [name]:
            try:
                return ast.literal_eval(node.value)
            except ValueError:
                continue
    raise AssetError(f"{path}: no value of {name} in it")


class Request:
    """The longest formatted text of a script, with the expressions in it as places to fill."""

    def __init__(self, script: ast.Module, fields: Mapping[str, str], path: Path) -> None:
        """`fields` names the expressions; raises `AssetError` for a text that lacks one, or has others."""
        texts = [node for node in ast.walk(script) if isinstance(node, ast.JoinedStr)]
        longest = max(texts, key=lambda node: len(ast.unparse(node)), default=None)
        self._parts: list[tuple[str, str | None]] = []
        for part in longest.values if longest is not None else ():
            if isinstance(part, ast.FormattedValue):
                expression = ast.unparse(part.value)
                if expression not in fields:
                    raise AssetError(f"{path}: its request has {expression}, which is not known here")
                self._parts.append(("", fields[expression]))
            else:
                self._parts.append((str(ast.literal_eval(part)), None))
        lacking = sorted(set(fields.values()) - {field for _, field in self._parts})
        if lacking:
            raise AssetError(f"{path}: no request that names {', '.join(lacking)}")

    def identity(self) -> list[list[str | None]]:
        """The wording."""
        return [list(part) for part in self._parts]

    def fill(self, **values: str) -> str:
        """The request with a value in each place."""
        return "".join(text if field is None else values[field] for text, field in self._parts)
