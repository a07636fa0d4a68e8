"""The speed scripts on the processor: they run, refuse to time what differs, and write what they measured."""

import json
import subprocess
import sys

import pytest
import torch

from tests import ROOT

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu
    import gpu_cases
    import side_by_side

    return gpu, gpu_cases, side_by_side


def test_the_gpu_script_on_the_processor(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--device", "cpu", "--sizes", "tiny"]
    command += ["--dtype", "fp32", "--repetitions", "2", "--batches", "2,4", "--to", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    measured = json.loads((tmp_path / "gpu.json").read_text())
    rows = {row["what"]: row for row in measured["rows"]}
    assert {"transformer, tiny, 2 rows", "transformer, tiny, 4 rows", "DC-AE decoder, tiny"} < rows.keys()
    assert {"pipeline, tiny, 20 steps", "linear_attention, tiny", "gated_depthwise, tiny"} < rows.keys()
    for row in rows.values():
        assert not row["left_out"]
        assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in row["seconds"].values())
    assert rows["transformer, tiny, 2 rows"]["seconds"].keys() == {"ours", "diffusers"}
    # Twice the rows are twice the work, but for the embedding of the time, which all rows share.
    two, four = (rows[f"transformer, tiny, {n} rows"]["flops"] for n in (2, 4))
    assert 0.99 * 2 * two < four < 2 * two
    assert "to try the script" in (tmp_path / "gpu.md").read_text()


def test_without_a_gpu_it_says_so():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = subprocess.run([sys.executable, str(BENCHMARKS / "gpu.py")], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip().startswith("no CUDA device; --device cpu")


def test_what_differs_is_not_timed(scripts):
    gpu, gpu_cases, _ = scripts
    scene = gpu_cases.Scene(torch.device("cpu"), torch.float32, "torch")
    right = torch.linspace(-1, 1, 100)
    wrong = right + 0.01
    case = gpu_cases.Case("sum", "peer", {"peer": lambda: right, "ours": lambda: wrong})
    assert gpu.disagreements(case, scene) == ["sum: ours is off by 0.017 of the spread of peer"]
    case = gpu_cases.Case(
        "sum",
        "peer",
        {"peer": lambda: right},
        late={"good": lambda: lambda: right, "bad": lambda: lambda: wrong},
    )
    row = gpu.timed(case, scene, type("", (), {"repetitions": 3}))
    assert row["seconds"].keys() == {"peer", "good"}
    assert row["left_out"] == {"bad": "off by 0.017 of the spread"}


def test_contestants_take_turns(scripts):
    _, _, side_by_side = scripts
    calls: list[str] = []
    times = side_by_side.interleave(
        {name: lambda name=name: calls.append(name) for name in "abc"}, 2, warm_up=1
    )
    assert "".join(calls) == "abc" + "abc" + "cba"
    assert all(len(timing.seconds) == 2 for timing in times.values())
    assert side_by_side.Timing((3.0, 1.0, 2.0)).median == 2.0
