"""The command as typed: output, one-line errors and exit codes."""

import os
import subprocess
import sys

import pytest

from sana_bench import __version__
from sana_bench.cli.main import execute
from tests import ROOT


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the only line on standard error."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


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


def test_unwritable_output_is_refused(tmp_path, capsys) -> None:
    (tmp_path / "file").write_text("")
    output = tmp_path / "file" / "results"
    assert execute(["run", "suites/geneval.yaml", "--tier", "micro", "--output", str(output)]) == 2
    assert "is a file, not a folder" in one_line(capsys)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_output_without_permission_is_refused(tmp_path, capsys) -> None:
    tmp_path.chmod(0o500)
    assert (
        execute(["run", "suites/geneval.yaml", "--tier", "micro", "--output", str(tmp_path / "results")]) == 2
    )
    assert "no permission to write" in one_line(capsys)


def test_full_tier_without_weights_says_what_and_how(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("SANA_BENCH_DATA", raising=False)
    assert (
        execute(["run", "suites/geneval.yaml", "--tier", "full", "--output", str(tmp_path / "results")]) == 2
    )
    line = one_line(capsys)
    assert "weights 'Efficient-Large-Model/Sana_1600M_1024px_diffusers' are not here" in line
    assert "transformer/" not in line
    assert "hf download Efficient-Large-Model/Sana_1600M_1024px_diffusers" in line
    assert not (tmp_path / "results").exists()


def test_a_crash_is_one_line_and_exit_1(tmp_path, capsys, monkeypatch) -> None:
    def crash(*_: object) -> None:
        raise KeyError("oh")

    monkeypatch.setattr("sana_bench.suites.load.load_all_tiers", crash)
    assert execute(["validate", "suites/geneval.yaml"]) == 1
    assert one_line(capsys) == "sana-bench: crashed with KeyError: 'oh' (--debug shows where)"
    with pytest.raises(KeyError):
        execute(["validate", "suites/geneval.yaml", "--debug"])


def test_validate_and_list(capsys) -> None:
    assert execute(["validate", "suites/geneval.yaml"]) == 0
    assert "micro tier is valid: sana-micro, sana-micro-8-steps" in capsys.readouterr().out
    assert execute(["list"]) == 0
    out = capsys.readouterr().out
    for word in (
        "suites/geneval.yaml",
        "sana-1.5-4.8b-1024 (full, grown from sana-1.6b-1024)",
        "sana-1.5-2.4b-1024 (full, pruned from sana-1.5-4.8b-1024)",
        "geneval:",
        "clip_score",
    ):
        assert word in out
    assert execute(["list", "metrics"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "geneval"


def test_every_variant_file_is_valid() -> None:
    from sana_bench.suites.load import list_variants, load_variant

    folder = ROOT / "suites" / "variants"
    names = list_variants(folder)
    assert {"sana-micro", "sana-micro-8-steps", "sana-1.6b-1024"} <= set(names)
    for name in names:
        assert load_variant(folder / f"{name}.yaml").name == name


def test_variants_made_from_the_published_models_differ_from_their_origin_as_they_say() -> None:
    from sana_bench.assets.table import repositories_of
    from sana_bench.suites.load import list_variants, load_variant
    from sana_models import SANA_CONFIGS

    folder = ROOT / "suites" / "variants"
    found = {name: load_variant(folder / f"{name}.yaml") for name in list_variants(folder)}
    whole = found["sana-1.5-4.8b-1024"]
    same = {"model", "sampler", "precision", "quantization"}
    for candidates in (32, 2048):
        best = found[f"{whole.name}-best-of-{candidates}"]
        assert (best.kind, best.derived_from) == ("inference_scaled", whole.name)
        assert best.model_dump(include=same) == whole.model_dump(include=same)
        assert (best.best_of_n.candidates, best.best_of_n.keep) == (candidates, 4)
        assert (best.best_of_n.generator, best.best_of_n.judge.name) == ("sana", "vila")
    names = [repository.name for repository in repositories_of([best], folder)]
    assert names == [whole.model.weights, "Efficient-Large-Model/NVILA-Lite-2B-Verifier"]
    for size in ("2.4b", "3.2b"):
        pruned = found[f"sana-1.5-{size}-1024"]
        assert (pruned.kind, pruned.derived_from) == ("pruned", whole.name)
        # The description tells the depth of the size that the library knows.
        assert f"{SANA_CONFIGS[f'sana1.5-{size}-1024'].num_layers} of 60 blocks" in pruned.description
        assert pruned.sampler == whole.sampler


def test_validate_does_not_import_torch() -> None:
    script = (
        "import sys; from sana_bench.cli.main import execute\n"
        "assert execute(['validate', 'suites/geneval.yaml']) == 0 and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_doctor_reports_environment_and_gaps(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("SANA_BENCH_MICRO_WEIGHTS", str(tmp_path / "none"))
    assert execute(["doctor"]) == 2
    out = capsys.readouterr().out
    for word in (
        "python ",
        "torch ",
        "cpu: ",
        "memory: ",
        "! micro weights sana-micro",
        "full tier lacks variant",
        "not ready",
    ):
        assert word in out
