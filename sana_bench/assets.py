"""Weights and data: where they are, whether they are whole, and how to get what is missing.

Nothing here downloads. This is the only module of the harness that reads environment variables:

- `SANA_BENCH_DATA`: evaluator weights and data sets (default: `assets/sana-bench` in the Hugging Face home)
- `SANA_BENCH_MICRO_WEIGHTS`: folder used for `micro://NAME` instead of the one shipped with the package
- `HF_HOME`, `HF_HUB_CACHE`, `HF_HUB_OFFLINE`, `XDG_CACHE_HOME`: as Hugging Face defines them
"""

import json
import os
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sana_bench.errors import AssetError, nearest
from sana_models.shared_parts import shared_parts

__all__ = [
    "FULL_TIER_FILES",
    "Assets",
    "RequiredFile",
    "allocator_settings",
    "check_pipeline_directory",
    "check_safetensors_files",
    "choose_data_root",
    "data_root",
    "hub_cache",
    "is_hub_id",
    "is_offline",
    "micro_weights_root",
    "resolve_folder",
    "resolve_weights",
]

MICRO_SCHEME = "micro://"
HUB_SCHEME = "hf://"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?")

# What a pipeline directory in the diffusers layout holds; each entry is satisfied by any one of its patterns.
_PIPELINE_FILES: tuple[tuple[str, ...], ...] = (
    ("model_index.json",),
    ("transformer/config.json",),
    ("transformer/*.safetensors",),
    ("vae/config.json",),
    ("vae/*.safetensors",),
    ("text_encoder/config.json",),
    ("text_encoder/*.safetensors",),
    ("tokenizer/tokenizer.json", "tokenizer/tokenizer.model"),
    ("scheduler/scheduler_config.json",),
)

ALLOCATOR_VARIABLES = {
    "MALLOC_MMAP_THRESHOLD_": "8589934592",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "268435456",
}


@dataclass(frozen=True)
class RequiredFile:
    """A file of the full tier that the user supplies under the data root."""

    name: str
    path: str
    needed_for: str
    how: str


FULL_TIER_FILES: tuple[RequiredFile, ...] = (
    RequiredFile(
        "geneval_detector",
        "geneval/mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco.pth",
        "geneval (full tier)",
        "sana-bench fetch, or from the v2.0 folder of download.openmmlab.com: "
        "mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco_20220504_001756-743b7d99.pth",
    ),
    RequiredFile(
        "geneval_detector_hub",
        "geneval/mask2former-swin-small-coco-instance/model.safetensors",
        "geneval/hf-detector@1 (full tier)",
        "sana-bench fetch, or hf download facebook/mask2former-swin-small-coco-instance",
    ),
    RequiredFile(
        "clip_vit_l_14",
        "clip/ViT-L-14-quickgelu-openai.safetensors",
        "geneval colours and clip_score (full tier)",
        "sana-bench fetch, or open_clip_model.safetensors of timm/vit_large_patch14_clip_224.openai",
    ),
    RequiredFile(
        "mjhq30k_images",
        "mjhq30k/meta_data.json",
        "fid on mjhq30k (full tier)",
        "hf download playgroundai/MJHQ-30K --repo-type dataset, "
        "then unpack mjhq30k_imgs.zip beside meta_data.json",
    ),
    RequiredFile(
        "inception_pytorch",
        "inception/pt_inception-2015-12-05-6726825d.pth",
        "fid by fid/sana@1 and fid/pytorch-fid@1 (full tier)",
        "from the release `fid_weights` of github.com/mseitzer/pytorch-fid",
    ),
    RequiredFile(
        "inception_torchscript",
        "inception/inception-2015-12-05.pt",
        "fid by fid/clean@1, and kid (full tier)",
        "from nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics",
    ),
    RequiredFile(
        "image_reward_weights",
        "image_reward/ImageReward.pt",
        "image_reward (full tier)",
        "hf download THUDM/ImageReward ImageReward.pt",
    ),
    RequiredFile(
        "image_reward_config",
        "image_reward/med_config.json",
        "image_reward (full tier)",
        "hf download THUDM/ImageReward med_config.json",
    ),
    RequiredFile(
        "bert_vocabulary",
        "image_reward/vocab.txt",
        "image_reward (full tier)",
        "hf download google-bert/bert-base-uncased vocab.txt",
    ),
    RequiredFile(
        "image_reward_prompts",
        "image_reward/benchmark-prompts.json",
        "the benchmark image_reward",
        "benchmark/benchmark-prompts.json of github.com/THUDM/ImageReward",
    ),
)


@dataclass(frozen=True)
class Assets:
    """What metrics ask for weights and data; bound to one tier."""

    tier: str

    def micro_weights(self, name: str) -> Path:
        """Return the folder of the micro weights called `name`; raises `AssetError` when it is not there."""
        return _micro_directory(name)

    def file(self, name: str) -> Path:
        """Return the path of a `FULL_TIER_FILES` entry; raises `AssetError` that says how to get it."""
        known = {required.name: required for required in FULL_TIER_FILES}
        if name not in known:
            raise AssetError(f"unknown asset {name!r}{nearest(name, known)}")
        required = known[name]
        path = data_root() / required.path
        if not path.is_file():
            raise AssetError(f"{path} is missing, needed for {required.needed_for}: {required.how}")
        return path


def data_root() -> Path:
    """Return the folder of the full tier's evaluator weights and data sets."""
    if configured := os.environ.get("SANA_BENCH_DATA"):
        return Path(configured).expanduser()
    return _hf_home() / "assets" / "sana-bench"


def choose_data_root(folder: Path) -> None:
    """Use `folder` as the data root, in this process and those it starts."""
    os.environ["SANA_BENCH_DATA"] = str(folder.expanduser().absolute())


def is_offline() -> bool:
    """Say whether HF_HUB_OFFLINE forbids the network, read as the hub's client does."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def hub_cache() -> Path:
    """Return the Hugging Face hub cache folder."""
    if configured := os.environ.get("HF_HUB_CACHE"):
        return Path(configured).expanduser()
    return _hf_home() / "hub"


def micro_weights_root() -> Path:
    """Return the folder that `micro://NAME` starts from."""
    if configured := os.environ.get("SANA_BENCH_MICRO_WEIGHTS"):
        return Path(configured).expanduser()
    return Path(__file__).resolve().parent / "micro" / "weights"


def allocator_settings() -> dict[str, bool]:
    """Say for each glibc allocator variable that speeds up CPU work whether it is set."""
    return {name: name in os.environ for name in ALLOCATOR_VARIABLES}


def resolve_weights(weights: str, relative_to: Path) -> Path:
    """Return the local SANA pipeline directory that `weights` names, checked for missing and truncated files.

    Raises `AssetError` that names the missing files and how to get them.
    """
    directory = resolve_folder(weights, relative_to)
    check_pipeline_directory(directory)
    return directory


def resolve_folder(weights: str, relative_to: Path, files: str | None = None) -> Path:
    """Return the local folder that `weights` names, whatever is in it.

    `weights` is `micro://NAME`, a path (absolute, `~`, or starting with `.`: relative to `relative_to`), or a
    hub id `owner/name[@revision]`, optionally with `hf://` in front, looked up under the data root and in the
    hub cache.
    Raises `AssetError` that names the missing files (`files`; those of a pipeline unless it is given) and how to get them.
    """
    if weights.startswith(MICRO_SCHEME):
        directory = _micro_directory(weights.removeprefix(MICRO_SCHEME))
    elif weights.startswith(HUB_SCHEME) or is_hub_id(weights, relative_to):
        directory = _hub_directory(weights.removeprefix(HUB_SCHEME), files)
    else:
        directory = (relative_to / Path(weights).expanduser()).resolve()
        if not directory.is_dir():
            raise AssetError(f"weights {weights!r}: there is no folder {directory}")
    return directory


def check_pipeline_directory(directory: Path) -> None:
    """Raise `AssetError` unless every file of the diffusers layout is there and whole by its own header."""
    shared = _shared_parts(directory)
    missing = [
        " or ".join(patterns)
        for patterns in _PIPELINE_FILES
        if not any(path.is_file() for pattern in patterns for path in _matches(directory, pattern, shared))
    ]
    if missing:
        raise AssetError(f"{directory}: missing {', '.join(missing)}")
    check_safetensors_files(directory)


def check_safetensors_files(directory: Path) -> None:
    """Raise `AssetError` unless every safetensors file of a pipeline's parts is as long as its own header says."""
    shared = [path for place in _shared_parts(directory).values() for path in place.glob("*.safetensors")]
    for path in sorted([*directory.glob("*/*.safetensors"), *shared]):
        safetensors_shapes(path)


def _shared_parts(directory: Path) -> dict[str, Path]:
    try:
        return shared_parts(directory)
    except ValueError as error:
        raise AssetError(str(error)) from None


def _matches(directory: Path, pattern: str, shared: Mapping[str, Path]) -> Iterator[Path]:
    part, _, rest = pattern.partition("/")
    return shared[part].glob(rest) if part in shared else directory.glob(pattern)


def safetensors_shapes(path: Path) -> list[tuple[int, ...]]:
    """Return the shapes of the tensors in a file, from its header.

    Raises `AssetError` unless the file is a safetensors file of exactly the length that its header says.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        prefix = file.read(8)
        header_length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= header_length <= min(size - 8, 100_000_000):
            raise AssetError(f"{path}: not a whole safetensors file ({size} bytes)")
        try:
            header = json.loads(file.read(header_length))
            entries = [entry for name, entry in header.items() if name != "__metadata__"]
            ends = [entry["data_offsets"][1] for entry in entries]
            shapes = [tuple(entry["shape"]) for entry in entries]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            raise AssetError(f"{path}: not a safetensors file") from None
    expected = 8 + header_length + max(ends, default=0)
    if size != expected:
        state = "truncated" if size < expected else "longer than its header says"
        raise AssetError(f"{path}: {state} ({size} of {expected} bytes); fetch the file again")
    return shapes


def _micro_directory(name: str) -> Path:
    root = micro_weights_root()
    directory = root / name
    if "/" in name or name.startswith(".") or not directory.is_dir():
        known = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
        raise AssetError(f"micro weights {name!r} are not in {root}{nearest(name, known)}")
    return directory


def is_hub_id(weights: str, relative_to: Path) -> bool:
    """Say whether `weights` names a hub repository and no folder."""
    return bool(_HUB_ID.fullmatch(weights)) and not (relative_to / weights).is_dir()


def _hub_directory(hub_id: str, files: str | None) -> Path:
    name, _, revision = hub_id.partition("@")
    local = data_root() / "models" / name
    if local.is_dir() and not revision:
        return local
    snapshot = _hub_snapshot(name, revision or "main")
    if snapshot is not None:
        return snapshot
    files = files or ", ".join(" or ".join(patterns) for patterns in _PIPELINE_FILES)
    pinned = f" --revision {revision}" if revision else ""
    raise AssetError(
        f"weights {hub_id!r} are missing (neither in {local} nor in {hub_cache()}): {files}; "
        f"get them with `hf download {name}{pinned}`, or put the files into {local}"
    )


def _hub_snapshot(name: str, revision: str) -> Path | None:
    repository = hub_cache() / f"models--{name.replace('/', '--')}"
    reference = repository / "refs" / revision
    commit = reference.read_text().strip() if reference.is_file() else revision
    snapshot = repository / "snapshots" / commit
    return snapshot if snapshot.is_dir() else None


def _hf_home() -> Path:
    if configured := os.environ.get("HF_HOME"):
        return Path(configured).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache).expanduser() if cache else Path.home() / ".cache") / "huggingface"
