"""`sana-bench doctor`: what this machine has, what it lacks, and what that stops."""

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sana_bench.core.errors import AssetError, BenchError, UsageError
from sana_bench.core.progress import say

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["changed_files", "diagnose", "register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor() -> int:
    """Show environment, devices, weights, and what is lacking."""
    from sana_bench.suites.find import variant_files

    lines, works = diagnose(variant_files())
    say("\n".join(lines))
    return 0 if works else UsageError.exit_code


def diagnose(variants: "Mapping[str, Path]") -> tuple[list[str], bool]:
    """Return the lines to print, about these variant files by name too, and whether the micro tier can run here."""
    micro_lines, micro_works = _micro()
    lines = [
        *_environment(),
        *_plugins(),
        *_devices(),
        *_storage(),
        *micro_lines,
        *_full(variants),
    ]
    verdict = "ready" if micro_works else "not ready: see the lines marked with !"
    return [*lines, f"micro tier: {verdict}"], micro_works


def _environment() -> list[str]:
    from sana_bench import __version__
    from sana_bench.core.provenance import code_revision, package_versions

    code = code_revision()
    revision = code["git_revision"]
    checkout = (
        f", git {revision[:12]}{' with changes' if code.get('git_dirty_sha256') else ''}" if revision else ""
    )
    packages = ", ".join(f"{name} {version}" for name, version in package_versions().items())
    return [
        f"sana-bench {__version__}{checkout}",
        f"python {sys.version.split()[0]} ({sys.executable})",
        f"packages: {packages}",
    ]


def _plugins() -> list[str]:
    from sana_bench.core.registry import REGISTRIES

    registries = REGISTRIES.values()
    lines = [
        f"plug-in: {entry.kind.removesuffix('s')} {entry.name} ({entry.identity})"
        for registry in registries
        for entry in registry.plugins()
    ]
    return [*lines, *(f"! {problem}" for registry in registries for problem in registry.problems())]


def _devices() -> list[str]:
    import torch

    from sana_bench.core.provenance import cpu_model

    lines = [f"cpu: {cpu_model()}, {os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads"]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            lines.append(f"cuda:{index}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    else:
        lines.append("cuda: no device found; --tier auto chooses micro")
    return lines


def _storage() -> list[str]:
    from sana_bench.assets.locate import data_root, hub_cache

    lines = [
        f"memory: {_memory_gib():.1f} GiB, free disk here: {shutil.disk_usage('.').free / 2**30:.1f} GiB"
    ]
    for label, path in (("data", data_root()), ("Hugging Face cache", hub_cache())):
        lines.append(f"{label}: {path}{'' if path.is_dir() else ' (not there)'}")
    return lines


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _micro() -> tuple[list[str], bool]:
    from sana_bench.assets.checks import check_pipeline_directory
    from sana_bench.assets.locate import micro_weights_root
    from sana_bench.core.fingerprint import directory_sha256, short

    root = micro_weights_root()
    lines, works = [], True
    for name in ("sana-micro", "clip"):
        directory = root / name
        try:
            if not directory.is_dir():
                raise AssetError(f"{directory} is not there")
            if name == "sana-micro":
                check_pipeline_directory(directory)
        except AssetError as error:
            lines.append(f"! micro weights {name}: {error}")
            works = False
        else:
            lines.append(f"micro weights {name}: {directory}, sha256 {short(directory_sha256(directory))}")
    for name, suite in (("vqa", "dpg_bench"), ("reading", "geneval2"), ("reward", "image_reward")):
        found = (
            f"{root / name}, sha256 {short(directory_sha256(root / name))}" if (root / name).is_dir() else ""
        )
        lines.append(f"micro weights {name}: {found or f'not shipped; {suite} needs them on the micro tier'}")
    wrong = changed_files(root)
    lines += [f"! {name}: not the file that was shipped; fetch it again" for name in wrong]
    return lines, works and not wrong


def changed_files(root: Path) -> list[str]:
    """Return the files listed in `SHA256SUMS` (as sha256sum writes it) that are missing or changed."""
    from sana_bench.assets.download import read_sums
    from sana_bench.core.fingerprint import file_sha256

    return [
        name
        for name, digest in read_sums(root).items()
        if not (root / name).is_file() or file_sha256(root / name) != digest
    ]


def _full(variants: "Mapping[str, Path]") -> list[str]:
    from sana_bench.runner.asset_overview import all_items, item_lines
    from sana_bench.suites.load import load_variant

    places, broken = [], []
    for name, path in variants.items():
        try:
            places.append((load_variant(path), path.parent))
        except BenchError as error:
            broken.append(f"! variant {name}: cannot be used: {error}")
    return [*item_lines(all_items(places), "what the full tier reads:"), *broken]
