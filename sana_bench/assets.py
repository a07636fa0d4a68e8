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
    "hub_repository",
    "is_hub_id",
    "is_offline",
    "micro_weights_root",
    "resolve_folder",
    "resolve_weights",
]

MICRO_SCHEME = "micro://"
HUB_SCHEME = "hf://"
_SHARD = re.compile(r"(.*)-\d{5}-of-(\d{5})(.*\.safetensors)")
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
    """A file of the full tier below the data root.

    `fetched_by` is the suite to name to `sana-bench fetch`, or which suite that is; `by_hand` brings it without, `{folder}`
    standing for the folder of the file.
    """

    name: str
    path: str
    needed_for: str
    fetched_by: str
    by_hand: str

    @property
    def how(self) -> str:
        """How to get the file into the data root of now: the command, and the source."""
        command = (
            f"`sana-bench fetch {self.fetched_by}`"
            if " " not in self.fetched_by
            else f"`sana-bench fetch` of {self.fetched_by}"
        )
        folder = (data_root() / self.path).parent
        return f"{command} brings it; by hand: {self.by_hand.format(folder=folder)}"


FULL_TIER_FILES: tuple[RequiredFile, ...] = (
    RequiredFile(
        "geneval_detector",
        "geneval/mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco.pth",
        "geneval (full tier)",
        "geneval",
        "save under that name https://download.openmmlab.com/mmdetection/v2.0/mask2former/"
        "mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco/"
        "mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco_20220504_001756-743b7d99.pth",
    ),
    RequiredFile(
        "geneval_detector_hub",
        "geneval/mask2former-swin-small-coco-instance/model.safetensors",
        "geneval/hf-detector@1 (full tier)",
        "a suite that names geneval/hf-detector@1",
        "`hf download facebook/mask2former-swin-small-coco-instance config.json model.safetensors --local-dir {folder}`",
    ),
    RequiredFile(
        "clip_vit_l_14",
        "clip/ViT-L-14-quickgelu-openai.safetensors",
        "geneval colours and clip_score (full tier)",
        "geneval",
        "save under that name https://huggingface.co/timm/vit_large_patch14_clip_224.openai/resolve/main/"
        "open_clip_model.safetensors",
    ),
    RequiredFile(
        "mjhq30k_images",
        "mjhq30k/meta_data.json",
        "the prompts of mjhq30k, fid and kid (full tier)",
        "mjhq30k",
        "`hf download playgroundai/MJHQ-30K meta_data.json mjhq30k_imgs.zip --repo-type dataset --local-dir {folder}`, then "
        "unpack there to mjhq30k_imgs/<category>/<id>.jpg",
    ),
    RequiredFile(
        "inception_pytorch",
        "inception/pt_inception-2015-12-05-6726825d.pth",
        "fid by fid/sana@1 and fid/pytorch-fid@1 (full tier)",
        "mjhq30k",
        "save under that name https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
        "pt_inception-2015-12-05-6726825d.pth",
    ),
    RequiredFile(
        "inception_torchscript",
        "inception/inception-2015-12-05.pt",
        "fid by fid/clean@1, and kid (full tier)",
        "a suite that names kid or fid/clean@1",
        "save under that name https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/"
        "inception-2015-12-05.pt",
    ),
    RequiredFile(
        "image_reward_weights",
        "image_reward/ImageReward.pt",
        "image_reward (full tier)",
        "image_reward",
        "`hf download THUDM/ImageReward ImageReward.pt --local-dir {folder}`",
    ),
    RequiredFile(
        "image_reward_config",
        "image_reward/med_config.json",
        "image_reward (full tier)",
        "image_reward",
        "`hf download THUDM/ImageReward med_config.json --local-dir {folder}`",
    ),
    RequiredFile(
        "bert_vocabulary",
        "image_reward/vocab.txt",
        "image_reward (full tier)",
        "image_reward",
        "`hf download google-bert/bert-base-uncased vocab.txt --local-dir {folder}`",
    ),
    RequiredFile(
        "image_reward_prompts",
        "image_reward/benchmark-prompts.json",
        "the prompts of image_reward (full tier)",
        "image_reward",
        "save under that name https://raw.githubusercontent.com/THUDM/ImageReward/main/benchmark/benchmark-prompts.json",
    ),
    RequiredFile(
        "dpg_bench_questions",
        "dpg_bench/dpg_bench.csv",
        "the prompts and questions of dpg_bench (full tier)",
        "dpg_bench",
        "save under that name https://raw.githubusercontent.com/TencentQQGYLab/ELLA/main/dpg_bench/dpg_bench.csv",
    ),
    RequiredFile(
        "mplug",
        "mplug/pytorch_model.bin",
        "dpg (full tier)",
        "dpg_bench",
        "`hf download xingjianleng/mplug_visual-question-answering_coco_large_en --local-dir {folder}`",
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


def hub_repository(name: str) -> Path:
    """Return the folder of the repository `owner/name` in the hub's cache."""
    return hub_cache() / f"models--{name.replace('/', '--')}"


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
    try:
        check_pipeline_directory(directory)
    except AssetError as error:
        if not is_hub_id(weights.removeprefix(HUB_SCHEME), relative_to):
            raise
        raise AssetError(f"{error}; {_how_to_get(weights.removeprefix(HUB_SCHEME), directory)}") from None
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
    """Raise `AssetError` unless the safetensors files of a folder and its parts are as long as their own headers say.

    Of weights in shards all must be there, and their index.
    """
    parts = [path for path in directory.iterdir() if path.is_dir()]
    for folder in sorted([directory, *parts, *_shared_parts(directory).values()]):
        missing = sorted(_shards(folder) - {path.name for path in folder.iterdir() if path.is_file()})
        if missing:
            raise AssetError(f"{folder}: missing {', '.join(missing)}")
        for path in sorted(folder.glob("*.safetensors")):
            safetensors_shapes(path)


def _shards(folder: Path) -> set[str]:
    """Names of the files that a folder's indices of shards, and the numbers in its shards' own names, ask for."""
    names = set()
    for index in folder.glob("*.safetensors.index.json"):
        try:
            names |= set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            raise AssetError(f"{index}: not an index of weight files") from None
    for path in folder.glob("*.safetensors"):
        if match := _SHARD.fullmatch(path.name):
            start, count, rest = match.groups()
            names |= {f"{start}-{place:05d}-of-{count}{rest}" for place in range(1, int(count) + 1)}
    return names


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
    raise AssetError(
        f"weights {hub_id!r} are missing (neither in {local} nor in {hub_cache()}): {files}; "
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
    commit = reference.read_text().strip() if reference.is_file() else revision
    snapshot = repository / "snapshots" / commit
    return snapshot if snapshot.is_dir() else None


def _hf_home() -> Path:
    if configured := os.environ.get("HF_HOME"):
        return Path(configured).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache).expanduser() if cache else Path.home() / ".cache") / "huggingface"
