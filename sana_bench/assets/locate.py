"""Weights and data: where they are, whether they are whole, and how to get what is missing.

Nothing here downloads. This is the only module of the harness that reads environment variables:

- `SANA_BENCH_DATA`: evaluator weights and data sets (default: `assets/sana-bench` in the Hugging Face home)
- `SANA_BENCH_MICRO_WEIGHTS`: folder used for `micro://NAME` instead of the one shipped with the package
- `SANA_BENCH_JUDGE_KEY`: the key of the server that a served judge is asked at; it is written nowhere
- `HF_HOME`, `HF_HUB_CACHE`, `HF_HUB_OFFLINE`, `XDG_CACHE_HOME`: as Hugging Face defines them
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from sana_bench.assets.checks import check_pipeline_directory, check_safetensors_files, safetensors_shapes
from sana_bench.core.errors import AssetError, UsageError, nearest
from sana_bench.core.text import read_text
from sana_models.files import is_there, path_of
from sana_models.weight_names import lora_file

__all__ = [
    "JUDGE_KEY",
    "choose_data_root",
    "data_places",
    "data_root",
    "hub_cache",
    "hub_repository",
    "is_hub_id",
    "is_offline",
    "judge_key",
    "micro_weights_root",
    "resolve_autoencoder",
    "resolve_folder",
    "resolve_lora",
    "resolve_weights",
    "take_data_places",
]

_PLACES = ("SANA_BENCH_DATA", "SANA_BENCH_MICRO_WEIGHTS", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE")

MICRO_SCHEME = "micro://"

#: The variable that holds the key of a served judge's server.
JUDGE_KEY = "SANA_BENCH_JUDGE_KEY"


HUB_SCHEME = "hf://"


_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?")


def data_root() -> Path:
    """Return the folder of the full tier's evaluator weights and data sets."""
    if configured := os.environ.get("SANA_BENCH_DATA"):
        return Path(os.path.expanduser(configured))
    return _hf_home() / "assets" / "sana-bench"


def choose_data_root(folder: Path) -> None:
    """Use `folder` as the data root, in this process and those it starts."""
    os.environ["SANA_BENCH_DATA"] = str(Path(os.path.expanduser(folder)).absolute())


def data_places() -> dict[str, str]:
    """Return what this process was told about where weights and data are, for one elsewhere that does the same work."""
    return {name: os.environ[name] for name in _PLACES if os.environ.get(name)}


def take_data_places(places: Mapping[str, str]) -> None:
    """Look for weights and data where `data_places` of another process says, unless this one was told otherwise."""
    for name, value in places.items():
        os.environ.setdefault(name, value)


def is_offline() -> bool:
    """Say whether HF_HUB_OFFLINE forbids the network, read as the hub's client does."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def judge_key() -> str:
    """Return the key of a served judge's server, empty for none; raises `UsageError`, without it, for what cannot be one."""
    key = os.environ.get(JUDGE_KEY, "").strip()
    if re.search(r"[^!-~]", key):
        raise UsageError(f"{JUDGE_KEY} holds a character that cannot be sent as a key")
    return key


def hub_cache() -> Path:
    """Return the Hugging Face hub cache folder."""
    if configured := os.environ.get("HF_HUB_CACHE"):
        return Path(os.path.expanduser(configured))
    return _hf_home() / "hub"


def hub_repository(name: str) -> Path:
    """Return the folder of the repository `owner/name` in the hub's cache."""
    return hub_cache() / f"models--{name.replace('/', '--')}"


def micro_weights_root() -> Path:
    """Return the folder that `micro://NAME` starts from."""
    if configured := os.environ.get("SANA_BENCH_MICRO_WEIGHTS"):
        return Path(os.path.expanduser(configured))
    return Path(__file__).resolve().parents[1] / "micro" / "weights"


def resolve_weights(weights: str, relative_to: Path, weights_variant: str | None = None) -> Path:
    """Return the local SANA pipeline directory that `weights` names, checked for missing and truncated files.

    Of weights, only those that are read for the variant count. Raises `AssetError` that names what is missing and how to get it.
    """
    directory = resolve_folder(weights, relative_to)
    try:
        check_pipeline_directory(directory, weights_variant)
    except AssetError as error:
        if not is_hub_id(weights.removeprefix(HUB_SCHEME), relative_to):
            raise
        raise AssetError(f"{error}; {_how_to_get(weights.removeprefix(HUB_SCHEME), directory)}") from None
    return directory


def resolve_autoencoder(weights: str, relative_to: Path) -> Path:
    """Return the local folder of the autoencoder that `weights` names: its own, or the part of a pipeline.

    Raises `AssetError` as `resolve_folder`, and for one that is not whole.
    """
    folder = resolve_folder(weights, relative_to)
    if (folder / "model_index.json").is_file():
        folder = folder / "vae"
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise AssetError(f"{folder}: not the folder of an autoencoder, with a config.json and weights")
    check_safetensors_files(folder)
    return folder


def resolve_lora(weights: str, relative_to: Path) -> Path:
    """Return the local file of the LoRA that `weights` names: the file itself, or the one in its folder or repository.

    Raises `AssetError` as `resolve_folder`, and for a file that is not whole.
    """
    file = path_of(weights, relative_to)
    if not is_there(file, Path.is_file):
        folder = resolve_folder(weights, relative_to)
        try:
            file = folder / lora_file(path.name for path in folder.iterdir())
        except ValueError as error:
            raise AssetError(f"{folder}: {error}") from None
    safetensors_shapes(file)
    return file


def resolve_folder(weights: str, relative_to: Path, files: str | None = None) -> Path:
    """Return the local folder that `weights` names, whatever is in it.

    `weights` is `micro://NAME`, a path (absolute, `~`, or starting with `.`: relative to `relative_to`), or a
    hub id `owner/name[@revision]`, optionally with `hf://` in front, looked up under the data root and in the
    hub cache.
    Raises `AssetError` that says what is missing (`files`, where given) and how to get it.
    """
    if weights.startswith(MICRO_SCHEME):
        directory = _micro_directory(weights.removeprefix(MICRO_SCHEME))
    elif weights.startswith(HUB_SCHEME) or is_hub_id(weights, relative_to):
        directory = _hub_directory(weights.removeprefix(HUB_SCHEME), files)
    else:
        directory = path_of(weights, relative_to)
        if not is_there(directory, Path.is_dir):
            raise AssetError(f"weights {weights!r}: there is no folder {directory}")
    return directory


def _micro_directory(name: str) -> Path:
    root = micro_weights_root()
    directory = root / name
    if "/" in name or name.startswith(".") or not is_there(directory, Path.is_dir):
        known = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
        raise AssetError(f"micro weights {name!r} are not in {root}{nearest(name, known)}")
    return directory


def is_hub_id(weights: str, relative_to: Path) -> bool:
    """Say whether `weights` names a hub repository and no folder."""
    return bool(_HUB_ID.fullmatch(weights)) and not is_there(relative_to / weights, Path.is_dir)


def _hub_directory(hub_id: str, files: str | None) -> Path:
    name, _, revision = hub_id.partition("@")
    local = data_root() / "models" / name
    if is_there(local, Path.is_dir) and not revision:
        return local
    snapshot = _hub_snapshot(name, revision or "main")
    if snapshot is not None:
        return snapshot
    what = f": {files}" if files else ""
    raise AssetError(
        f"weights {hub_id!r} are not on this machine (neither in {local} nor in {hub_cache()}){what}; "
        f"{_how_to_get(hub_id)}, or put the files into {local}"
    )


def _how_to_get(hub_id: str, directory: Path | None = None) -> str:
    """The commands that bring a repository, or the rest of it, to where it is looked for."""
    name, _, revision = hub_id.partition("@")
    pinned = f" --revision {revision}" if revision else ""
    if directory is not None and directory == data_root() / "models" / name:
        return f"get them with `hf download {name} --local-dir {directory}`"
    return f"get them with `sana-bench fetch` of the suite or variant, or with `hf download {name}{pinned}`"


def _hub_snapshot(name: str, revision: str) -> Path | None:
    repository = hub_repository(name)
    reference = repository / "refs" / revision
    commit = read_text(reference).strip() if is_there(reference, Path.is_file) else revision
    snapshot = repository / "snapshots" / commit
    return snapshot if is_there(snapshot, Path.is_dir) else None


def _hf_home() -> Path:
    if configured := os.environ.get("HF_HOME"):
        return Path(os.path.expanduser(configured))
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(os.path.expanduser(cache)) if cache else Path.home() / ".cache") / "huggingface"
