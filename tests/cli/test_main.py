"""The application: its help, one-line errors, exit codes and `--debug`."""

import subprocess
import sys

import pytest

from sana_bench import __version__
from sana_bench.cli.main import execute
from tests.cli.conftest import one_line


def test_help_names_every_command(capsys) -> None:
    assert execute(["--help"]) == 0
    out = capsys.readouterr().out
    for command in ("run", "validate", "list", "report", "doctor", "train", "generate"):
        assert f"\n  {command} " in out
    assert "Exit codes: 0 done" in out


def test_help_imports_nothing_heavy_and_is_quick() -> None:
    """0.3 s is the promise to users; processor time is compared: other work on the machine is not ours."""
    script = (
        "import resource, sys\n"
        "from sana_bench.cli.main import execute\n"
        "assert execute(['--help']) == 0\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'rich', 'yaml', 'PIL', 'sana_models', 'sana_reports'}\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "print(sorted(heavy & sys.modules.keys()), used.ru_utime + used.ru_stime, file=sys.stderr)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    heavy, _, seconds = result.stderr.strip().rpartition(" ")
    assert heavy == "[]"
    assert float(seconds) < 0.3


def test_version(capsys) -> None:
    assert execute(["--version"]) == 0
    assert capsys.readouterr().out == f"sana-bench {__version__}\n"


def test_no_command_shows_help_and_is_a_usage_error(capsys) -> None:
    assert execute([]) == 2
    assert "Usage: sana-bench" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rum"], "no such command 'rum'"),
        (["run"], "missing argument 'SUITE'"),
        (["run", "suites/geneval.yaml", "--limit", "0"], "'--limit'"),
        (["run", "suites/geneval.yaml", "--limit", "-5"], "'--limit'"),
        (["run", "suites/geneval.yaml", "--limit", "many"], "'--limit'"),
        (["run", "suites/geneval.yaml", "--batch-size", "0"], "'--batch-size'"),
        (
            ["run", "suites/geneval.yaml", "--tier", "mikro"],
            "--tier mikro: unknown tier (did you mean 'micro'?)",
        ),
        (["run", "suites/geneval.yaml", "--tear", "micro"], "no such option: --tear"),
        (["run", "suites/geneval.yaml", "--variants", ","], "--variants: expected names"),
        (
            ["run", "suites/genevl.yaml", "--tier", "micro"],
            "suites/genevl.yaml: no such suite file (did you mean 'suites/geneval.yaml'?)",
        ),
        (["run", "suites", "--tier", "micro"], "suites: no such suite file"),
        (["run", "genevl"], "genevl: no such suite file (did you mean 'geneval'?)"),
        (
            ["run", "suites/geneval.yaml", "--tier", "micro", "--set", "sed=1"],
            "--set sed=1: unknown key 'sed'",
        ),
        (["validate", "suites/geneval.yaml", "--set", "seed=-1"], "seed is -1, must be at least 0"),
        (["list", "metric"], "cannot list 'metric' (did you mean 'metrics'?)"),
        (["report", "nowhere"], "nowhere: not a run directory"),
        (
            ["train", "suites/geneval.yaml"],
            "suites/geneval.yaml:2: kind is missing; one of dc_ae, sana, clip",
        ),
        (["train", "nothing.yaml"], "nothing.yaml: no such file"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(arguments, message, tmp_path, capsys) -> None:
    if arguments[0] in ("run", "report"):
        arguments = [*arguments, "--output", str(tmp_path / "results")]
    assert execute(arguments) == 2
    assert message in one_line(capsys)
    assert not (tmp_path / "results").exists()


def test_a_crash_is_one_line_and_exit_1(tmp_path, capsys, monkeypatch) -> None:
    def crash(*_: object) -> None:
        raise KeyError("oh")

    monkeypatch.setattr("sana_bench.suites.load.load_all_tiers", crash)
    assert execute(["validate", "suites/geneval.yaml"]) == 1
    assert one_line(capsys) == "sana-bench: crashed with KeyError: 'oh' (--debug shows where)"
    with pytest.raises(KeyError):
        execute(["validate", "suites/geneval.yaml", "--debug"])


@pytest.mark.parametrize("place", [0, 1, 2])
def test_debug_may_stand_anywhere(place, capsys) -> None:
    arguments = ["validate", "nowhere.yaml"]
    arguments.insert(place, "--debug")
    assert execute(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback")
    assert lines[-1] == "sana-bench: nowhere.yaml: no such suite file"


def test_after_two_dashes_debug_is_an_argument(capsys) -> None:
    assert execute(["validate", "--", "--debug"]) == 2
    assert one_line(capsys) == "sana-bench: --debug: no such suite file"


@pytest.mark.parametrize("command", [[], ["run"], ["baseline"], ["baseline", "set"]])
def test_h_is_help_and_debug_is_named_at_the_root_alone(command, capsys) -> None:
    assert execute([*command, "-h"]) == 0
    short = capsys.readouterr().out
    assert execute([*command, "--help"]) == 0
    assert capsys.readouterr().out == short
    assert ("--debug" in short) == (not command)


def test_the_package_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "sana_bench", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"sana-bench {__version__}\n"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("re", ["report", "rescore"]),
        ("run gene", ["geneval", "geneval2"]),
        ("run suites/gene", ["suites/geneval.yaml", "suites/geneval2.yaml"]),
        ("run suites/geneval.yaml --tier mi", ["micro"]),
        (
            "run suites/geneval.yaml --variants sana-1.6b-512,sana-micro-8",
            ["sana-1.6b-512,sana-micro-8-steps"],
        ),
        ("report --output {output} a", ["a-run"]),
        ("report --output {output} l", ["latest"]),
    ],
)
def test_completion(words, found, tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "runs" / "a-run").mkdir(parents=True)
    (tmp_path / "runs" / "b-run").mkdir()
    words = words.format(output=tmp_path).split()
    monkeypatch.setenv("_SANA_BENCH_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", " ".join(["sana-bench", *words]))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    # As a logger's library does, to see how a program ends.
    leave = sys.exit
    monkeypatch.setattr(sys, "exit", lambda code: leave(code))
    with pytest.raises(SystemExit) as ended:
        execute([])
    assert ended.value.code == 0
    assert capsys.readouterr().out.split() == found
