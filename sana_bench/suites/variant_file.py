"""Variant files as data: what one inherits from another by `extends` stands in it as if it had been written there."""

from pathlib import Path
from typing import Any

from sana_bench.core.errors import SuiteError, nearest
from sana_bench.suites.config_files import Document, KeyPath, read_yaml
from sana_bench.suites.find import variant_files
from sana_models.files import path_of

__all__ = ["DESCRIBING", "read_variant_file"]

#: What only describes a variant: no other inherits it, and none is known by it.
DESCRIBING = ("schema_version", "name", "description", "kind", "derived_from", "published")

# Where a variant names files, from its own folder.
_PATHS: tuple[KeyPath, ...] = (("model", "weights"), ("prompt_rewrites",), ("best_of_n", "judge", "weights"))


def read_variant_file(path: Path, heirs: tuple[str, ...] = ()) -> Document:
    """The content of a variant file with all that it inherits, and where each value was written.

    `extends` names a variant beside it or a shipped one. Mappings are joined key by key, anything else that the file says
    replaces what it would inherit. `heirs` are the variants that extend this one. Raises `SuiteError`.
    """
    document = read_yaml(path)
    name = document.data.pop("extends", None)
    if name is None:
        return document
    where, line, known = document.origin(("extends",)), (*heirs, path.stem), variant_files(path.parent)
    if not isinstance(name, str) or name not in known:
        raise SuiteError(f"{where}: extends names the unknown variant {name!r}{nearest(str(name), known)}")
    if name in line:
        raise SuiteError(f"{where}: {' extends '.join([*line, name])}: a variant cannot extend itself")
    base = read_variant_file(known[name], line)
    if known[name].parent.resolve() != path.parent.resolve():
        for place in _PATHS:
            _start_from(base.data, place, known[name].parent)
    inherited = {key: value for key, value in base.data.items() if key not in DESCRIBING}
    return Document(path, _joined(inherited, document.data), {**base.origins, **document.origins})


def _joined(inherited: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    found = dict(inherited)
    for key, value in own.items():
        before = found.get(key)
        found[key] = _joined(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return found


def _start_from(data: Any, place: KeyPath, folder: Path) -> None:
    """Turn the relative path at `place`, if there is one, into one that holds from any folder."""
    *above, last = place
    for key in above:
        data = data.get(key) if isinstance(data, dict) else None
    if isinstance(data, dict) and isinstance(data.get(last), str) and data[last].startswith((".", "..")):
        data[last] = str(path_of(data[last], folder))
