"""A run's DPG-Bench images as the grids that SANA's scripts write, for `dpg/sana-grid@1` and for the published script."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from sana_bench.core import atomic
from sana_bench.core.errors import UsageError
from sana_bench.core.images import load_image
from sana_bench.core.progress import refuse_listed
from sana_bench.core.samples import Prompt
from sana_bench.metrics.dpg.grid import sana_grid_jpeg
from sana_bench.results.reader import RunResults, read_run
from sana_bench.results.run_folder import locate_run, open_store

__all__ = ["export_grids"]

_BENCHMARK = "dpg_bench"
_IN_GRID = 4


def export_grids(run: str, output: Path | None, to: Path) -> list[Path]:
    """Write each variant's first four images of every prompt to `to/VARIANT/ITEM.jpg`; return the folders.

    A grid is torchvision's with separators of two pixels, as JPEG of quality 75. `manifest.jsonl` beside the grids lets
    `generator: images` read the folder.

    Raises:
        UsageError: an unknown run, one without DPG-Bench images or with fewer than four a prompt, images that are not
            square, or a folder that exists.
        IncompleteError: images of the run are missing; all of them are printed.
    """
    files, output = locate_run(run, output)
    with open_store(output) as store:
        found = read_run(store, files)
    cells = _cells(found)
    for variant in cells:
        if (to / variant).exists():
            raise UsageError(f"{to / variant}: already exists; choose another folder")
    prompts = found.prompts[_BENCHMARK]
    refuse_listed(
        {f"{variant} has no whole grids:": _lacking(prompts, images) for variant, images in cells.items()}
    )
    return [_write(to / variant, prompts, images) for variant, images in cells.items()]


def _cells(run: RunResults) -> dict[str, dict[str, list[Path]]]:
    """Paths of the first four images of each prompt, by variant and prompt id."""
    asked = run.benchmarks.get(_BENCHMARK)
    if asked is None or asked.images_per_prompt < _IN_GRID:
        raise UsageError(f"{run.files.directory}: a grid takes {_IN_GRID} images a prompt of {_BENCHMARK}")
    scored = [variant for variant in run.variants.values() if variant.overall(_BENCHMARK)]
    if not scored:
        raise UsageError(f"{run.files.directory}: the run has no scores of {_BENCHMARK}")
    found: dict[str, dict[str, list[Path]]] = {}
    for variant in scored:
        images = found.setdefault(variant.name, {})
        for one in variant.samples_of(_BENCHMARK):
            if one.index < _IN_GRID:
                images.setdefault(one.prompt.id, []).append(one.sample.image_path)
    return found


def _write(folder: Path, prompts: dict[str, Prompt], images: dict[str, list[Path]]) -> Path:
    lines = []
    with atomic.new_folder(folder) as filled:
        for prompt in prompts.values():
            grid = f"{prompt.id}.jpg"
            (filled / grid).write_bytes(_grid(prompt.id, images.get(prompt.id, [])))
            entry = {"id": prompt.id, "prompt": prompt.text, "index": 0, "file": grid}
            lines.append(json.dumps(entry) + "\n")
        (filled / "manifest.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def _lacking(prompts: Mapping[str, Prompt], images: Mapping[str, Sequence[Path]]) -> list[str]:
    """What keeps the grids of a variant from being whole: prompts without four images, and files that are gone."""
    found = {name: images.get(name, []) for name in prompts}
    short = [
        f"prompt {name!r} has {len(paths)} of {_IN_GRID} images"
        for name, paths in found.items()
        if len(paths) != _IN_GRID
    ]
    return short + [f"{path} is missing" for paths in found.values() for path in paths if not path.is_file()]


def _grid(prompt: str, paths: Sequence[Path]) -> bytes:
    try:
        return sana_grid_jpeg([load_image(path) for path in paths])
    except ValueError as error:
        raise UsageError(f"prompt {prompt!r}: {error}") from None
