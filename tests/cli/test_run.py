"""`sana-bench run` as typed: what is refused before anything is written."""

import os
import subprocess
import sys

import pytest

from sana_bench.cli.main import execute
from tests.cli.conftest import one_line


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
    assert "weights 'Efficient-Large-Model/Sana_1600M_1024px_diffusers' are not on this machine" in line
    assert "transformer/" not in line
    assert "hf download Efficient-Large-Model/Sana_1600M_1024px_diffusers" in line
    assert not (tmp_path / "results").exists()


def test_a_wrong_suite_is_told_without_torch() -> None:
    script = (
        "import sys; from sana_bench.cli.main import execute\n"
        "assert execute(['run', 'nope']) == 2 and 'torch' not in sys.modules\n"
        "assert execute(['run', 'suites/geneval.yaml', '--set', 'sed=1']) == 2 and 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stderr.splitlines()[0] == "sana-bench: nope: no such suite file"
