"""The speed scripts on the processor: they run, refuse to time what differs, and write what they measured."""

import importlib
import json
import subprocess
import sys

import pytest
import torch

from sana_bench.profiling.roofline import Peaks
from tests import ROOT

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu
    import gpu_cases
    import side_by_side

    return gpu, gpu_cases, side_by_side


@pytest.fixture
def gpu_report(scripts):
    import gpu_report

    return gpu_report


def _row(what: str, seconds: dict[str, float], **more):
    given = {"what": what, "peer": "diffusers", "seconds": {name: [took] for name, took in seconds.items()}}
    return given | {
        "stages": {}, "left_out": {}, "flops": 4e12, "bytes": 1e9, "precision": "bf16", "eight_bits": ["ours W8A8"], **more
    }  # fmt: skip


def test_aims_are_held_against_what_was_measured(gpu_report):
    peaks = Peaks("card", {"bf16": 1e14, "int8": 2e14}, 1e12, "measured")
    steps = _row("transformer, sana-1.6b-1024, batch 1", {"ours": 0.1, "diffusers": 0.05, "ours W8A8": 0.02})
    images = _row(
        "pipeline, sana-1.6b-1024, batch 1",
        {"ours": 1.0, "ours compiled": 0.5, "diffusers": 1.25},
        left_out={"diffusers compiled": "no time left"},
    )
    found = gpu_report.Found(peaks, [images, steps])
    eager, compiled, bound = gpu_report.aims(found)
    assert eager.endswith("met: 2.50, ours compiled")
    assert compiled.endswith("not measured: diffusers compiled: no time left")
    # 4 TFLOP at 100 TFLOP/s are 0.04 s of 0.1; what has eight bits is another network, whose bound is half of that.
    assert bound.endswith("missed: 0.40, ours")
    assert gpu_report.shares(steps, peaks) == pytest.approx({"ours": 0.4, "diffusers": 0.8, "ours W8A8": 1.0})
    assert gpu_report.aims(
        gpu_report.Found(peaks, [], [images["what"]], {steps["what"]: "out of memory"})
    ) == [
        *(f"{line.partition(':')[0]}: not measured: the minutes were used up" for line in (eager, compiled)),
        f"{bound.partition(':')[0]}: not measured: out of memory",
    ]


def test_the_gpu_script_on_the_processor(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--device", "cpu", "--sizes", "tiny"]
    command += ["--dtype", "fp32", "--repetitions", "2", "--batches", "1,2", "--to", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    measured = json.loads((tmp_path / "gpu.json").read_text())
    rows = {row["what"]: row for row in measured["rows"]}
    both = {f"{part}, tiny, batch {n}" for part in ("pipeline", "transformer", "decoder") for n in (1, 2)}
    assert both | {"linear_attention, tiny", "gated_depthwise, tiny"} < rows.keys()
    for row in rows.values():
        assert not row["left_out"]
        assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in row["seconds"].values())
    assert rows["transformer, tiny, batch 1"]["seconds"].keys() == {"ours", "diffusers", "ours W8A8"}
    # Twice the rows are twice the work, but for the embedding of the time, which all rows share.
    two, four = (rows[f"transformer, tiny, batch {n}"]["flops"] for n in (1, 2))
    assert 0.99 * 2 * two < four < 2 * two
    ours, theirs = (rows["pipeline, tiny, batch 2"]["stages"][side] for side in ("ours", "diffusers"))
    assert theirs.keys() == {"text encoder", "transformer step", "decoder"}
    assert ours.keys() == theirs.keys() | {"text projection"}
    assert min(*ours.values(), *theirs.values()) > 0
    # Stages are parts of the calls that were timed and do not contain one another; of two, the median is the mean.
    slowest = max(rows["pipeline, tiny, batch 2"]["seconds"]["ours"])
    assert sum(ours.values()) < 1.001 * slowest
    assert measured["peaks"]["flops"].keys() == {"fp32", "int8"}
    assert min(*measured["peaks"]["flops"].values(), measured["peaks"]["bytes_per_s"]) > 0
    # No silent gap: the aims are about another size, and the product has no fp8.
    assert [line.endswith("not measured: it was not asked for") for line in measured["aims"]] == [True] * 3
    assert measured["not_measured"].keys() == {
        "fp8",
        "Triton kernels",
        "compiled contestants and CUDA graphs",
    }
    report = (tmp_path / "gpu.md").read_text()
    assert "to try the script" in report
    assert "- fp8: not measured: sana_models quantises to int8, w8a8\n" in report


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
    assert gpu.disagreements(case, scene) == ["sum: ours is off by 0.017 of value plus spread of peer"]
    # Such as a compiler that gives up, or a package that is not there.
    case = gpu_cases.Case(
        "sum",
        "peer",
        {"peer": lambda: right},
        late={
            "good": lambda: lambda: right,
            "bad": lambda: lambda: wrong,
            "broken": lambda: importlib.import_module("no_such_package"),
            "coarse": lambda: lambda: wrong,
        },
        bounds={"coarse": 0.02},
    )
    row = gpu.timed(case, scene, type("", (), {"repetitions": 3}), gpu.Clock(None))
    assert row["seconds"].keys() == {"peer", "good", "coarse"}
    assert row["left_out"] == {
        "bad": "off by 0.017 of value plus spread",
        "broken": "No module named 'no_such_package'",
    }


def test_what_the_memory_does_not_hold_is_named_and_the_rest_is_timed(scripts, tmp_path):
    gpu, gpu_cases, _ = scripts

    def too_much():
        raise torch.OutOfMemoryError

    small = torch.linspace(-1, 1, 10)
    planned = [
        (what, lambda what=what, run=run: gpu_cases.Case(what, "peer", {"peer": run}))
        for what, run in {"batch 8": too_much, "batch 1": lambda: small}.items()
    ]
    scene = gpu_cases.Scene(torch.device("cpu"), torch.float32, "torch")
    gpu.measure_all(planned, scene, type("", (), {"repetitions": 3, "to": tmp_path}), gpu.Clock(8))
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert [row["what"] for row in found["rows"]] == ["batch 1"]
    assert found["not_measured"]["batch 8"] == "out of memory"
    assert "- batch 8: not measured: out of memory" in (tmp_path / "gpu.md").read_text()


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


def test_all_kernels_that_fail_are_named_and_nothing_is_made_of_them(scripts, tmp_path):
    gpu, gpu_cases, _ = scripts
    right = torch.linspace(-1, 1, 10)

    def refused():
        raise ValueError("no such instruction\nat line 3")

    def made_of_them():
        raise AssertionError("was checked")

    kernels = {"linear_attention, tiny": refused, "rms_norm, tiny": lambda: -right}
    planned = [("pipeline, tiny, batch 1", made_of_them)] + [
        (
            what,
            lambda what=what, run=run: gpu_cases.Case(what, "torch", {"torch": lambda: right, "triton": run}),
        )
        for what, run in kernels.items()
    ]
    scene = gpu_cases.Scene(torch.device("cpu"), torch.float32, "torch")
    with pytest.raises(SystemExit) as ended:
        gpu.measure_all(planned, scene, type("", (), {"repetitions": 3, "to": tmp_path}), gpu.Clock(8))
    assert str(ended.value).splitlines() == [
        "outputs differ; nothing was timed",
        "linear_attention, tiny: triton fails: no such instruction",
        "rms_norm, tiny: triton is off by 1.2 of value plus spread of torch",
    ]


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
