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
    row = gpu.timed(case, scene, type("", (), {"repetitions": 3}), gpu.Clock(None))
    assert row["seconds"].keys() == {"peer", "good"}
    assert row["left_out"] == {"bad": "off by 0.017 of the spread"}


class _Day:
    """Time that passes only where work says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def work(self, seconds: float):
        def run() -> torch.Tensor:
            self.now += seconds
            return torch.linspace(-1, 1, 10)

        return run


@pytest.fixture
def in_minutes(scripts, tmp_path):
    """Measure cases by name, of one contestant of so many seconds and some made late; what was written, and what the day took."""
    gpu, gpu_cases, _ = scripts

    def measure(minutes: float, work: dict[str, tuple[float, dict[str, float]]], repetitions: int = 20):
        day = _Day()

        def make(what: str):
            seconds, late = work[what]
            made = {
                name: lambda seconds=seconds: (day.work(seconds)(), day.work(1.0))[1]
                for name, seconds in late.items()
            }
            return gpu_cases.Case(what, "peer", {"peer": day.work(seconds)}, late=made)

        planned = [(what, lambda what=what: make(what)) for what in work]
        scene = gpu_cases.Scene(torch.device("cpu"), torch.float32, "torch")
        options = type("", (), {"repetitions": repetitions, "to": tmp_path})
        gpu.measure_all(planned, scene, options, gpu.Clock(minutes, lambda: day.now))
        return json.loads((tmp_path / "gpu.json").read_text()), day.now

    return measure


def test_what_does_not_fit_into_the_minutes_is_dropped_by_name_the_last_first(in_minutes):
    work = {name: (6.0, {}) for name in ("pipeline", "transformer", "decoder", "kernels")}
    found, took = in_minutes(8, work)
    assert [row["what"] for row in found["rows"]] == ["pipeline", "transformer", "decoder"]
    assert found["dropped"] == ["kernels"]
    assert took <= 8 * 60
    # The first as often as asked for, what follows less often, never below three times.
    repetitions = [len(row["seconds"]["peer"]) for row in found["rows"]]
    assert repetitions[0] == 20
    assert sorted(repetitions, reverse=True) == repetitions
    assert repetitions[-1] >= 3


def test_what_must_be_compiled_is_left_out_before_a_case_is(in_minutes):
    late = {"compiled": 100.0, "compiled, CUDA graph": 100.0}
    found, took = in_minutes(8, {"pipeline": (1.0, late), "decoder": (1.0, late), "kernels": (1.0, {})})
    first, second, third = found["rows"]
    assert first["seconds"].keys() == {"peer", *late}
    assert second["seconds"].keys() == {"peer", "compiled"}
    assert second["left_out"] == {"compiled, CUDA graph": "no time left"}
    assert len(third["seconds"]["peer"]) >= 3
    assert not found["dropped"]
    assert took <= 8 * 60


def test_without_minutes_everything_is_timed_and_without_time_nothing(in_minutes):
    work = {"pipeline": (1e5, {"compiled": 1e6}), "kernels": (1.0, {})}
    found, _ = in_minutes(None, work)
    assert [len(row["seconds"]) for row in found["rows"]] == [2, 1]
    assert not found["dropped"]
    found, took = in_minutes(0, work)
    assert found["rows"] == []
    assert found["dropped"] == ["pipeline", "kernels"]
    assert took == 0


def test_outputs_that_differ_end_the_script_before_anything_is_timed(scripts, tmp_path):
    gpu, gpu_cases, _ = scripts
    right = torch.linspace(-1, 1, 10)
    contestants = {"peer": lambda: right, "ours": lambda: right + 1}
    planned = [("sum", lambda: gpu_cases.Case("sum", "peer", contestants))]
    scene = gpu_cases.Scene(torch.device("cpu"), torch.float32, "torch")
    with pytest.raises(SystemExit, match="nothing was timed\nsum: ours is off by"):
        gpu.measure_all(planned, scene, type("", (), {"repetitions": 3, "to": tmp_path}), gpu.Clock(8))
    assert not list(tmp_path.iterdir())


def test_contestants_take_turns(scripts):
    _, _, side_by_side = scripts
    calls: list[str] = []
    times = side_by_side.interleave(
        {name: lambda name=name: calls.append(name) for name in "abc"}, 2, warm_up=1
    )
    assert "".join(calls) == "abc" + "abc" + "cba"
    assert all(len(timing.seconds) == 2 for timing in times.values())
    assert side_by_side.Timing((3.0, 1.0, 2.0)).median == 2.0


def test_the_environment_names_what_is_not_installed(scripts, monkeypatch):
    _, _, side_by_side = scripts
    monkeypatch.setattr(side_by_side, "PACKAGES", ("torch", "no-such-package"))
    found = side_by_side.environment()
    assert found["torch"] == torch.__version__.partition("+")[0]
    assert found["no-such-package"] == "not installed"
