"""How checks run, how their outcomes are kept, and what they say of a protocol and of a run."""

import json
import os
import re

import numpy as np
import pytest

from sana_bench.cli.main import execute
from sana_bench.core.errors import AssetError
from sana_bench.metrics.selfcheck import outcomes, registry, session, sums
from sana_bench.metrics.selfcheck.check import Check, SkippedError, Tolerance, run_checks
from sana_bench.micro.captions import scene_for
from sana_bench.micro.evaluation_set import geneval_prompts
from sana_bench.micro.renderer import render
from tests.suite_files import GENEVAL_ALONE, write_images, write_suite, write_variant

EXACT = Tolerance(0.5, "wrongs", "a test")


def check(name, measure, protocols=("toy/a@1",), **options):
    return Check(name, protocols, measure, EXACT, **options)


def raising(error):
    def measure(_):
        raise error

    return measure


TOYS = [
    check("fine", lambda _: 0.5),
    check("off", lambda _: 0.6),
    check("broken", raising(ValueError("two\nlines"))),
    check("nan", lambda _: float("nan")),
    check("lacking", raising(SkippedError("no weights"))),
    check("damaged", raising(AssetError("x.pth is missing"))),
    check("last", lambda _: 0.0),
]


def test_one_check_hides_no_other():
    results = list(run_checks(TOYS, "cpu"))
    assert [(result.name, result.status) for result in results] == [
        ("fine", "ok"), ("off", "failed"), ("broken", "failed"), ("nan", "failed"), ("lacking", "skipped"),
        ("damaged", "failed"), ("last", "ok"),
    ]  # fmt: skip
    by_name = {result.name: result for result in results}
    assert by_name["broken"].reason == "ValueError: two lines"
    assert by_name["damaged"].reason == "AssetError: x.pth is missing"
    assert by_name["nan"].error is None


def test_temporary_files_go_even_when_nobody_wants_the_rest():
    folders = []

    def measure(bench):
        folders.append(bench.folder("files"))
        return 0.0

    results = run_checks(
        [check("first", measure), check("second", raising(AssertionError("was run")))], "cpu"
    )
    assert next(results).status == "ok"
    results.close()
    assert not folders[0].exists()


def test_tolerances_and_devices():
    loose = Tolerance(2.0, "wrongs", "another arithmetic")
    both = [check("host", lambda _: 1.0), check("device", lambda _: 1.0, on_device=loose)]
    assert [(r.status, r.device) for r in run_checks(both, "cuda")] == [("failed", "cpu"), ("ok", "cuda")]
    assert [(r.status, r.device) for r in run_checks(both, "cpu")] == [("failed", "cpu"), ("failed", "cpu")]


def test_checks_run_where_their_results_say():
    places = []

    def measure(bench):
        places.append(bench.device)
        return 0.0

    both = [check("host", measure), check("device", measure, on_device=Tolerance(2.0, "wrongs", "a test"))]
    for device in ("cuda", "cpu"):
        assert [result.device for result in run_checks(both, device)] == places[-2:]
    assert places == ["cpu", "cuda", "cpu", "cpu"]


def test_outcomes_are_kept_and_joined(tmp_path):
    path = outcomes.outcome_path(tmp_path, "cpu")
    results = list(run_checks(TOYS, "cpu"))
    outcomes.save_results(path, "cpu", results[:3])
    outcomes.save_results(path, "cpu", results[2:])
    assert list(outcomes.load_results(path).values()) == results
    assert json.loads(path.read_text())["machine"]["device"] == "cpu"
    path.write_text(path.read_text()[:-20])
    assert outcomes.load_results(path) == {}


@pytest.mark.parametrize("change", ["packages", "processor", "device", "weights", "code"])
def test_another_machine_has_another_outcome(tmp_path, monkeypatch, change):
    monkeypatch.setattr(outcomes, "describe_machine", lambda device: {"device_name": "x"})
    before = outcomes.outcome_path(tmp_path, "cpu")
    assert outcomes.outcome_path(tmp_path, "cpu") == before
    if change == "packages":
        monkeypatch.setattr(outcomes, "package_versions", lambda: {"torch": "1.0"})
    elif change == "processor":
        monkeypatch.setattr(outcomes, "cpu_model", lambda: "another")
    elif change == "weights":
        monkeypatch.setenv("SANA_BENCH_MICRO_WEIGHTS", str(tmp_path))
    elif change == "code":
        monkeypatch.setattr(outcomes, "_code_sha256", lambda: "another")
    assert outcomes.outcome_path(tmp_path, "cuda" if change == "device" else "cpu") != before


def test_weights_replaced_in_place_have_another_outcome(tmp_path, monkeypatch):
    """At equal size and time, as rsync -t and tar leave them."""
    monkeypatch.setenv("SANA_BENCH_MICRO_WEIGHTS", str(tmp_path))
    path = tmp_path / "clip" / "model.safetensors"
    path.parent.mkdir()
    found = set()
    for content in (b"A" * 99, b"B" * 99):
        path.write_bytes(content)
        os.utime(path, ns=(10**18, 10**18))
        found.add(outcomes.outcome_path(tmp_path, "cpu"))
    assert len(found) == 2


def test_an_outcome_is_of_all_code_that_scores():
    names = outcomes.code_files()
    assert {"core/preprocess.py", "judges/mplug/network.py", "metrics/clip/metric.py"} <= set(names)
    assert {"micro/detector.py", "results/statistics/intervals.py"} <= set(names)
    assert any(name.startswith("metrics/selfcheck/golden/") for name in names)
    assert {name.partition("/")[0] for name in names} == set(outcomes._ROOMS)


def judged(names):
    return {result.name: result for result in run_checks(TOYS, "cpu") if result.name in names}


@pytest.mark.parametrize(
    ("vouching", "ran", "state"),
    [
        (["fine", "last"], ["fine", "last"], "passed"),
        (["fine", "last"], ["fine"], "not run"),
        (["fine", "off", "last"], ["fine", "off"], "failed"),
        (["fine", "lacking"], ["fine", "lacking"], "skipped"),
        (["lacking", "broken"], ["lacking", "broken"], "failed"),
        ([], [], "no cases"),
    ],
)
def test_verdicts(monkeypatch, vouching, ran, state):
    monkeypatch.setattr(outcomes, "checks_for", lambda _: [toy for toy in TOYS if toy.name in vouching])
    (verdict,) = outcomes.verdicts(["toy/a@1"], judged(ran))
    assert verdict.state == state
    assert bool(verdict.reason) == (state != "passed")


def test_a_failed_check_is_exit_4_and_recorded(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sums, "unbiased_mmd", lambda x, y: 1.0)
    monkeypatch.setattr(session, "select", lambda _: [c for c in sums.CHECKS if c.quick])
    monkeypatch.setattr(
        outcomes, "checks_for", lambda p: [c for c in sums.CHECKS if set(p) & set(c.protocols)]
    )
    assert execute(["selfcheck", "--device", "cpu", "--output", str(tmp_path)]) == 4
    out = capsys.readouterr().out
    assert "failed  kernel distance: clean-fid's: 0.5, allowed 1e-09 relative" in out
    assert "kid/clean@1: NOT to be trusted here" in out
    assert "fid/clean@1: can be trusted here" in out
    assert "1 failed" in out


def test_devices_are_checked(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert execute(["selfcheck", "--device", "cuda", "--output", str(tmp_path)]) == 2
    assert execute(["selfcheck", "--device", "tpu", "--output", str(tmp_path)]) == 2
    assert "no CUDA device found" in capsys.readouterr().err


def test_a_run_checks_only_what_is_quick(tmp_path, monkeypatch):
    made = []

    def quick(_):
        made.append("quick")
        return 0.0

    toys = [check("quick", quick, quick=True), check("slow", raising(AssertionError("was run")))]
    monkeypatch.setattr(session, "checks_for", lambda _: toys)
    monkeypatch.setattr(outcomes, "checks_for", lambda _: toys)
    monkeypatch.setattr(session, "_KNOWN", {})
    for _ in range(2):
        record = session.check_run(["toy/a@1"], "cpu", tmp_path)
        assert record["protocols"] == {"toy/a@1": "not run (1 of 2 checks not run)"}
        assert record["summary"] == "self-check not run: toy/a@1"
    # In this process, in the same output folder and in another one: once.
    session.check_run(["toy/a@1"], "cpu", tmp_path / "other")
    assert made == ["quick"]
    assert outcomes.load_results(outcomes.outcome_path(tmp_path / "other", "cpu"))["quick"].status == "ok"


JUDGE = "dpg/vlm-qwen3-vl-8b-instruct@1"


@pytest.mark.parametrize("name", [JUDGE, "dpg/vlm-*@1"])
def test_a_judge_of_the_user_has_no_cases_but_its_rules_do(tmp_path, monkeypatch, capsys, name):
    assert execute(["selfcheck", name, "--device", "cpu", "--output", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "ok      DPG: the published and the corrected rules" in out
    assert "dpg/vlm-*@1: its judge is a model of your choice and has no stored cases" in out
    assert "has no stored cases; its rules pass here" in out
    assert "dpg/strict@1: " not in out
    assert execute(["selfcheck", "dpg/vlm-nothing", "--device", "cpu", "--output", str(tmp_path)]) == 2
    monkeypatch.setattr("sana_bench.metrics.selfcheck.judges.score_strict", lambda *_: registry)
    assert execute(["selfcheck", name, "--device", "cpu", "--output", str(tmp_path)]) == 4
    assert "dpg/vlm-*@1: NOT to be trusted here" in capsys.readouterr().out


def test_a_run_records_that_its_judge_has_no_cases(tmp_path, monkeypatch):
    monkeypatch.setattr(session, "_KNOWN", {})
    record = session.check_run([JUDGE], "cpu", tmp_path)
    assert record["summary"] == f"self-check no stored cases: {JUDGE}"
    assert record["protocols"][JUDGE].startswith("no cases (its judge is a model of your choice")
    assert record["checks"]["DPG: the published and the corrected rules"].startswith("ok: 0")


@pytest.fixture
def suite(tmp_path):
    """A suite of true scenes, one for each prompt."""
    rng = np.random.default_rng(0)
    # Some texts stand twice: the id tells them apart.
    images = (
        (
            {"id": f"{place:05d}", "prompt": record["prompt"], "file": f"{place}.png"},
            render(scene_for(record, rng)),
        )
        for place, record in enumerate(geneval_prompts())
    )
    write_images(tmp_path / "images", images)
    write_variant(tmp_path / "suites", "mine", "generator: images", tier="micro", weights=tmp_path / "images")
    return write_suite(tmp_path / "suites", GENEVAL_ALONE, tier="micro", name="existing")


def test_a_run_and_its_report_say_so(suite, tmp_path, monkeypatch):
    arguments = ["run", str(suite), "--tier", "micro", "--output", str(tmp_path / "results"), "--limit", "6"]
    assert execute(arguments) == 3
    (run,) = (tmp_path / "results" / "runs").iterdir()
    found = json.loads((run / "provenance.json").read_text())["selfcheck"]
    assert found["protocols"] == {"geneval/micro@1": "passed"}
    assert found["checks"]["GenEval: the official rules"].startswith("ok: 0")
    (stored,) = (tmp_path / "results" / "cache" / "selfcheck").iterdir()
    assert stored.stem == found["key"]
    for name in ("report.md", "report.html"):
        text = (run / "report" / name).read_text()
        assert re.search(r"[sS]elf-check passed: geneval/micro@1", text.replace("\\", "")), name


def test_a_run_says_that_a_check_failed(suite, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(session, "_KNOWN", {})
    monkeypatch.setattr("sana_bench.metrics.selfcheck.detectors.decide", lambda *_: registry)
    arguments = ["run", str(suite), "--tier", "micro", "--output", str(tmp_path / "results"), "--limit", "6"]
    assert execute(arguments) == 3
    assert "self-check failed: geneval/micro@1" in capsys.readouterr().out
    (run,) = (tmp_path / "results" / "runs").iterdir()
    assert (
        "AttributeError"
        in json.loads((run / "provenance.json").read_text())["selfcheck"]["checks"][
            "GenEval: the official rules"
        ]
    )
