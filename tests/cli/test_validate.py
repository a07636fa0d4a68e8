"""`sana-bench validate` as typed."""

import subprocess
import sys

import pytest

from sana_bench.cli.main import execute
from tests import ROOT
from tests.cli.conftest import one_line
from tests.judges.chat_server import serving
from tests.suite_files import write_suite

FID = """schema_version: 1
name: chosen
benchmarks:
- name: mjhq30k
  metrics: [{name: fid, protocol: fid/sana@1}]
variants: {full: [sana-1.6b-1024]}
"""


@pytest.fixture
def suite(tmp_path, monkeypatch):
    """A suite of the full tier on a machine that has nothing of it."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("SANA_BENCH_DATA", raising=False)
    (tmp_path / "variants").symlink_to(ROOT / "suites" / "variants")
    path = tmp_path / "chosen.yaml"
    path.write_text(FID)
    return path


def test_a_valid_suite_names_its_variants(capsys) -> None:
    assert execute(["validate", "suites/geneval.yaml"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "suites/geneval.yaml: micro tier is valid: sana-micro, sana-micro-8-steps" in lines


def test_what_only_looks_at_files_imports_neither_torch_nor_pandas(tmp_path, monkeypatch) -> None:
    """Where nothing is fetched: DPG-Bench's questions are a table, read as the official code reads it."""
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path))
    script = (
        "import sys; from sana_bench.cli.main import execute\n"
        "for command in ('validate suites/all.yaml', 'list', 'fetch all --dry-run'):\n"
        "    assert execute(command.split()) == 0 and not {'torch', 'pandas'} & sys.modules.keys(), command"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


def test_absent_weights_are_a_note(suite, capsys) -> None:
    assert execute(["validate", str(suite)]) == 0
    valid, note = capsys.readouterr().out.splitlines()
    assert valid == f"{suite}: full tier is valid: sana-1.6b-1024"
    assert note.startswith(
        "note: the weights of sana-1.6b-1024, Efficient-Large-Model/Sana_1600M_1024px_diffusers, are not on"
    )


def test_a_judge_that_does_not_answer_is_a_note_and_stops_a_run_before_images_are_made(
    tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.csv").write_text("prompt\na red circle\n")
    (tmp_path / "variants").symlink_to(ROOT / "suites" / "variants")
    with serving(lambda _: 500) as server:
        vqascore = f'{{name: vqascore, parameters: {{judge: tiny, server: "{server.address}"}}}}'
        suite = write_suite(
            tmp_path,
            f"{{name: own, prompts: ./prompts.csv, metrics: [{vqascore}]}}",
            ["sana-micro"],
            tier="micro",
        )
        assert execute(["validate", str(suite)]) == 0
        assert capsys.readouterr().out.splitlines() == [f"{suite}: micro tier is valid: sana-micro"]
        server.models = ["tinny"]
        reason = f"judge tiny at {server.address}: the server has no such model (did you mean 'tinny'?); it has tinny"
        assert execute(["validate", str(suite)]) == 0
        assert capsys.readouterr().out.splitlines()[1:] == [f"note: {reason}"]
        assert execute(["run", str(suite), "--tier", "micro"]) == 2
        assert one_line(capsys) == f"sana-bench: {reason}"
        assert not (tmp_path / "results").exists()
    assert execute(["validate", str(suite)]) == 0
    assert "ConnectError" in capsys.readouterr().out
    monkeypatch.setattr("sana_bench.runner.checks.TRIES", 1)
    assert execute(["run", str(suite), "--tier", "micro"]) == 2
    assert "ConnectError" in one_line(capsys)
    assert not (tmp_path / "results").exists()


def test_weights_that_are_there_are_no_note(capsys, monkeypatch, tiny_weights_root) -> None:
    monkeypatch.setenv("SANA_BENCH_MICRO_WEIGHTS", str(tiny_weights_root))
    assert execute(["validate", "suites/demo.yaml"]) == 0
    assert "note: the weights of sana-micro," not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("protocol=fid/cleen@1", "metric 'fid' has no protocol 'fid/cleen@1' (did you mean 'fid/clean@1'?)"),
        (
            "parameters={image_siz: 512}",
            "metric 'fid' has no parameter 'image_siz' (did you mean 'image_size'?)",
        ),
        ("parameters={image_size: big}", "parameter 'image_size' is 'big', expected int"),
        ("parameters={image_size: -1}", "parameter 'image_size' is -1, expected "),
    ],
)
def test_protocols_and_parameters_of_metrics_are_checked(suite, capsys, change, message) -> None:
    assert execute(["validate", str(suite), "--set", f"benchmarks.0.metrics.0.{change}"]) == 2
    line = one_line(capsys)
    assert line.startswith(f"sana-bench: {suite}: benchmark 'mjhq30k' on the full tier: ")
    assert message in line
