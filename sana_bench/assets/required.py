"""The files of the full tier: what each is needed for, and how to get it."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sana_bench.assets.checks import DAMAGED, safetensors_shapes
from sana_bench.assets.locate import data_root
from sana_bench.core.errors import AssetError, nearest

__all__ = ["FULL_TIER_FILES", "Assets", "RequiredFile"]


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


def required(metric: str, names: Sequence[str]) -> list[Path]:
    """The local paths of the files that `metric` needs; `AssetError` naming every one that is missing or cut short."""
    return found_files(f"metric {metric!r} on the full tier", names)


def found_files(who: str, names: Sequence[str]) -> list[Path]:
    """The local paths of files of the full tier; `AssetError` that begins with `who`, as `required`."""
    assets = Assets("full")
    found, lacking = [], []
    for name in names:
        try:
            found.append(assets.file(name))
            _check_whole(found[-1], name)
        except AssetError as error:
            lacking.append(str(error))
    if lacking:
        raise AssetError(f"{who}: {'; '.join(lacking)}")
    return found


def _check_whole(path: Path, name: str) -> None:
    """Raise `AssetError` for a weight file that its own format shows to be damaged, in a second and without a network."""
    try:
        if path.suffix == ".safetensors":
            safetensors_shapes(path)
        elif path.suffix in (".pt", ".pth") and not zipfile.is_zipfile(path):
            _read_old_file(path)
    except (AssetError, ValueError) as error:
        how = next(required.how for required in FULL_TIER_FILES if required.name == name)
        reason = str(error).removeprefix(f"{path}: ").partition("; ")[0]
        raise AssetError(f"{path} is damaged ({reason}): delete it and get it again: {how}") from None


def _read_old_file(path: Path) -> None:
    """Raise `ValueError` unless the file is whole in the format of torch before 1.6: pickles, then the numbers.

    Nothing in such a file says how long it is, so it is read; of the evaluators only pytorch-fid's Inception (91 MB) is one.
    """
    import torch

    size = path.stat().st_size
    with open(path, "rb") as file:
        if file.read(1) != b"\x80":  # how a pickle begins
            raise ValueError(f"{size} bytes, not a file of torch or cut short")
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGED as error:
        raise ValueError(f"{size} bytes, {str(error).partition(chr(10))[0] or 'cut short'}") from None
