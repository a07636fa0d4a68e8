"""Images and captions encoded ahead: by worker processes, by `--encode`, by several processes, and what that leaves to do."""

import gc
import json
import multiprocessing
import shutil
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from sana_bench.cli.main import execute
from sana_models.dc_ae import DCAE
from sana_models.training import parts
from sana_models.training.image_text import Stage
from sana_models.training.latents import LatentStore
from sana_models.training.records import BadRecords
from sana_models.training.run import run_encoding, run_training
from sana_models.training.settings import TextToImageSettings
from tests.models.training.datasets import write_folder, write_shards
from tests.models.training.test_training_data import autoencoder, damage, draw, make_data
from tests.models.training.test_training_processes import assert_equal, run_worker, weights
from tests.models.training.worker import no_source
from tests.tiny_weights import write_tiny_pipeline

__all__ = ["autoencoder"]


def test_workers_give_the_batches_of_one_process(tmp_path, autoencoder):
    paths = [write_folder(tmp_path / "dots", 12), write_shards(tmp_path / "latents", (8,), latents=True)]
    stages = [Stage(until=5, image_size=8, batch_size=6), Stage(until=9, image_size=16)]
    options = {"stages": stages, "cache": tmp_path / "cache", "cache_identity": "a"}
    alone = make_data(paths, autoencoder, stages=stages)
    helped = make_data(paths, autoencoder, workers=2, **options)
    # In order over two stages, then back to an earlier step, as a resumed training asks.
    for step in (*range(9), 3, 4, 5):
        size = alone.batch_size(step, 4)
        rows = slice(size // 2, size)
        expected, found = draw(alone, step, size, rows), draw(helped, step, size, rows)
        assert torch.equal(found[0], expected[0])
        assert found[1] == expected[1]
        assert helped.last_names == alone.last_names


def test_workers_do_the_reading(tmp_path, autoencoder, monkeypatch):
    data = make_data(write_folder(tmp_path / "dots", 8), autoencoder, workers=1)
    draw(data, 0)

    def refuse(*arguments):
        raise AssertionError("read by the training's own process")

    monkeypatch.setattr(LatentStore, "prepare", refuse)
    for step in range(1, 4):
        draw(data, step)


def test_workers_end_with_the_data_they_read_for(tmp_path, autoencoder):
    """At once, and not when Python next looks for circles of references."""
    gc.disable()
    try:
        data = make_data(write_folder(tmp_path / "dots", 8), autoencoder, workers=2)
        draw(data, 0)
        working = set(multiprocessing.active_children())
        assert len(working) >= 2
        began = time.monotonic()
        del data
        assert not working & set(multiprocessing.active_children())
        # torch waits for five seconds before it kills one.
        assert time.monotonic() - began < 4
    finally:
        gc.enable()


def test_bad_images_are_replaced_when_workers_meet_them(tmp_path, autoencoder):
    folder = write_folder(tmp_path / "dots", 20)
    damage(folder)
    found = []
    for workers in (0, 2):
        bad = BadRecords(max_share=0.25)
        data = make_data(folder, autoencoder, bad=bad, workers=workers)
        found.append([draw(data, step)[0] for step in range(8)])
        assert len(bad.reasons) == 5
        assert bad.reasons[f"{folder}/0005"] == "image file is truncated"
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def config(root: Path) -> dict:
    return {
        "kind": "sana",
        "name": "dots",
        "start": str(root / "start"),
        "train_text_encoder": False,
        "data": {
            "source": "images",
            "paths": [str(root / "images")],
            "stages": [{"until": 2, "image_size": 32}, {"image_size": 64}],
            "caption_suffixes": ["_vlm"],
            "caption_temperature": 5.0,
            "cache": str(root / "cache"),
        },
        "training": {"steps": 4, "batch_size": 4, "learning_rate": 1e-3, "precision": "fp32", "ema_decay": 0},
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("encoding")
    write_tiny_pipeline(root / "start")
    write_folder(root / "images", 8)
    return root


def files(folder: Path) -> dict[Path, bytes]:
    return {
        path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_what_is_encoded_ahead_is_all_that_a_training_needs(root, tmp_path, monkeypatch):
    settings = config(root)
    settings["data"]["cache"] = str(tmp_path / "none")
    run_training(settings, tmp_path / "plain", source=no_source)
    settings = config(root)
    # Eight images in two sizes, one of which a merged bucket may share; two captions each, two texts in all with the empty one.
    latents, captions = run_encoding(settings, tmp_path)
    assert latents == 16
    assert captions == 4
    assert run_encoding(settings, tmp_path) == (0, 0)

    def refuse(*arguments, **options):
        raise AssertionError("encoded again")

    moved = []
    kept = parts._park
    monkeypatch.setattr(DCAE, "encode", refuse)
    monkeypatch.setattr("sana_models.text.TextEncoder.encode", refuse)
    monkeypatch.setattr(LatentStore, "park", lambda self: moved.append("autoencoder"))
    monkeypatch.setattr(parts.CaptionTexts, "park", lambda self: moved.append("text encoder"))
    monkeypatch.setattr(parts, "_park", kept)
    run_training(settings, tmp_path / "encoded", source=no_source)
    assert moved == ["autoencoder", "text encoder"]
    assert_equal(weights(tmp_path / "encoded"), weights(tmp_path / "plain"))


def test_encoding_goes_on_with_what_is_missing(root, tmp_path):
    settings = config(root)
    settings["data"]["cache"] = str(tmp_path / "cache")
    run_encoding(settings, tmp_path)
    whole = files(tmp_path / "cache")
    lost = [path for number, path in enumerate(whole) if number % 3 == 0]
    for path in lost:
        (tmp_path / "cache" / path).unlink()
    latents, captions = run_encoding(settings, tmp_path)
    # The empty prompt, whose embedding every call needs, is not counted.
    assert len(lost) - 1 <= latents + captions <= len(lost)
    assert files(tmp_path / "cache") == whole


def test_two_processes_share_the_encoding(root, tmp_path):
    settings = config(root)
    settings["data"]["cache"] = str(tmp_path / "cache")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = run_worker(launch, settings, tmp_path, str(tmp_path / "out"), "encode")
    assert done.returncode == 0, done.stderr[-2000:]
    made = [tuple(map(int, line.split()[1:])) for line in done.stdout.splitlines() if line.startswith("MADE")]
    assert sorted(made) == [(8, 2), (8, 2)]
    assert run_encoding(settings, tmp_path) == (0, 0)


def test_a_parked_encoder_goes_back_when_something_is_missing(root, tmp_path):
    settings = config(root)
    settings["data"]["cache"] = str(tmp_path / "cache")
    run_encoding(settings, tmp_path)
    read = TextToImageSettings.from_dict(settings)
    networks = parts.load_networks(read, (), torch.device("cpu"))
    bad = BadRecords(max_share=0.0)
    data, _, _ = parts.image_data(read, read.data, networks, bad)
    batch = data.batch(0, 4, slice(None), torch.Generator().manual_seed(0))
    shutil.rmtree(tmp_path / "cache")
    again = data.batch(0, 4, slice(None), torch.Generator().manual_seed(0))
    assert all(torch.equal(one, other) for one, other in zip(batch, again, strict=True))


def test_a_frozen_encoder_stored_in_bf16_stays_so_in_bf16(tmp_path):
    from sana_models.weight_files import open_folder

    for dtype in (torch.float32, torch.bfloat16):
        start = write_tiny_pipeline(tmp_path / str(dtype))
        path = start / "text_encoder/model.safetensors"
        save_file({key: value.to(dtype) for key, value in load_file(path).items()}, path)
        stored = {tensor.read().dtype for tensor in open_folder(start / "text_encoder", "model").values()}
        assert stored == {dtype}
        settings = config(tmp_path) | {"start": str(start)}
        settings["training"]["precision"] = "bf16"
        networks = parts.load_networks(TextToImageSettings.from_dict(settings), (), torch.device("cpu"))
        assert next(networks.text_model.parameters()).dtype == dtype
        # What is trained keeps masters in fp32.
        assert {weight.dtype for weight in networks.transformer.parameters()} == {torch.float32}


def test_a_training_takes_the_kernels_of_its_device(root, monkeypatch):
    asked = []
    load = parts.load_transformer

    def watch(*arguments, **options):
        asked.append((options["device"], options["kernels"]))
        return load(*arguments, **options | {"device": "cpu", "kernels": "torch"})

    monkeypatch.setattr(parts, "load_transformer", watch)
    settings = TextToImageSettings.from_dict(config(root))
    parts.load_networks(settings, (), torch.device("cpu"))
    assert asked == [(torch.device("cpu"), "auto")]
    with pytest.raises(ValueError, match="kernels is 'cuda'; allowed: 'auto', 'triton', 'torch'"):
        TextToImageSettings.from_dict(config(root) | {"kernels": "cuda"})


def test_encode_on_the_command_line(root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    settings = config(root)
    settings["data"]["cache"] = "cache"
    Path("dots.yaml").write_text(yaml.safe_dump(settings))
    assert execute(["train", "dots.yaml", "--encode", "-o", "out"]) == 0
    assert "16 latents and 4 captions encoded: cache has all" in capsys.readouterr().out
    assert not list(Path("out").iterdir())
    del settings["data"]["cache"]
    Path("dots.yaml").write_text(json.dumps(settings))
    assert execute(["train", "dots.yaml", "--encode"]) == 2
    assert "encoding needs data.source 'images' and data.cache" in capsys.readouterr().err
