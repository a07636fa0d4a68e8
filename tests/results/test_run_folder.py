"""How a run may be named."""

import os
from pathlib import Path

import pytest

from sana_bench.core.errors import UsageError
from sana_bench.results.run_folder import RunFiles, find_run

RUNS = (  # the last one worked on first
    "geneval-micro-0123456789ab",
    "demo-micro-00ffee000000",
    "geneval-full-0123ff000000",
    "image_reward-micro-beef00000000",
    "geneval-x-micro-123400000000",
)


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for age, name in enumerate(RUNS):
        suite = RunFiles(tmp_path / "results" / "runs" / name).suite
        suite.parent.mkdir(parents=True)
        suite.write_text("")
        os.utime(suite, ns=(10**18 - age, 10**18 - age))
    (tmp_path / "results" / "runs" / "no-run-1234").mkdir()
    return Path("results")


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("latest", RUNS[0]),
        (RUNS[2], RUNS[2]),
        (f"results/runs/{RUNS[3]}", RUNS[3]),
        (f"results/runs/{RUNS[3]}/", RUNS[3]),
        ("demo", RUNS[1]),  # the suite
        ("image_reward-micro", RUNS[3]),  # suite and tier
        ("geneval-x", RUNS[4]),  # the suite, although a tier may begin so
        ("im", RUNS[3]),  # how the name begins
        ("geneval-f", RUNS[2]),
        ("00ff", RUNS[1]),  # how the hash begins
        ("beef00000000", RUNS[3]),
    ],
)
def test_names(output, asked, found) -> None:
    assert find_run(asked, output).directory.name == found


def test_the_latest_is_the_last_one_worked_on(output) -> None:
    os.utime(RunFiles(output / "runs" / RUNS[4]).suite, ns=(2 * 10**18, 2 * 10**18))
    assert find_run("latest", output).directory.name == RUNS[4]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("geneval", f"geneval: 2 runs in results/runs fit, the latest first: {RUNS[0]}, {RUNS[2]}"),
        ("0123", f"0123: 2 runs in results/runs fit, the latest first: {RUNS[0]}, {RUNS[2]}"),
        ("g", f"g: 3 runs in results/runs fit, the latest first: {RUNS[0]}, {RUNS[2]}, {RUNS[4]}"),
        ("bee", "bee: not a run directory, and results/runs has no such run"),  # too short for a hash
        ("dmo", "dmo: not a run directory, and results/runs has no such run (did you mean 'demo'?)"),
        ("latst", "latst: not a run directory, and results/runs has no such run (did you mean 'latest'?)"),
        ("no-run-1234", "no-run-1234: not a run directory, and results/runs has no such run"),
    ],
)
def test_what_is_no_name_of_one_run_is_refused(output, asked, message) -> None:
    with pytest.raises(UsageError) as caught:
        find_run(asked, output)
    assert str(caught.value) == message


def test_many_candidates_are_counted(output) -> None:
    for number in range(9):
        suite = RunFiles(output / "runs" / f"many-micro-{number:012d}").suite
        suite.parent.mkdir()
        suite.write_text("")
    with pytest.raises(UsageError, match=r"^many: 9 runs .*: (many-micro-\d{12}(, )?){5} and 4 more$"):
        find_run("many", output)


def test_without_runs_there_is_no_latest(tmp_path) -> None:
    with pytest.raises(UsageError, match=r"^latest: not a run directory, and .*has no such run$"):
        find_run("latest", tmp_path)
