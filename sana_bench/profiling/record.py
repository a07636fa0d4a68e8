"""What one variant's profile holds beside its single times: a JSON file in the run's directory, written whole or not at all."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from sana_bench.core import atomic
from sana_bench.core.errors import UsageError
from sana_bench.core.fingerprint import sealed, short, unsealed
from sana_bench.core.text import read_text

__all__ = [
    "Batch",
    "Profile",
    "profile_path",
    "read_profile",
    "read_profiles",
    "stored_profiles",
    "write_profile",
]

_FOLDER = "profile"


@dataclass(frozen=True)
class Batch:
    """One batch size: seconds of each repetition, and the memory of one batch."""

    size: int
    seconds: list[float]
    peak_bytes: int
    growth_bytes: int
    memory_source: str
    nvml_bytes: int | None = None


@dataclass(frozen=True)
class Profile:
    """Everything about one variant on one device that is measured once.

    `work` maps a stage to operations, bytes and their number format; `torch_flops` is torch's count of the same image.
    `key` and `latency_key` are those of throughput and latency in the result store. `peaks` are the device's, from a table or
    measured. `stopped` says why no larger batch was tried, and is empty where no batch was asked for; `memory_limit` are the
    bytes that a batch was allowed to add, None for a share of what the machine had left.
    """

    variant: str
    fingerprint: str
    key: str
    latency_key: str
    device: str
    label: str
    driver: str
    created: str
    load_s: float
    cold_ms: float
    compile_s: float
    warmups: int
    batches: list[Batch]
    stopped: str
    repeats: int
    together: int
    torch_flops: int | None = None
    work: dict[str, dict[str, Any]] = field(default_factory=dict)
    peaks: dict[str, Any] | None = None
    monitor: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    memory_limit: int | None = None


def profile_path(run_directory: Path, variant: str, key: str) -> Path:
    """Where the profile of a variant lies; `key` is that of its throughput, which names the device."""
    return run_directory / _FOLDER / f"{variant}-{short(key)}.json"


def write_profile(path: Path, profile: Profile) -> None:
    """Write a profile."""
    atomic.write_text(path, sealed(asdict(profile)))


def read_profile(path: Path) -> Profile | None:
    """Return a profile; None when there is none. Raises `UsageError` for a damaged file."""
    try:
        found = unsealed(read_text(path))
        return _profile(found)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{path}: damaged profile ({error}); delete it to measure again") from None


def stored_profiles(run_directory: Path, variant: str, key: str) -> list[Profile]:
    """The profiles of a key: this run's first, under the variant's name, then those of other runs beside it.

    Raises `UsageError` for a damaged file of this run; those of other runs are passed over.
    """
    own = read_profile(profile_path(run_directory, variant, key))
    found = [own] if own is not None else []
    for path in sorted(run_directory.parent.glob(f"*/{_FOLDER}/*-{short(key)}.json")):
        with suppress(UsageError):
            other = read_profile(path) if path.parents[1] != run_directory else None
            found += [other] if other is not None and other.key == key else []
    return found


def read_profiles(run_directory: Path) -> list[Profile]:
    """Return every profile of a run, of all devices."""
    found = [read_profile(path) for path in sorted((run_directory / _FOLDER).glob("*.json"))]
    return [profile for profile in found if profile is not None]


def _profile(found: Mapping[str, Any]) -> Profile:
    names = {entry.name for entry in fields(Profile)}
    values = {name: value for name, value in found.items() if name in names}
    return Profile(**values | {"batches": [Batch(**batch) for batch in found["batches"]]})
