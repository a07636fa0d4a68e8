"""Outcomes of checks, kept for this machine, device, versions and code; and what they say of a protocol.

One JSON file per combination lies in `DIR/cache/selfcheck`. Anything that can change a number changes its name, so that
an outcome from before an upgrade is never taken for one of today.
"""

import json
import platform
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import sana_bench
from sana_bench.assets.locate import micro_weights_root
from sana_bench.core import atomic
from sana_bench.core.fingerprint import FileHashes, directory_sha256, file_sha256, fingerprint, short
from sana_bench.core.provenance import cpu_model, describe_machine, now, package_versions
from sana_bench.core.text import read_text
from sana_bench.metrics.selfcheck.check import Check, Result, has_user_judge
from sana_bench.metrics.selfcheck.registry import checks_for
from sana_models.files import parse_json

__all__ = ["Verdict", "code_files", "load_results", "machine", "outcome_path", "save_results", "verdicts"]

State = Literal["passed", "failed", "skipped", "not run", "no cases"]

_VERSION = 1
_NO_CASES_OF_JUDGE = "its judge is a model of your choice and has no stored cases; its rules pass here"
_ROOMS = ("core", "judges", "metrics", "micro", "results")
_MICRO_NETWORKS = ("clip", "vqa", "reading", "reward")


@dataclass(frozen=True)
class Verdict:
    """Whether a protocol's numbers can be trusted here, and why not."""

    protocol: str
    state: State
    reason: str = ""


def machine(device: str) -> dict[str, Any]:
    """What an outcome depends on: processor, device, package versions, this project's code, micro weights."""
    described = describe_machine(device)
    return {
        "version": _VERSION,
        "device": device,
        "device_name": described["device_name"],
        "cuda": described.get("cuda"),
        "cpu": cpu_model(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": package_versions(),
        "code_sha256": _code_sha256(),
        "weights": _weights(micro_weights_root()),
    }


def outcome_path(output: Path, device: str) -> Path:
    """Where the outcome of this combination is kept below an output folder."""
    return output / "cache" / "selfcheck" / f"{short(fingerprint(machine(device)))}.json"


def load_results(path: Path) -> dict[str, Result]:
    """The stored results by check; empty when there are none, or the file is damaged or of another version."""
    try:
        stored = parse_json(read_text(path))
        if stored["machine"]["version"] != _VERSION:
            return {}
        found = [Result(**{**entry, "protocols": tuple(entry["protocols"])}) for entry in stored["results"]]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {result.name: result for result in found}


def save_results(path: Path, device: str, results: Iterable[Result]) -> None:
    """Add results to those stored, in place of earlier ones of the same checks."""
    merged = {**load_results(path), **{result.name: result for result in results}}
    content = {
        "machine": machine(device),
        "updated": now(),
        "results": [asdict(result) for result in merged.values()],
    }
    atomic.write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def verdicts(protocols: Collection[str], results: Mapping[str, Result]) -> list[Verdict]:
    """What the results say of each protocol, in order."""
    return [_verdict(protocol, checks_for([protocol]), results) for protocol in dict.fromkeys(protocols)]


def _verdict(protocol: str, checks: list[Check], results: Mapping[str, Result]) -> Verdict:
    if not checks:
        return Verdict(protocol, "no cases", "no stored cases")
    found = [results[check.name] for check in checks if check.name in results]
    failed = [result for result in found if result.status == "failed"]
    if failed:
        return Verdict(protocol, "failed", "; ".join(_told(result) for result in failed))
    lacking = len(checks) - len(found)
    if lacking:
        return Verdict(protocol, "not run", f"{lacking} of {len(checks)} checks not run")
    skipped = [result for result in found if result.status == "skipped"]
    if skipped:
        return Verdict(protocol, "skipped", "; ".join(_told(result) for result in skipped))
    if has_user_judge(protocol):
        return Verdict(protocol, "no cases", _NO_CASES_OF_JUDGE)
    return Verdict(protocol, "passed")


def _told(result: Result) -> str:
    if result.reason:
        return f"{result.name}: {result.reason}"
    return f"{result.name}: off by {result.error:.2g}, allowed {result.limit:.2g} {result.unit}"


@cache
def _code_sha256() -> str:
    """One hash of every source file whose change can change a score."""
    return fingerprint({name: file_sha256(path) for name, path in code_files().items()})


def code_files() -> dict[str, Path]:
    """The source files whose change can change a score, and the stored cases, by name."""
    root = Path(sana_bench.__file__).resolve().parent
    paths = [path for room in _ROOMS for path in sorted((root / room).rglob("*")) if path.is_file()]
    kept = [
        path
        for path in paths
        if path.suffix in (".py", ".npz", ".json", ".gz") and "weights" not in path.parts
    ]
    return {path.relative_to(root).as_posix(): path for path in kept}


_HASHES = FileHashes()


def _weights(root: Path) -> dict[str, str]:
    folders = [root / name for name in _MICRO_NETWORKS if (root / name).is_dir()]
    return {folder.name: directory_sha256(folder, _HASHES) for folder in folders}
