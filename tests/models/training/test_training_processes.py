"""Whole trainings on images: killed and resumed, by two processes, from a checkpoint, with a frozen encoder."""

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from sana_bench.cli.main import execute
from sana_models import load_pipeline
from sana_models.checkpoints import load_transformer, save_autoencoder
from sana_models.training.run import run_training
from sana_models.training.settings import AutoencoderSettings, TextToImageSettings
from tests import ROOT
from tests.models.training.datasets import TEXT_ENCODER, write_folder, write_shards
from tests.models.training.worker import WORDS, no_source
from tests.small_parts import tiny_dc_ae
from tests.tiny_weights import write_tiny_pipeline

WORKER = Path(__file__).with_name("worker.py")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An autoencoder with random weights and 12 images in each format."""
    root = tmp_path_factory.mktemp("inputs")
    save_autoencoder(tiny_dc_ae(), root / "vae")
    write_folder(root / "folder", 12)
    write_shards(root / "shards", (12,))
    return root


def config(inputs: Path, **training) -> dict:
    return {
        "kind": "sana",
        "name": "tiny",
        "autoencoder": str(inputs / "vae"),
        "data": {
            "source": "images",
            "paths": [str(inputs / "folder"), str(inputs / "shards")],
            "caption_suffixes": ["_vlm"],
            "stages": [{"until": 3, "image_size": 8}, {"image_size": 16}],
            "max_length": 8,
        },
        "text_encoder": dict(TEXT_ENCODER),
        "model": {
            "num_layers": 2,
            "num_attention_heads": 1,
            "num_cross_attention_heads": 2,
            "cross_attention_head_dim": 16,
            "caption_channels": 16,
            "in_channels": 4,
            "out_channels": 4,
            "sample_size": 8,
            "qk_norm": "rms_norm_across_heads",
        },
        "flow": {"shift": 3.0, "caption_norm_start": 1.0, "caption_dropout": 0.3},
        "training": {
            "steps": 8,
            "batch_size": 4,
            "learning_rate": 2e-3,
            "warmup_steps": 2,
            "precision": "fp32",
            "checkpoint_every": 2,
            "ema_decay": 0.9,
            **training,
        },
    }


def train_here(settings: dict, out: Path):
    return run_training(settings, out, source=no_source, vocabulary=WORDS)


def weights(out: Path) -> dict[str, torch.Tensor]:
    files = ("transformer/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors")
    return {
        f"{name} {key}": value for name in files for key, value in load_file(out / "pipeline" / name).items()
    }


def assert_equal(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


def run_worker(
    command: list[str], settings: dict, folder: Path, *arguments: str
) -> subprocess.CompletedProcess:
    path = folder / "config.json"
    path.write_text(json.dumps(settings))
    return subprocess.run(
        [*command, str(WORKER), str(path), *arguments],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def test_killed_and_resumed_it_has_the_weights_of_a_run_that_was_not(inputs: Path, tmp_path: Path):
    settings = config(inputs, optimizer="came_8bit")
    train_here(settings, tmp_path / "whole")
    killed = run_worker([sys.executable], settings, tmp_path, str(tmp_path / "parts"), "5")
    assert killed.returncode == -9, killed.stderr
    # Step 4 ended with a checkpoint; the kill came in step 5, in the second resolution stage.
    assert torch.load(tmp_path / "parts" / "state.pt", weights_only=True)["step"] == 4
    assert not (tmp_path / "parts" / "pipeline").exists()
    train_here(settings, tmp_path / "parts")
    assert_equal(weights(tmp_path / "parts"), weights(tmp_path / "whole"))


def test_two_processes_train_as_one_does(inputs: Path, tmp_path: Path):
    # A large eps keeps AdamW from turning rounding noise in tiny gradients into full steps.
    settings = config(inputs, eps=1e-3)
    train_here(settings, tmp_path / "one")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = run_worker(launch, settings, tmp_path, str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr[-2000:]
    expected, found = weights(tmp_path / "one"), weights(tmp_path / "two")
    start = weights_before(settings, tmp_path)
    for key, value in expected.items():
        # Gradients are sums in another order; weights of order 1 move by 2e-2 over 8 steps.
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=2e-6)
    assert max(float((expected[key] - start[key]).abs().max()) for key in expected) > 1e-3


def weights_before(settings: dict, folder: Path) -> dict[str, torch.Tensor]:
    """One step at a vanishing rate: what training starts from."""
    still = json.loads(json.dumps(settings))
    still["training"] |= {"steps": 1, "learning_rate": 1e-12}
    still["data"]["stages"] = [{"image_size": 8}]
    train_here(still, folder / "start")
    return weights(folder / "start")


def test_a_batch_that_processes_cannot_share_is_refused(monkeypatch):
    from sana_models.training import distributed

    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    with pytest.raises(ValueError, match="batch size 4 cannot be shared by 3"):
        distributed.local_rows(4)


def test_gradient_checkpointing_changes_no_weight(inputs: Path, tmp_path: Path):
    train_here(config(inputs), tmp_path / "plain")
    train_here(config(inputs) | {"gradient_checkpointing": True}, tmp_path / "checkpointed")
    # The same operations on the same numbers, some of them twice.
    assert_equal(weights(tmp_path / "checkpointed"), weights(tmp_path / "plain"))


def test_bf16_autocast_trains_nearly_alike_and_keeps_fp32_weights(inputs: Path, tmp_path: Path):
    losses = {}
    for precision in ("fp32", "bf16"):
        losses[precision] = train_here(config(inputs, precision=precision), tmp_path / precision).final_loss
    # bf16 keeps 8 bits; errors of single products average out in the loss.
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)
    assert losses["bf16"] != losses["fp32"]
    assert all(value.dtype == torch.float32 for value in weights(tmp_path / "bf16").values())


def test_a_pipeline_is_trained_further_with_its_text_encoder_frozen_and_cached(inputs: Path, tmp_path: Path):
    start = write_tiny_pipeline(tmp_path / "start")
    settings = config(inputs) | {"start": str(start), "train_text_encoder": False}
    for section in ("model", "text_encoder", "autoencoder"):
        del settings[section]
    settings["data"] |= {"stages": [{"image_size": 64}], "buckets": False, "cache": str(tmp_path / "cache")}
    train_here(settings, tmp_path / "cached")
    files = list((tmp_path / "cache").rglob("*.*"))
    assert {path.suffix for path in files} == {".npy", ".safetensors"}
    before = load_file(start / "text_encoder" / "model.safetensors")
    assert_equal(load_file(tmp_path / "cached" / "pipeline" / "text_encoder" / "model.safetensors"), before)
    moved = (
        load_transformer(tmp_path / "cached" / "pipeline").proj_out.weight
        - load_transformer(start).proj_out.weight
    )
    assert float(moved.abs().max()) > 1e-4
    assert load_pipeline(tmp_path / "cached" / "pipeline")(["a red circle"], seeds=[0], steps=1).shape == (
        1,
        64,
        64,
        3,
    )
    # Everything from the cache, and then nothing from a cache.
    for name, cache in (("again", str(tmp_path / "cache")), ("without", None)):
        settings["data"]["cache"] = cache
        train_here(settings, tmp_path / name)
        assert_equal(weights(tmp_path / name), weights(tmp_path / "cached"))
    # A cache that fp32 filled changes nothing in bf16.
    settings["training"]["precision"] = "bf16"
    for name, cache in (("bf16", str(tmp_path / "cache")), ("bf16 without", None)):
        settings["data"]["cache"] = cache
        train_here(settings, tmp_path / name)
    assert_equal(weights(tmp_path / "bf16"), weights(tmp_path / "bf16 without"))


def test_a_record_that_breaks_the_gradient_is_skipped_and_named(inputs: Path, tmp_path: Path, capsys):
    folder = write_shards(tmp_path / "latents", (8,), latents=True)
    scale_latent(folder / "00000.tar", "000005", 1e25)
    settings = config(inputs, steps=4)
    settings["data"] |= {"paths": [str(folder)], "stages": [{"image_size": 16}]}
    result = train_here(settings, tmp_path / "out")
    # Eight latents make an epoch of two batches; the bad one is in one of each.
    assert result.skipped_steps == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "skipped" in line]
    assert len(lines) == 2
    assert all(line.endswith(f"records: {folder / '00000.tar'}/000005") for line in lines)
    state = torch.load(tmp_path / "out" / "state.pt", weights_only=True)
    assert state["skipped"] == 2
    assert all(bool(torch.isfinite(value).all()) for value in state["average"])
    assert all(bool(torch.isfinite(value).all()) for value in weights(tmp_path / "out").values())


def test_two_processes_skip_the_same_steps_and_name_the_record_once(inputs: Path, tmp_path: Path):
    folder = write_shards(tmp_path / "latents", (8,), latents=True)
    scale_latent(folder / "00000.tar", "000005", 1e25)
    settings = config(inputs, steps=4)
    settings["data"] |= {"paths": [str(folder)], "stages": [{"image_size": 16}]}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = run_worker(launch, settings, tmp_path, str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in done.stderr.splitlines() if " skipped: " in line]
    assert len(lines) == 2
    assert all(line.endswith(f"records: {folder / '00000.tar'}/000005") for line in lines)
    assert torch.load(tmp_path / "out" / "state.pt", weights_only=True)["skipped"] == 2
    assert all(bool(torch.isfinite(value).all()) for value in weights(tmp_path / "out").values())


def scale_latent(path: Path, key: str, factor: float) -> None:
    """Write a shard again, one of its latents times `factor`, which stays finite."""
    members = {}
    with tarfile.open(path) as archive:
        for member in archive:
            members[member.name] = archive.extractfile(member).read()
    latent = np.load(io.BytesIO(members[f"{key}.npy"])).astype(np.float32) * factor
    assert np.isfinite(latent).all()
    buffer = io.BytesIO()
    np.save(buffer, latent)
    members[f"{key}.npy"] = buffer.getvalue()
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("training", "optimizer", "came"),
        ("training", "learning_rate", 1e-3),
        ("model", "num_layers", 3),
        ("text_encoder", "intermediate_size", 48),
        ("flow", "shift", 1.0),
    ],
)
def test_another_configuration_does_not_continue(inputs: Path, trained: Path, section, key, value):
    settings = config(inputs, steps=4)
    settings[section][key] = value
    before = (trained / "state.pt").read_bytes()
    with pytest.raises(ValueError, match=rf"{section}\.{key} \(.+, now {value!r}\); give --fresh") as caught:
        train_here(settings, trained)
    assert "\n" not in str(caught.value)
    assert (trained / "state.pt").read_bytes() == before


@pytest.fixture(scope="module")
def trained(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps of a training; tests must not change it."""
    out = tmp_path_factory.mktemp("trained")
    train_here(config(inputs, steps=4), out)
    return out


def test_another_start_does_not_continue(inputs: Path, tmp_path: Path):
    settings = config(inputs, steps=1) | {"train_text_encoder": False}
    for section in ("model", "text_encoder", "autoencoder"):
        del settings[section]
    settings["data"] |= {"stages": [{"image_size": 64}], "buckets": False}
    for seed in (0, 1):
        write_tiny_pipeline(tmp_path / f"start{seed}", seed=seed)
    train_here(settings | {"start": str(tmp_path / "start0")}, tmp_path / "out")
    with pytest.raises(ValueError, match=r"belongs to another configuration: start \("):
        train_here(settings | {"start": str(tmp_path / "start1")}, tmp_path / "out")


def test_the_command_refuses_another_configuration_in_one_line_and_starts_fresh(
    inputs: Path, tmp_path: Path, capsys
):
    path, out = tmp_path / "tiny.yaml", tmp_path / "out"

    def typed(settings: dict, *options: str) -> int:
        path.write_text(yaml.safe_dump(settings))
        return execute(["train", str(path), "-o", str(out), *options])

    assert typed(config(inputs, steps=4)) == 0
    capsys.readouterr()
    assert typed(config(inputs, steps=4, optimizer="came")) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert (
        "training.optimizer ('adamw', now 'came'); give --fresh to start anew, or another folder" in error[0]
    )
    assert typed(config(inputs, steps=4, optimizer="came"), "--fresh") == 0
    assert typed(config(inputs, steps=4, optimizer="cames")) == 2


def test_weight_files_of_a_start_are_chosen_by_variant(inputs: Path, tmp_path: Path):
    start = write_tiny_pipeline(tmp_path / "start")
    plain = start / "transformer" / "diffusion_pytorch_model.safetensors"
    changed = {key: value * 1.5 for key, value in load_file(plain).items()}
    save_file(changed, plain.with_name("diffusion_pytorch_model.bf16.safetensors"))
    settings = config(inputs, steps=1, learning_rate=1e-12) | {
        "start": str(start),
        "train_text_encoder": False,
    }
    for section in ("model", "text_encoder", "autoencoder"):
        del settings[section]
    settings["data"] |= {"stages": [{"image_size": 64}], "buckets": False}
    train_here(settings | {"weights_variant": "bf16"}, tmp_path / "out")
    found = load_transformer(tmp_path / "out" / "pipeline").proj_out.bias
    # One step at a vanishing rate.
    torch.testing.assert_close(found, changed["proj_out.bias"], rtol=0, atol=1e-6)


def test_longer_and_fresh_runs_are_allowed(inputs: Path, tmp_path: Path):
    train_here(config(inputs, steps=4), tmp_path)
    assert train_here(config(inputs, steps=6), tmp_path).steps == 6
    other = config(inputs, steps=4, optimizer="came")
    run_training(other, tmp_path, source=no_source, vocabulary=WORDS, fresh=True)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 4


def test_bad_records_are_told(inputs: Path, tmp_path: Path):
    folder = write_folder(tmp_path / "dots", 20)
    (folder / "0007.png").write_bytes(b"damaged")
    settings = config(inputs)
    settings["data"] |= {"paths": [str(folder)], "max_bad_share": 0.05}
    assert train_here(settings, tmp_path / "out").bad_records == 1
    assert "0007" in (tmp_path / "out" / "bad_records.csv").read_text()
    settings["data"]["max_bad_share"] = 0.01
    with pytest.raises(ValueError, match="1 of 20 training records are bad"):
        train_here(settings, tmp_path / "strict")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": "x"}, "cannot be given with 'start'"),
        ({"data": {"source": "images"}}, "data.paths is missing"),
        ({"data": {"source": "images", "paths": ["x"]}}, "image_size or data.stages"),
        ({"data": {"source": "images", "paths": ["x"], "image_size": 8, "captions": 1}}, "'data.captions'"),
        (
            {"data": {"source": "images", "paths": ["x"], "stages": [{"size": 8}]}},
            r"'data\.stages\[0\]\.size'",
        ),
        ({"data": {"source": "test", "cached_sample": 3}}, "'data.cached_sample'"),
        (
            {"training": {"steps": 1, "batch_size": 1, "learning_rate": 1, "optimizer": "lion"}},
            "optimizer is 'lion'",
        ),
        ({"training": {"steps": 1, "batch_size": 1, "learning_rate": 1, "betas": 0.9}}, "betas is 0.9"),
        (
            {"training": {"steps": 1, "batch_size": 1, "learning_rate": 1, "betas": [0.9]}},
            "adamw takes two betas",
        ),
        ({"training": {"steps": 1, "batch_size": 1}}, r"training\.learning_rate is missing"),
        (
            {"training": {"steps": 2.5, "batch_size": 1, "learning_rate": 1}},
            r"training\.steps is 2\.5; expected a whole",
        ),
        (
            {"training": {"steps": 1, "batch_size": 1, "learning_rate": "fast"}},
            "learning_rate is 'fast'; expected a num",
        ),
        (
            {"training": {"steps": 1, "batch_size": 1, "learning_rate": 1, "checkpoint_every": 0}},
            r"training\.checkpoint_every is 0; expected a whole number, at least 1",
        ),
        (
            {"training": {"steps": 1, "batch_size": 1, "learning_rate": 1, "log_evry": 3}},
            r"unknown key 'training\.log_evry' \(did you mean 'log_every'\?\)",
        ),
        (
            {"training": {"steps": 1, "batch_size": 1, "learning_rate": 1, "distributed": "fsdp2"}},
            r"training\.distributed is 'fsdp2'; allowed: 'ddp', 'fsdp'",
        ),
        (
            {"training": {"steps": 1, "batch_size": 1, "learning_rate": 1, "gradient_accumulate": 2}},
            r"unknown key 'training\.gradient_accumulate' \(did you mean 'gradient_accumulation'\?\)",
        ),
        (
            {"training": {"steps": 1, "batch_size": 6, "learning_rate": 1, "gradient_accumulation": 4}},
            r"batch size 6 cannot be shared by 1 processes in 4 parts each",
        ),
        (
            {"flow": {"shift": 3.0, "caption_dropuot": 0.1}},
            r"unknown key 'flow\.caption_dropuot' \(did you mean 'caption_dropout'\?\)",
        ),
        (
            {"flow": {"caption_dropout": 1.5}},
            r"flow\.caption_dropout is 1\.5; expected a number, at least 0, at most 1",
        ),
        ({"flow": {"shift": 0}}, r"flow\.shift is 0; expected a number above 0"),
        ({"train_text_encoder": "no"}, "train_text_encoder is 'no'; expected true or false"),
        (
            {"text_encoder": {"hiden_size": 16}},
            r"'text_encoder\.hiden_size' \(did you mean 'hidden_size'\?\)",
        ),
        ({"text_encoder": {"hidden_size": 16}}, r"text_encoder\.num_hidden_layers is missing"),
        ({"data": {"source": "images", "paths": ["x"], "image_size": 8.5}}, r"data\.image_size is 8\.5"),
        (
            {
                "data": {
                    "source": "images",
                    "paths": ["x"],
                    "stages": [{"until": 3, "image_size": 8}, {"until": 2, "image_size": 8}],
                }
            },
            r"data\.stages\[1\]\.until is 2; 'until' must be rising",
        ),
        (
            {"data": {"source": "images", "paths": ["x"], "stages": [{"image_size": 8}, {"image_size": 8}]}},
            r"data\.stages\[0\]\.until is missing",
        ),
    ],
)
def test_bad_settings_are_told_before_anything_is_loaded(inputs: Path, tmp_path: Path, changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        train_here(config(inputs) | {"autoencoder": "not there"} | changes, tmp_path)
    assert "\n" not in str(caught.value)


def test_batches_of_every_stage_must_fit_the_processes_before_anything_is_loaded(
    inputs: Path, tmp_path: Path, monkeypatch
):
    from sana_models.training import distributed

    settings = config(inputs) | {"autoencoder": "not there"}
    settings["data"]["stages"][1]["batch_size"] = 5
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed.dist, "get_rank", lambda: 0)
    with pytest.raises(ValueError, match=r"data\.stages\[1\]: batch size 5 cannot be shared by 2 processes"):
        train_here(settings, tmp_path)


@pytest.mark.parametrize(("key", "value"), [("distributed", "fsdp"), ("gradient_accumulation", 2)])
def test_only_a_text_to_image_training_is_sharded_or_made_in_parts(key, value):
    data = yaml.safe_load((ROOT / "configs" / "train" / "dc_ae_micro.yaml").read_text())
    data["training"][key] = value
    with pytest.raises(ValueError, match=rf"training\.{key} is {value!r}; only kind 'sana' is trained so"):
        AutoencoderSettings.from_dict(data)


def test_sizes_without_buckets_must_fit_the_autoencoder(inputs: Path, tmp_path: Path):
    settings = config(inputs)
    settings["data"] |= {"stages": [{"image_size": 15}], "buckets": False}
    with pytest.raises(
        ValueError, match="image_size is 15; without buckets it must be a multiple of 2 pixels"
    ):
        train_here(settings, tmp_path)


def test_numbers_that_yaml_reads_as_text_are_numbers(inputs: Path):
    found = TextToImageSettings.from_dict(
        config(inputs, optimizer="came", learning_rate="2e-3", eps=["1e-30", "1e-16"])
    )
    assert (found.loop.learning_rate, found.loop.eps) == (2e-3, (1e-30, 1e-16))


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs" / "train").glob("*.yaml")), ids=lambda path: path.stem
)
def test_shipped_configurations_are_accepted(path: Path):
    data = yaml.safe_load(path.read_text())
    kinds = {"sana": TextToImageSettings, "dc_ae": AutoencoderSettings}
    if data["kind"] in kinds:
        assert kinds[data["kind"]].from_dict(data).name == data["name"]
