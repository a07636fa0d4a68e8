#!/usr/bin/env python3
"""Random stand-ins for the full tier's files, and sana-bench on them: the dress rehearsal of a run with the published weights.

    python scripts/stand_in_assets.py write DIR [SUITE]          files under their published names, in their published formats
    python scripts/stand_in_assets.py run DIR ARGUMENT...        `sana-bench ARGUMENT...` on them, without a network

`DIR/data` is a data folder and `DIR/hub` a Hugging Face cache. Networks whose size a format fixes (Swin-S, ViT-L, Inception) have
it, all others are small. Weights are random: numbers made with them mean nothing. Hashes that were published do not fit them,
so `run` leaves these out; everything else of `sana-bench` is as it is.
"""

import json
import math
import os
import shutil
import socket
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
for _folder in (ROOT, ROOT / "models", ROOT / "kernels", ROOT / "reports"):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from torch import Tensor  # noqa: E402

SUITE = "paper_table"
_REVISION = "0" * 40
_N_MJHQ = 12
_WORDS = (
    "a",
    "photo",
    "of",
    "the",
    "red",
    "green",
    "blue",
    "cup",
    "wooden",
    "table",
    "old",
    "man",
    "soft",
    "light",
)


def write(root: Path, suite: str = SUITE) -> list[str]:
    """Write what a suite needs below `root`; return a line for each thing. Raises `SystemExit` for what has no stand-in."""
    from sana_bench.assets.needs import needs_named

    needs = needs_named(suite)
    if needs is None:
        raise SystemExit(f"{suite}: the micro tier needs nothing")
    foreign = [repository.label for repository in needs.repositories if repository.reader != "sana"]
    lacking = [name for name in needs.assets if name not in _ASSETS] + foreign
    if lacking:
        raise SystemExit(f"{suite}: there is no stand-in for {', '.join(lacking)}")
    lines = []
    for name in needs.assets:
        _ASSETS[name](root / "data")
        lines.append(f"{name}: written")
    for place, repository in enumerate(needs.repositories):
        folder = write_repository(root / "hub", repository.name, repository.weights_variant, seed=place)
        lines.append(f"{repository.label}: written, {folder}")
    return lines


def run(root: Path, arguments: Sequence[str]) -> int:
    """`sana-bench ARGUMENTS` on the stand-ins below `root`; return the exit code."""
    from sana_bench.cli.main import execute

    with rehearsal(root):
        return execute(list(arguments))


@contextmanager
def rehearsal(root: Path) -> Iterator[None]:
    """The stand-ins below `root` are the data folder and the hub's cache, no published hash counts, and no socket connects."""
    from sana_bench.assets import table

    def refuse(*_: object) -> None:
        raise OSError("a rehearsal has no network")

    def without_hash(file: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in file.items() if key != "sha256"}

    read = table._asset
    folders = {
        "SANA_BENCH_DATA": str(root / "data"),
        "HF_HUB_CACHE": str(root / "hub"),
        "HF_HUB_OFFLINE": "1",
    }
    with (
        mock.patch.dict(os.environ, folders),
        mock.patch.object(socket.socket, "connect", refuse),
        mock.patch.object(
            table,
            "_asset",
            lambda name, entry: read(name, {**entry, "files": list(map(without_hash, entry["files"]))}),
        ),
    ):
        yield


def draw(shapes: Mapping[str, Sequence[int]], seed: int = 0) -> dict[str, Tensor]:
    """Random float16 tensors by name: norms near one, biases near zero, matrices by fan-in."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, shape in shapes.items():
        if len(shape) < 2:
            is_norm = name.endswith("weight")
            tensor = 0.05 * torch.randn(tuple(shape), generator=generator) + is_norm
        else:
            tensor = torch.randn(tuple(shape), generator=generator) / math.sqrt(math.prod(shape[1:]))
        found[name] = tensor.half()
    return found


# Evaluators


def _geneval_detector(data: Path) -> None:
    """MMDetection's checkpoint: its names, beside the settings of a training."""
    from sana_bench.metrics.selfcheck import golden_files

    shapes = golden_files.mask2former_keys()["official"]
    weights = draw({name: shape for name, shape in shapes.items() if "relative_position_index" not in name})
    content = {"meta": {"mmdet_version": "2.28.2", "epoch": 50}, "state_dict": weights}
    _save(content, data / "geneval/mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco.pth")


def _clip(data: Path) -> None:
    """OpenAI's CLIP ViT-L/14 as timm publishes it for open_clip."""
    from safetensors.torch import save_file

    from sana_bench.metrics.clip.features import MODEL
    from sana_models.libraries import without_torchao

    with without_torchao():
        import open_clip
    with torch.device("meta"):
        network = open_clip.CLIP(**open_clip.get_model_config(MODEL))
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    weights = draw(shapes) | {"logit_scale": torch.tensor(math.log(100)).half()}
    path = data / "clip/ViT-L-14-quickgelu-openai.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path)


def _inception_pytorch(data: Path) -> None:
    from tests.metrics.fid.inception_cases import random_state

    _save(random_state(), data / "inception/pt_inception-2015-12-05-6726825d.pth")


def _inception_torchscript(data: Path) -> None:
    from tests.metrics.fid.inception_cases import random_state, torchscript_file

    path = data / "inception/inception-2015-12-05.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torchscript_file(path, random_state())


def _reward_config() -> dict[str, Any]:
    from sana_bench.metrics.selfcheck.encoders import reward_config

    return dict(reward_config())


def _image_reward_weights(data: Path) -> None:
    """ImageReward's own names: its ViT-L/16 at its size, its text side small, as `med_config.json` beside it says."""
    from sana_bench.metrics.image_reward.network import RewardNetwork, VisionSize, published_name

    with torch.device("meta"):
        network = RewardNetwork(VisionSize(), _reward_config())
    shapes = {
        published_name(name): tuple(tensor.shape)
        for name, tensor in network.state_dict().items()
        if not name.endswith("position_ids")
    }
    _save(draw(shapes), data / "image_reward/ImageReward.pt")


def _image_reward_config(data: Path) -> None:
    _text(data / "image_reward/med_config.json", json.dumps(_reward_config()))


def _bert_vocabulary(data: Path) -> None:
    from sana_bench.metrics.selfcheck.recipes.image_reward import vocabulary

    _text(data / "image_reward/vocab.txt", "".join(f"{word}\n" for word in vocabulary()))


def _mplug(data: Path) -> None:
    """ModelScope's folder: configurations, vocabulary, and the weights as a pickle under `model`."""
    from safetensors.torch import load_file

    from sana_bench.judges.mplug.config import PICKLE_FILE, SAFETENSORS_FILE
    from tests.tiny_weights import write_tiny_vqa

    folder = write_tiny_vqa(data / "mplug")
    _save({"model": load_file(folder / SAFETENSORS_FILE)}, folder / PICKLE_FILE)
    (folder / SAFETENSORS_FILE).unlink()


# Prompts and reference images


def _prompt(place: int) -> str:
    first, second, third = (_WORDS[4 + (place * step) % (len(_WORDS) - 4)] for step in (1, 3, 7))
    return f"a photo of the {first} {second} with {third} {place}"


def _mjhq30k(data: Path) -> None:
    """`meta_data.json` and the archive of images, a folder a category."""
    categories = ("animals", "art", "people")
    rng = np.random.default_rng(0)
    entries, archive = {}, data / "mjhq30k/mjhq30k_imgs.zip"
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w") as members:
        for place in range(_N_MJHQ):
            name, category = f"{place:040x}", categories[place % len(categories)]
            entries[name] = {"category": category, "prompt": f"{_prompt(place)} --ar 1:1"}
            picture = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((256, 256))
            content = BytesIO()
            picture.save(content, "JPEG")
            members.writestr(f"{category}/{name}.jpg", content.getvalue())
    _text(data / "mjhq30k/meta_data.json", json.dumps(entries))


def _mjhq30k_images(data: Path) -> None:
    _mjhq30k(data)
    with zipfile.ZipFile(data / "mjhq30k/mjhq30k_imgs.zip") as members:
        members.extractall(data / "mjhq30k/mjhq30k_imgs")


def _dpg_bench_questions(data: Path) -> None:
    """The published table's columns; the question that the published script never asks has no child."""
    lines = [
        "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,question_natural_language"
    ]
    for place in range(8):
        item, text = f"stand-in-{place}", _prompt(place)
        lines += [
            f'{item},{text},,1,0,global,,"global - (photo)",Is it a photo?',
            f'{item},,,2,0,entity,whole,"entity - whole (ring)",Is there a ring?',
            f'{item},,,3,2,attribute,color,"attribute - color (ring, red)",Is the ring red?',
        ]
    _text(data / "dpg_bench/dpg_bench.csv", "\n".join(lines) + "\n")


def _image_reward_prompts(data: Path) -> None:
    entries = [{"id": f"{place:06d}-0000", "prompt": _prompt(place)} for place in range(100)]
    _text(data / "image_reward/benchmark-prompts.json", json.dumps(entries))


_ASSETS: dict[str, Callable[[Path], None]] = {
    "geneval_detector": _geneval_detector,
    "clip_vit_l_14": _clip,
    "inception_pytorch": _inception_pytorch,
    "inception_torchscript": _inception_torchscript,
    "image_reward_weights": _image_reward_weights,
    "image_reward_config": _image_reward_config,
    "bert_vocabulary": _bert_vocabulary,
    "image_reward_prompts": _image_reward_prompts,
    "mplug": _mplug,
    "dpg_bench_questions": _dpg_bench_questions,
    "mjhq30k_prompts": _mjhq30k,
    "mjhq30k_images": _mjhq30k_images,
}


# SANA


def write_repository(hub: Path, name: str, weights_variant: str | None, seed: int = 0) -> Path:
    """Write a small SANA in the hub's cache layout, `refs`, `blobs` and `snapshots`; return the snapshot.

    The text encoder lies in two shards with an index, and its files and the transformer's carry the weight variant.
    """
    from sana_bench.core.fingerprint import file_sha256
    from sana_models.config import QK_NORM
    from tests.tiny_weights import write_tiny_pipeline

    place = hub / f"models--{name.replace('/', '--')}"
    plain, snapshot = place / "plain", place / "snapshots" / _REVISION
    # SANA's latents, 32 channels at a 32nd of the size, and as many tokens as it reads.
    write_tiny_pipeline(
        plain, seed, latent_channels=32, widths=(8, 8, 8, 16, 16, 32), words=_WORDS, max_length=300, max_positions=1024,
        qk_norm=QK_NORM if "SANA1.5" in name else None, sprint="Sprint" in name,
    )  # fmt: skip
    _shard(plain / "text_encoder" / "model.safetensors", weights_variant)
    if weights_variant is not None:
        transformer = plain / "transformer" / "diffusion_pytorch_model.safetensors"
        transformer.rename(transformer.with_name(f"diffusion_pytorch_model.{weights_variant}.safetensors"))
    (place / "blobs").mkdir()
    for path in sorted(path for path in plain.rglob("*") if path.is_file()):
        blob, link = place / "blobs" / file_sha256(path), snapshot / path.relative_to(plain)
        path.replace(blob)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    shutil.rmtree(plain)
    _text(place / "refs" / "main", _REVISION)
    return snapshot


def _shard(path: Path, weights_variant: str | None) -> None:
    """Put a safetensors file into two shards with their index, under the names that transformers gives them."""
    from safetensors.torch import load_file, save_file

    weights, named = load_file(path), f".{weights_variant}" if weights_variant else ""
    names, half = sorted(weights), len(weights) // 2
    where = {}
    for number, part in enumerate((names[:half], names[half:]), start=1):
        shard = f"model{named}-{number:05d}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, path.with_name(shard), metadata={"format": "pt"})
        where |= dict.fromkeys(part, shard)
    index = f"model.safetensors.index{named}.json"
    _text(path.with_name(index), json.dumps({"metadata": {}, "weight_map": where}))
    path.unlink()


def _save(content: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)


def _text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["write", folder, *suites] if len(suites) < 2:
            print("\n".join(write(Path(folder), *suites)))
        case ["run", folder, *arguments] if arguments:
            raise SystemExit(run(Path(folder), arguments))
        case _:
            raise SystemExit(__doc__)
