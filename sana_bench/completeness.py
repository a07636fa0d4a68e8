"""What stops a score: images that are missing, unreadable or of another size, and images that nobody asked for."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from sana_bench.errors import AssetError
from sana_bench.generators.image_folder import ImageName, bounded, find_name, read_folder
from sana_bench.plan import CellPlan
from sana_bench.resolve import Cell
from sana_bench.results.store import Store

__all__ = ["LISTED", "listed", "missing_images", "surplus_images"]

#: Lines of a list that are printed; the rest is counted.
LISTED = 20


def surplus_images(cells: Sequence[Cell]) -> dict[str, list[str]]:
    """By variant with `generator: images`, the files of its folder that no prompt of the suite asks for.

    A prompt that is not in the suite and a sample index beyond the images per prompt are both surplus. Raises
    `AssetError` for a folder that cannot be read, that names an image twice, or whose image would count for two prompts.
    """
    by_variant: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.variant.variant.generator == "images":
            by_variant.setdefault(cell.variant.name, []).append(cell)
    found: dict[str, list[str]] = {}
    for variant, own in by_variant.items():
        files = read_folder(own[0].variant.spec.weights_path)
        used = {name for cell in own for name in _asked_for(cell, files)}
        prompts = {(key.prompt.id, key.prompt.text) for cell in own for key in cell.benchmark.samples}
        surplus = sorted(set(files) - used, key=lambda name: (name.prompt_id or "", name.text, name.index))
        found[variant] = [f"{files[name]}: {_why_surplus(name, prompts)}" for name in surplus]
    return {name: lines for name, lines in found.items() if lines}


def _asked_for(cell: Cell, files: Mapping[ImageName, Path]) -> set[ImageName]:
    """The images of a folder that a cell takes; each of them for one sample."""
    takers: dict[ImageName, str] = {}
    problems = []
    for key in cell.benchmark.samples:
        name = find_name(files, key.prompt.id, key.prompt.text, key.index)
        if name is not None and takers.setdefault(name, key.prompt.id) != key.prompt.id:
            problems.append(f"{name} would count for the prompts {takers[name]} and {key.prompt.id}")
    if problems:
        raise AssetError(
            f"{cell.label}: prompts of equal text are told apart by the key id of the manifest: {bounded(problems)}"
        )
    return set(takers)


def _why_surplus(name: ImageName, prompts: set[tuple[str, str]]) -> str:
    if name.prompt_id is None:
        known = any(name.text == text for _, text in prompts)
        return f"{name} is one too many" if known else f"no prompt {name.text!r}"
    if (name.prompt_id, name.text) in prompts:
        return f"{name} is one too many"
    if any(name.prompt_id == prompt_id for prompt_id, _ in prompts):
        return f"prompt {name.prompt_id} has another text in the suite than {name.text!r}"
    return f"no prompt {name.prompt_id}"


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
