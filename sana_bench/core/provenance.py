"""Where numbers come from: code revision, package versions, machine and command."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import sana_bench
from sana_bench.core.fingerprint import file_sha256, fingerprint, sha256_bytes

__all__ = [
    "code_revision",
    "code_sha256",
    "cpu_model",
    "describe_machine",
    "describe_worker",
    "now",
    "package_versions",
]

_PACKAGES = (
    "torch", "torchvision", "transformers", "diffusers", "open_clip_torch", "safetensors", "tokenizers",
    "numpy", "scipy", "pillow", "pandas", "pyarrow", "pydantic", "triton",
)  # fmt: skip


def now() -> str:
    """Return the current time in UTC, ISO 8601 with seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def code_revision() -> dict[str, Any]:
    """Return the version and, in a git checkout, the revision and the hash of uncommitted changes."""
    root = Path(sana_bench.__file__).resolve().parents[1]
    revision = _git(root, "rev-parse", "HEAD")
    described: dict[str, Any] = {"version": sana_bench.__version__, "git_revision": revision}
    if revision is not None and (changes := _git(root, "diff", "HEAD")) is not None:
        untracked = _git(root, "ls-files", "--others", "--exclude-standard") or ""
        dirty = changes + untracked
        described["git_dirty_sha256"] = (
            sha256_bytes(dirty.encode("utf-8", "surrogateescape")) if dirty else None
        )
    return described


def code_sha256() -> str:
    """Identity of what the four packages do: of all their Python files, wherever they are installed."""
    files: dict[str, Path] = {}
    for name in ("sana_bench", "sana_models", "sana_kernels", "sana_reports"):
        spec = find_spec(name)
        for root in map(Path, (spec.submodule_search_locations or ()) if spec is not None else ()):
            files |= {f"{name}/{path.relative_to(root).as_posix()}": path for path in root.rglob("*.py")}
    return fingerprint({name: file_sha256(path) for name, path in files.items()})


def package_versions() -> dict[str, str]:
    """Return the versions of the installed packages that can change a number."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def cpu_model() -> str:
    """Return the processor's name, or its architecture when the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def describe_machine(device: str) -> dict[str, Any]:
    """Return the device that generates and the system around it."""
    described: dict[str, Any] = {
        "device": device,
        "device_name": cpu_model(),
        "cpu_cores": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
    }
    torch = sys.modules.get("torch")
    if torch is None:  # nothing was computed with it in this process
        return described
    described["torch_threads"] = torch.get_num_threads()
    if device.startswith("cuda"):
        described["device_name"] = torch.cuda.get_device_name(device)
        described["cuda"] = torch.version.cuda
    return described


def describe_worker(device: str) -> dict[str, Any]:
    """Return who computes in this process: the machine's name, what `describe_machine` says, and versions of packages."""
    return {"node": platform.node(), **describe_machine(device), "packages": package_versions()}


def command_line() -> str:
    """Return the command as typed, with the program's name instead of its path."""
    return " ".join(["sana-bench", *sys.argv[1:]])


def _git(root: Path, *arguments: str) -> str | None:
    if not (root / ".git").exists():
        return None
    try:
        result = subprocess.run(
            ["git", "-C", str(root), *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=10,
            errors="surrogateescape",
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None
