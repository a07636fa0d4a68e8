"""What a variant was made from: another variant file beside its own."""

from pathlib import Path

from sana_bench.errors import SuiteError, nearest
from sana_bench.yaml_files import Document, read_yaml

__all__ = ["FULL", "check_origin"]

# The kind of a variant that was made from no other.
FULL = "full"


def check_origin(document: Document) -> None:
    """Check `kind` and `derived_from` of a validated variant document against the files beside it.

    Raises `SuiteError` when one is there without the other, and when the origin is unknown, of another tier, or derived
    from this variant itself.
    """
    data = document.data
    kind, origin = data.get("kind", FULL), data.get("derived_from")
    if kind != FULL and origin is None:
        raise SuiteError(
            f"{document.origin(('kind',))}: a {kind} variant says in derived_from what it was made from"
        )
    if origin is None:
        return
    where = document.origin(("derived_from",))
    if kind == FULL:
        raise SuiteError(
            f"{where}: derived_from needs kind pruned, grown or inference_scaled; kind is {FULL}"
        )
    line, current, folder = [data["name"]], origin, document.path.parent
    while current is not None:
        if current in line:
            raise SuiteError(f"{where}: {' from '.join([*line, current])}: a variant cannot come from itself")
        line.append(current)
        current = _origin_of(current, folder, data["tier"], where)


def _origin_of(name: str, folder: Path, tier: str, where: str) -> str | None:
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in known:
        raise SuiteError(f"{where}: derived_from names the unknown variant {name!r}{nearest(name, known)}")
    found = read_yaml(folder / f"{name}.yaml").data
    if found.get("tier") != tier:
        raise SuiteError(
            f"{where}: {name!r} is of the {found.get('tier')} tier, this variant of the {tier} tier"
        )
    further = found.get("derived_from")
    return None if further is None else str(further)
