#!/usr/bin/env python3
"""Random stand-ins for the full tier's files, and sana-bench on them: the dress rehearsal of a run with the published weights.

    python scripts/stand_in_assets.py write DIR [SUITE]          files under their published names, in their published formats
    python scripts/stand_in_assets.py run DIR ARGUMENT...        `sana-bench ARGUMENT...` on them, without a network

`DIR/data` is a data folder and `DIR/hub` a Hugging Face cache. Networks whose size a format fixes have it (Swin-S, ViT-L, ViT-H,
Inception), all others are small. Weights are random: numbers made with them mean nothing. Published hashes do not fit them, so
`run` leaves these out; everything else of `sana-bench` is as it is.

Of a suite with weights that nobody publishes, `DIR/suites` is a copy of the suites and variants, beside which `DIR/results` holds
theirs: `run DIR run DIR/suites/SUITE.yaml`.
"""

import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
for _folder in (ROOT, ROOT / "models", ROOT / "kernels", ROOT / "reports"):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

from sana_bench.assets.needs import Needs, needs_named  # noqa: E402
from sana_bench.assets.table import Repository  # noqa: E402
from tests.stand_in_files import ASSETS, WORDS  # noqa: E402

SUITE = "paper_table"
_REVISION = "0" * 40
_FAMILIES = {"Qwen/Qwen3-VL-": "qwen3_vl", "Qwen/Qwen2.5-VL-": "qwen2_5_vl"}
_STYLES, _AUTOENCODER = "xingpng/OneIG-StyleEncoder", "mit-han-lab/dc-ae-lite-f32c32-sana-1.1-diffusers"


def write(root: Path, suite: str = SUITE) -> list[str]:
    """Write what a suite needs below `root`; return a line for each thing. Raises `SystemExit` for what has no stand-in."""
    needs = needs_named(suite)
    if needs is None:
        raise SystemExit(f"{suite}: the micro tier needs nothing")
    lacking = [name for name in needs.assets if name not in ASSETS]
    lacking += [repository.label for repository in needs.repositories if not has_stand_in(repository)]
    if lacking:
        raise SystemExit(f"{suite}: there is no stand-in for {', '.join(lacking)}")
    lines = []
    for name in needs.assets:
        ASSETS[name](root / "data")
        lines.append(f"{name}: written")
    for place, repository in enumerate(needs.repositories):
        folder = write_repository(root / "hub", repository, seed=place)
        lines.append(f"{repository.label}: written, {folder}")
    return lines + _write_unpublished(root, needs)


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


def has_stand_in(repository: Repository) -> bool:
    """Whether a repository can be written: SANA's and those of judges; pipelines of other models are read by diffusers alone."""
    name = repository.name
    return (
        repository.reader in ("sana", "vila")
        or name.startswith(tuple(_FAMILIES))
        or name in (_STYLES, _AUTOENCODER)
    )


def write_repository(hub: Path, repository: Repository, seed: int = 0) -> Path:
    """Write a small repository in the hub's cache layout, `refs`, `blobs` and `snapshots`; return the snapshot."""
    from sana_bench.core.fingerprint import file_sha256

    place = hub / f"models--{repository.name.replace('/', '--')}"
    plain, snapshot = place / "plain", place / "snapshots" / _REVISION
    _write_plain(plain, repository, seed)
    (place / "blobs").mkdir(exist_ok=True)
    for path in sorted(path for path in plain.rglob("*") if path.is_file()):
        blob, link = place / "blobs" / file_sha256(path), snapshot / path.relative_to(plain)
        path.replace(blob)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    shutil.rmtree(plain)
    (place / "refs").mkdir(exist_ok=True)
    (place / "refs" / "main").write_text(_REVISION)
    return snapshot


def _write_plain(folder: Path, repository: Repository, seed: int) -> None:
    name = repository.name
    if repository.reader == "sana":
        _write_sana(folder, name, repository.weights_variant, seed)
    elif repository.reader == "vila":
        from tests.judges.nvila.nvila_by_hand import write_directory

        write_directory(folder)
    elif name == _STYLES:
        from tests.metrics.oneig.tiny_encoders import write_style_encoder

        write_style_encoder(folder)
    elif name == _AUTOENCODER:
        _write_sana(folder.with_name("whole"), name, None, seed)
        (folder.with_name("whole") / "vae").rename(folder)
        shutil.rmtree(folder.with_name("whole"))
    else:
        from tests.tiny_qwen import write_qwen

        family = next(family for start, family in _FAMILIES.items() if name.startswith(start))
        write_qwen(folder, family)


def _write_sana(folder: Path, name: str, weights_variant: str | None, seed: int) -> None:
    """A small SANA, SANA-1.5 or SANA-Sprint, by its name.

    The text encoder lies in two shards with an index, and its files and the transformer's carry the weight variant.
    """
    from sana_models.config import QK_NORM
    from tests.tiny_weights import write_tiny_pipeline

    # SANA's latents, 32 channels at a 32nd of the size, and as many tokens as it reads.
    write_tiny_pipeline(
        folder, seed, latent_channels=32, widths=(8, 8, 8, 16, 16, 32), words=WORDS, max_length=300, max_positions=1024,
        qk_norm=QK_NORM if "SANA1.5" in name.upper().replace("-", "") else None, sprint="Sprint" in name,
    )  # fmt: skip
    _shard(folder / "text_encoder" / "model.safetensors", weights_variant)
    if weights_variant is not None:
        transformer = folder / "transformer" / "diffusion_pytorch_model.safetensors"
        transformer.rename(transformer.with_name(f"diffusion_pytorch_model.{weights_variant}.safetensors"))


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
    index = path.with_name(f"model.safetensors.index{named}.json")
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    path.unlink()


def _write_unpublished(root: Path, needs: Needs) -> list[str]:
    """A copy of the suites below `root`, and beside it the weights that nobody publishes; a line for each."""
    if not needs.folders:
        return []
    shutil.copytree(ROOT / "suites", root / "suites", dirs_exist_ok=True)
    lines = []
    for seed, (name, (weights, _)) in enumerate(needs.folders.items(), start=100):
        folder = (root / "suites/variants" / weights).resolve()
        shutil.rmtree(folder, ignore_errors=True)
        _write_sana(folder, name, None, seed)
        lines.append(f"{name}: written, {folder}; run {root / 'suites' / needs.suite}.yaml")
    return lines


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["write", folder, *suites] if len(suites) < 2:
            print("\n".join(write(Path(folder), *suites)))
        case ["run", folder, *arguments] if arguments:
            raise SystemExit(run(Path(folder), arguments))
        case _:
            raise SystemExit(__doc__)
