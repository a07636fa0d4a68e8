"""Collect, as wheels, what this project needs on a machine that has torch and transformers but no network.

    python scripts/collect_wheels.py FOLDER [--has torch,transformers,...] [--python 3.12] [--limit 64]

On that machine, in the folder of the project and with FOLDER beside it:

    python3 -m pip install --no-index --find-links FOLDER diffusers open_clip_torch pydantic typer jinja2 nvidia-ml-py torchao
    python3 benchmarks/gpu.py --minutes 8

That is what `pyproject.toml` names, with its extra `quantization`, and what it needs in turn, as installed here, at the versions
of `requirements.lock`; without the packages that `--has` names and what is needed by them alone. Wheels of more than `--limit` MB
(10^6 bytes) together are refused, and FOLDER is not made. Needs pip, in this Python or in the environment that `make setup` keeps
for uv.
"""

import argparse
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
HAS = (
    "torch", "torchvision", "triton", "transformers", "tokenizers", "safetensors", "huggingface-hub", "numpy", "scipy",
    "pandas", "pyarrow", "pillow", "matplotlib",
)  # fmt: skip
LIMIT_MB = 64
# Newest first; pip takes every wheel that one of them allows.
_PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in (35, 34, 31, 28, 27, 24, 17)),
    *(f"manylinux{year}_x86_64" for year in (2014, 2010, 1)),
)

Download = Callable[[Path, Sequence[str], str], None]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the wheels are to lie; it must not exist")
    parser.add_argument(
        "--has", default=",".join(HAS), help=f"packages there already; default: {', '.join(HAS)}"
    )
    parser.add_argument("--python", default="3.12", help="the machine's Python, default 3.12")
    parser.add_argument("--limit", type=float, default=LIMIT_MB, help=f"MB in all, default {LIMIT_MB}")
    options = parser.parse_args()
    if options.folder.exists():
        parser.error(f"{options.folder} is there already; name a folder that is not")
    names = lacking(options.has.split(","), options.python)
    wanted = pinned(names, (ROOT / "requirements.lock").read_text(encoding="utf-8"))
    try:
        print(collect(options.folder, wanted, options.python, options.limit))
    except ValueError as error:
        parser.error(str(error))
    return 0


def lacking(has: Iterable[str], python: str) -> list[str]:
    """Names of what the project needs, directly or not, without going through a package in `has`; in order of the alphabet."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extra = project["optional-dependencies"]["quantization"]
    rest = [Requirement(line) for line in (*project["dependencies"], *extra)]
    there, found = {canonicalize_name(name) for name in has}, set[str]()
    while rest:
        name = canonicalize_name(rest.pop().name)
        if name in there or name in found:
            continue
        try:
            needed = [Requirement(line) for line in requires(name) or []]
        except PackageNotFoundError:
            # For another platform or Python: what is needed here is installed here.
            continue
        found.add(name)
        rest += [one for one in needed if _applies(one, python)]
    return sorted(found)


def pinned(names: Iterable[str], lock: str) -> list[str]:
    """The names with their versions in a lock file; raises ValueError for one that it lacks."""
    versions = dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", lock, flags=re.MULTILINE))
    known = {canonicalize_name(name): version for name, version in versions.items()}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"requirements.lock has no version of {unknown[0]}")
    return [f"{name}=={known[name]}" for name in names]


def collect(
    folder: Path, wanted: Sequence[str], python: str, limit_mb: float, download: "Download | None" = None
) -> str:
    """Put the wheels into `folder` and say how many MB they are; raises ValueError above the limit, and nothing is kept then."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        inside = Path(name) / "wheels"
        inside.mkdir()
        (download or _by_pip)(inside, wanted, python)
        sizes = {path.name: path.stat().st_size / 1e6 for path in inside.iterdir()}
        total = sum(sizes.values())
        if total > limit_mb:
            largest = sorted(sizes, key=lambda name: -sizes[name])[:5]
            listed = ", ".join(f"{name} {sizes[name]:.1f}" for name in largest)
            raise ValueError(
                f"{total:.1f} MB, more than {limit_mb:g}; the largest: {listed}. Name what is there by --has"
            )
        inside.rename(folder)
    return f"{len(sizes)} wheels, {total:.1f} MB of at most {limit_mb:g}: {folder}"


def _applies(requirement: Requirement, python: str) -> bool:
    there = {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}
    return requirement.marker is None or requirement.marker.evaluate(there)


def _by_pip(folder: Path, wanted: Sequence[str], python: str) -> None:
    command = [
        *_pip(), "download", "--quiet", "--no-deps", "--only-binary=:all:", "--implementation", "cp",
        "--python-version", python, "--dest", str(folder),
        *(f"--platform={platform}" for platform in _PLATFORMS), *wanted,
    ]  # fmt: skip
    if subprocess.run(command, check=False).returncode:
        raise ValueError("pip could not download all wheels; its message is above")


def _pip() -> list[str]:
    of_uv = ROOT / ".venv" / "uv" / "bin" / "python"
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    if of_uv.is_file():
        return [str(of_uv), "-m", "pip"]
    if (found := shutil.which("pip")) is not None:
        return [found]
    raise ValueError("no pip here; `make setup` makes an environment that has one")


if __name__ == "__main__":
    sys.exit(main())
