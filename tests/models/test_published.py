"""Which checkpoints carry the clip of fp16 training: by name, by what is stored, by what their file says."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sana_bench.cli.main import execute
from sana_models import load_transformer, save_transformer
from sana_models.config import FP16_MAX, QK_NORM, SANA_CONFIGS
from sana_models.published import CLIPPED_CHECKPOINTS, UNCLIPPED_CHECKPOINTS
from tests.small_parts import tiny_transformer


def save(folder: Path, *, qk_norm: str | None = None, dtype: torch.dtype = torch.float32) -> Path:
    save_transformer(tiny_transformer(1, qk_norm=qk_norm), folder, dtype=dtype)
    return folder


def clip(folder: Path) -> float | None:
    return load_transformer(folder).config.attention_clip


@pytest.mark.parametrize(
    "place", ["{}_diffusers/transformer", "models--X--{}_diffusers/snapshots/0a/transformer"]
)
@pytest.mark.parametrize(
    ("name", "expected"),
    [(name, FP16_MAX) for name in CLIPPED_CHECKPOINTS] + [(name, None) for name in UNCLIPPED_CHECKPOINTS],
)
def test_published_checkpoints_are_known_by_name(tmp_path, place, name, expected):
    assert clip(save(tmp_path / place.format(name))) == expected


def test_weights_stored_in_fp16_were_trained_in_it(tmp_path):
    assert clip(save(tmp_path / "half", dtype=torch.float16)) == FP16_MAX
    assert clip(save(tmp_path / "norm", dtype=torch.float16, qk_norm=QK_NORM)) is None
    assert clip(save(tmp_path / "wide")) is None
    beside = save(tmp_path / "beside") / "diffusion_pytorch_model.safetensors"
    shutil.copy(beside, beside.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert clip(beside.parent) == FP16_MAX


def test_what_the_file_says_decides_and_is_stored_again(tmp_path):
    folder = save(tmp_path / "Sana_600M_512px")
    first = load_transformer(folder)
    save_transformer(first, tmp_path / "mine")
    assert json.loads((tmp_path / "mine" / "config.json").read_text())["attention_clip"] == FP16_MAX
    assert clip(tmp_path / "mine") == FP16_MAX
    data = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(data | {"attention_clip": None}))
    assert clip(folder) is None


def test_a_grown_checkpoint_keeps_the_clip_and_takes_the_precision(tmp_path):
    source = save(tmp_path / "Sana_600M_512px")
    command = ["grow", str(source), "--depth", "2", "--keep", "1", "-o", str(tmp_path / "grown")]
    assert execute([*command, "--precision", "bf16"]) == 0
    assert clip(tmp_path / "grown") == FP16_MAX
    assert json.loads((tmp_path / "grown" / "provenance.json").read_text())["dtype"] == "bfloat16"


def test_named_sizes_state_it():
    clipped = {name for name, config in SANA_CONFIGS.items() if config.attention_clip is not None}
    assert clipped == {"sana-0.6b-512", "sana-0.6b-1024", "sana-1.6b-512", "sana-1.6b-1024"}
    with pytest.raises(ValueError, match="attention_clip is 0"):
        replace(SANA_CONFIGS["sana-0.6b-512"], attention_clip=0.0)
