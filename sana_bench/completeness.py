"""What stops a score: images that are missing, unreadable or of another size, and images that nobody asked for."""

from collections.abc import Mapping, Sequence

from sana_bench.generators.image_folder import read_folder
from sana_bench.plan import CellPlan
from sana_bench.resolve import Cell
from sana_bench.results.store import Store

__all__ = ["LISTED", "listed", "missing_images", "surplus_images"]

#: Lines of a list that are printed; the rest is counted.
LISTED = 20


def surplus_images(cells: Sequence[Cell]) -> dict[str, list[str]]:
    """By variant with `generator: images`, the files of its folder that no prompt of the suite asks for.

    A prompt that is not in the suite and a sample index beyond the images per prompt are both surplus. Raises
    `AssetError` for a folder that cannot be read, or that names an image twice.
    """
    found: dict[str, list[str]] = {}
    asked: dict[str, set[tuple[str, int]]] = {}
    for cell in cells:
        if cell.variant.variant.generator == "images":
            keys = {(key.prompt.text, key.index) for key in cell.benchmark.samples}
            asked.setdefault(cell.variant.name, set()).update(keys)
    for cell in cells:
        name = cell.variant.name
        if name not in asked or name in found:
            continue
        prompts = {text for text, _ in asked[name]}
        found[name] = [
            f"{path}: "
            + (f"image {index} of {text!r} is one too many" if text in prompts else f"no prompt {text!r}")
            for (text, index), path in sorted(read_folder(cell.variant.spec.weights_path).items())
            if (text, index) not in asked[name]
        ]
    return {name: lines for name, lines in found.items() if lines}


def missing_images(plan: CellPlan, store: Store) -> list[str]:
    """The samples that were to be made and are not there, each with the reason that was recorded."""
    rows = store.images(plan.cell.image_key)
    lines = []
    for key in plan.missing:
        row = rows.get(key.id)
        failed = row is not None and row.prompt_sha256 == key.prompt_sha256 and row.error
        reason = str(row.error) if row is not None and failed else "no image"
        lines.append(f"{plan.cell.label} {key.prompt.id}/{key.index:05d}: {reason}")
    return lines


def listed(problems: Mapping[str, Sequence[str]]) -> list[str]:
    """A headed list for each entry, long ones cut."""
    lines = []
    for heading, found in problems.items():
        lines.append(heading)
        lines += [f"  {line}" for line in found[:LISTED]]
        if len(found) > LISTED:
            lines.append(f"  and {len(found) - LISTED} more")
    return lines
