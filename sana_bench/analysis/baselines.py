"""Named baselines of an output folder, in `baselines.json` beside the store, and those in files of their own."""

import json
import os
import re
from pathlib import Path

from sana_bench.analysis.baseline_file import read_baseline, write_baseline
from sana_bench.core import atomic
from sana_bench.core.errors import UsageError, nearest
from sana_bench.core.text import read_text
from sana_bench.results.database import writer_lock
from sana_bench.results.reader import RunResults, VariantResults, load_run
from sana_bench.results.run_folder import DEFAULT_OUTPUT
from sana_models.files import is_there, parse_json

__all__ = ["export_baseline", "only_variant", "read_baselines", "remove_baseline", "resolve", "set_baseline"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def read_baselines(output: Path) -> dict[str, dict[str, str]]:
    """Return `{name: {run, variant}}`; raises `UsageError` for a damaged file."""
    path = output / "baselines.json"
    if not os.path.lexists(path):
        return {}
    if not path.is_file():
        raise atomic.in_the_way(path, path.lstat().st_mode)
    try:
        found = parse_json(read_text(path))
        return {str(name): {key: str(row[key]) for key in ("run", "variant")} for name, row in found.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: damaged baselines: {error}") from None


def set_baseline(output: Path, name: str, target: str) -> tuple[str, str]:
    """Give a variant of a run a name; return (run, variant). Raises `UsageError`."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"baseline {name!r}: a name is letters, digits, dots, dashes and underscores")
    run, variant = resolve(output, target)
    if run.output.resolve() != output.resolve():
        raise UsageError(f"{target}: lies outside {output}; a baseline is a run of its own output folder")
    with writer_lock(output):
        found = read_baselines(output)
        found[name] = {"run": run.run_id, "variant": variant.name}
        _write(output, found)
    return run.run_id, variant.name


def remove_baseline(output: Path, name: str) -> None:
    """Forget a name; raises `UsageError` with the nearest one."""
    if name not in read_baselines(output):
        raise UsageError(f"no baseline {name!r} in {output}{nearest(name, read_baselines(output))}")
    with writer_lock(output):
        found = read_baselines(output)
        found.pop(name, None)
        _write(output, found)


def export_baseline(
    target: str | Path, to: str | Path, *, output: str | Path = DEFAULT_OUTPUT
) -> tuple[str, list[str]]:
    """Write a variant as a baseline in one file; return what it is, and a line for what comparisons will lack of it.

    Args:
        target: name of a baseline of `output`, or `RUN:VARIANT`.
        to: the file; an earlier baseline in it is replaced.
        output: folder of runs and of the result store.

    Raises:
        UsageError: an unknown baseline or variant, or a file that is no baseline.
        IncompleteError: the variant lacks images or scores.
    """
    run, variant = resolve(Path(output), str(target))
    lacking = write_baseline((run, variant), Path(to))
    return f"{run.run_id}:{variant.name}", lacking


def _write(output: Path, found: dict[str, dict[str, str]]) -> None:
    atomic.write_text(output / "baselines.json", json.dumps(found, indent=2, sort_keys=True) + "\n")


def resolve(output: Path, target: str, run: str | None = None) -> tuple[RunResults, VariantResults]:
    """Find what `target` names: `baseline:NAME`, a variant of `run`, `RUN:VARIANT`, a run, or a baseline by name or file.

    A run without a variant must have one variant only. Raises `UsageError`.
    """
    known = read_baselines(output)
    if target.startswith("baseline:"):
        return _baseline(output, target.removeprefix("baseline:"), known)
    if run is not None:
        loaded = load_run(output, run)
        return loaded, loaded.variant(target)
    if target in known or is_there(Path(target), Path.is_file):
        return _baseline(output, target, known)
    name, separator, variant = target.rpartition(":")
    loaded = load_run(output, name if separator else target)
    if separator:
        return loaded, loaded.variant(variant)
    return loaded, only_variant(loaded, target)


def only_variant(run: RunResults, called: str) -> VariantResults:
    """The variant of a run that has one only; raises `UsageError` with the names of several."""
    if len(run.variants) != 1:
        raise UsageError(
            f"{called} has {len(run.variants)} variants; write RUN:VARIANT with one of {', '.join(run.variants)}"
        )
    return next(iter(run.variants.values()))


def _baseline(output: Path, name: str, known: dict[str, dict[str, str]]) -> tuple[RunResults, VariantResults]:
    if name not in known and is_there(Path(name), Path.is_file):
        return read_baseline(Path(name))
    if name not in known:
        raise UsageError(f"no baseline {name!r} in {output}, and no such file{nearest(name, known)}")
    loaded = load_run(output, known[name]["run"])
    return loaded, loaded.variant(known[name]["variant"])
