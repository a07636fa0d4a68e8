"""Two processes under `torchrun`, sharded or in parts, against one process: weights, curves, states, optimizers, memory."""

import csv
import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sana_models import load_pipeline
from sana_models.checkpoints import save_autoencoder
from sana_models.training.memory import memory_per_process
from sana_models.training.run import run_training
from sana_models.training.state import KEPT_STATES
from tests import ROOT
from tests.models.training.datasets import write_folder, write_shards
from tests.models.training.sharded_worker import SHAPES, stopped
from tests.models.training.test_training_processes import (
    assert_equal,
    config,
    scale_latent,
    train_here,
    weights,
)
from tests.models.training.worker import WORDS, no_source
from tests.small_parts import tiny_dc_ae

WORKER = Path(__file__).with_name("sharded_worker.py")
# Gradients are sums in another order, and a large eps keeps AdamW from turning rounding noise into full steps: weights of order 1
# that move by 2e-2 over 8 steps end within this, as those of two processes with whole copies do.
ROUNDING = {"rtol": 1e-5, "atol": 2e-6}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("inputs")
    save_autoencoder(tiny_dc_ae(), root / "vae")
    write_folder(root / "folder", 12)
    write_shards(root / "shards", (12,))
    scale_latent(write_shards(root / "latents", (8,), latents=True) / "00000.tar", "000005", 1e25)
    return root


def looked_at(inputs: Path, **training: Any) -> dict[str, Any]:
    """A training that draws, measures and exports on its way."""
    # States lie between two rows of the curve.
    settings = config(inputs, **{"eps": 1e-3, "log_every": 2, **training})
    # Three held-out images, of which two processes have two and one.
    validation = {"every": 4, "share": 0.2, "images": 3, "prompts": ["a red dot"], "steps": 1, "exports": 1}
    return settings | {"validation": validation}


def broken(inputs: Path, **training: Any) -> dict[str, Any]:
    settings = config(inputs, steps=4, **training)
    settings["data"] |= {"paths": [str(inputs / "latents")], "stages": [{"image_size": 16}]}
    return settings


@pytest.fixture(scope="module")
def out(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process trains here, and two under `torchrun`, which is started once for all of it."""
    out = tmp_path_factory.mktemp("out")
    train_here(looked_at(inputs), out / "one")
    fsdp = {"distributed": "fsdp"}
    plan: list[tuple[str, dict[str, Any], str | None]] = [
        ("ddp in parts", looked_at(inputs, gradient_accumulation=2), None),
        ("fsdp", looked_at(inputs, **fsdp), None),
        ("fsdp in parts", looked_at(inputs, **fsdp, gradient_accumulation=2), None),
        ("fsdp, resumed", looked_at(inputs, **fsdp), "fsdp"),
        ("from one", looked_at(inputs, **fsdp), "one"),
        ("skips", broken(inputs, **fsdp, gradient_accumulation=2), None),
        ("bf16", config(inputs, **fsdp, precision="bf16", optimizer="came_8bit"), None),
    ]
    path = out / "plan.json"
    path.write_text(json.dumps(plan))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, str(WORKER), str(path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (out / "stderr.txt").write_text(done.stderr)
    return out


def found(out: Path, rank: int = 0) -> dict[str, Any]:
    return json.loads((out / f"found{rank}.json").read_text())


def curve(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "curve.csv").open()))


@pytest.mark.parametrize("name", ["ddp in parts", "fsdp", "fsdp in parts", "fsdp, resumed", "from one"])
def test_two_processes_train_as_one_does(out: Path, name: str):
    expected, other = weights(out / "one"), weights(out / name)
    assert other.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(other[key], value, **ROUNDING)
    compare_curves(out / "one", out / name)


def compare_curves(one: Path, other: Path) -> None:
    rows, others = curve(one), curve(other)
    assert [row["step"] for row in rows] == [row["step"] for row in others]
    assert [row["step"] for row in rows if row["loss"]] == ["0", "2", "4", "6", "7"]
    for row, again in zip(rows, others, strict=True):
        assert row.keys() == again.keys()
        for key in ("loss", "gradient_norm", "loss_0.25-0.50", "loss_0.50-0.75", "validation_loss"):
            assert bool(row[key]) == bool(again[key])
            if row[key]:
                # Written with six decimals.
                assert float(again[key]) == pytest.approx(float(row[key]), rel=1e-4, abs=2e-6)


def test_a_sharded_training_goes_on_with_the_bits_of_one_that_was_not_stopped(out: Path):
    assert_equal(weights(out / "fsdp, resumed"), weights(out / "fsdp"))


def test_one_process_goes_on_with_a_state_of_two(inputs: Path, out: Path, tmp_path: Path):
    stopped(out / "fsdp", tmp_path / "out")
    assert (tmp_path / "out" / "state.2.pt").is_dir()
    # Without `torchrun` there is nobody to share with.
    train_here(looked_at(inputs, distributed="fsdp"), tmp_path / "out")
    assert (tmp_path / "out" / "state.pt").is_file()
    assert (tmp_path / "out" / "state.1.pt").is_file()
    # Of two states made here, the first is beside the one of before.
    assert (tmp_path / "out" / "state.2.pt").is_dir()
    expected = weights(out / "one")
    for key, value in weights(tmp_path / "out").items():
        torch.testing.assert_close(value, expected[key], **ROUNDING)
    compare_curves(out / "one", tmp_path / "out")


def test_a_sharded_training_keeps_three_states_and_goes_back_to_a_whole_one(
    inputs: Path, out: Path, tmp_path: Path, capsys
):
    states = [json.loads((out / "fsdp" / name / "state.json").read_text()) for name in KEPT_STATES]
    assert [state["step"] for state in states] == [8, 6, 4]
    for damage in ("cut", "missing", "moved"):
        folder = tmp_path / damage
        shutil.copytree(out / "fsdp", folder, symlinks=True)
        second = sorted((folder / "state.pt").glob("shard-00002*"))[0]
        if damage == "cut":
            second.write_bytes(second.read_bytes()[:-100])
        elif damage == "missing":
            second.unlink()
        else:
            # A kill between two renamings.
            (folder / "state.pt").rename(folder / ".state.tmp")
        train_here(looked_at(inputs), folder)
        told = [line for line in capsys.readouterr().err.splitlines() if "damaged" in line]
        assert len(told) == (damage != "moved")
        assert all(line.endswith("continuing from state.1.pt, step 6") for line in told)
        assert (folder / "state.pt").is_file()
        # Two steps of one process after six of two.
        for key, value in weights(folder).items():
            torch.testing.assert_close(value, weights(out / "one")[key], **ROUNDING)


def test_a_sharded_state_of_another_configuration_is_refused(inputs: Path, out: Path):
    before = sorted(path.name for path in (out / "fsdp").iterdir())
    with pytest.raises(ValueError, match=r"training\.optimizer \('adamw', now 'came'\)") as refused:
        train_here(looked_at(inputs, eps=None, optimizer="came"), out / "fsdp")
    assert "\n" not in str(refused.value)
    assert sorted(path.name for path in (out / "fsdp").iterdir()) == before


def test_starting_anew_removes_the_states_of_several_processes(inputs: Path, out: Path, tmp_path: Path):
    shutil.copytree(out / "fsdp", tmp_path / "out", symlinks=True)
    settings = looked_at(inputs, eps=None, optimizer="came", steps=1)
    run_training(settings, tmp_path / "out", source=no_source, vocabulary=WORDS, fresh=True)
    assert [path.name for path in (tmp_path / "out").glob("*state*")] == ["state.pt"]
    assert torch.load(tmp_path / "out" / "state.pt", weights_only=True)["step"] == 1


def test_a_value_that_is_not_finite_in_one_process_is_saved_by_none(out: Path):
    for rank in (0, 1):
        assert found(out, rank)["refused"] == (
            f"modules.m.w is not finite after step 1: the last good state is {out / 'refused' / 'state.pt'}"
        )
    assert [path.name for path in (out / "refused").iterdir()] == ["state.pt"]
    assert json.loads((out / "refused" / "state.pt" / "state.json").read_text())["step"] == 1


def test_sharded_processes_skip_the_same_steps_and_name_the_record_once(inputs: Path, out: Path):
    assert [found(out, rank)["skips"]["skipped"] for rank in (0, 1)] == [2, 2]
    lines = [line for line in (out / "stderr.txt").read_text().splitlines() if " skipped: " in line]
    assert len(lines) == 2
    assert all(line.endswith(f"records: {inputs / 'latents' / '00000.tar'}/000005") for line in lines)
    assert all(bool(torch.isfinite(value).all()) for value in weights(out / "skips").values())


def test_a_sharded_training_leaves_a_pipeline_exports_and_samples(out: Path):
    for folder in (out / "fsdp" / "pipeline", out / "fsdp" / "exports" / "best"):
        assert load_pipeline(folder)(["a red dot"], seeds=[0], steps=1).shape == (1, 16, 16, 3)
    names = {path.name for path in (out / "fsdp" / "samples").iterdir()}
    assert names == {"step-000004.png", "step-000008.png"}


def test_bf16_computes_alike_and_keeps_fp32_weights(inputs: Path, out: Path, tmp_path: Path):
    result = train_here(config(inputs, precision="bf16", optimizer="came_8bit"), tmp_path / "one")
    # bf16 keeps 8 bits, of norms' weights as well when they are sent; errors of single products average out in the loss.
    rows = curve(out / "bf16")
    assert float(rows[-1]["loss"]) == pytest.approx(result.final_loss, rel=0.02)
    assert all(value.dtype == torch.float32 for value in weights(out / "bf16").values())


@pytest.mark.parametrize("name", ["came", "came_8bit"])
def test_a_sharded_came_steps_as_a_whole_one(out: Path, name: str):
    errors = found(out)["optimizers"][name]
    # Sums of up to 40,000 float32 values, and a step's own roundings against a weight, in another order; shares of the largest.
    for key in ("weights", "row", "col", "residual_row", "residual_col", "mean", "square"):
        assert errors[key] < 1e-5, key
    if name == "came_8bit":
        # A value between two levels may fall to the other one; blocks are those of the whole matrix.
        assert errors["mean_code"] <= 1
        assert errors["codes off"] < 1e-4 * errors["codes"]
        assert errors["mean_scale"] < 1e-5
        assert errors["mean_min"] < 1e-5
    expected = [memory_per_process(SHAPES, name, processes=count)["optimizer"] for count in (1, 2)]
    assert errors["bytes"] == expected


def test_sharded_gradients_are_clipped_by_the_norm_of_all(out: Path):
    norms = found(out)["clipped"]
    # A float32 sum of squares in another order.
    assert norms["sharded False"] == pytest.approx(norms["whole False"], rel=1e-5)
    assert norms["sharded False"][1] == pytest.approx(1, rel=1e-5)
    assert norms["sharded True"][0] == norms["whole True"][0] == float("inf")


@pytest.mark.parametrize(
    ("name", "optimizer", "share"),
    [("fsdp", "adamw", 2), ("bf16", "came_8bit", 2), ("ddp in parts", "adamw", 1)],
)
def test_the_memory_computed_is_what_the_first_process_holds(
    out: Path, name: str, optimizer: str, share: int
):
    held = found(out)[name]
    expected = memory_per_process(map(tuple, held["shapes"]), optimizer, processes=share)
    assert {key: held[key] for key in expected} == expected
    if share > 1:
        # Rows that cannot be shared evenly are the first process's.
        assert found(out, 1)[name]["weights"] <= held["weights"] < sum(map(math.prod, held["shapes"])) * 4


def test_the_page_tells_the_memory_that_is_computed():
    spec = importlib.util.spec_from_file_location("optimizer_state", ROOT / "scripts" / "optimizer_state.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    assert script.filled(text, script.MEMORY, script.memory_table()) == text
