"""`python -m benchmarks`: what scripts wrote becomes a run, which the tool's own history reads."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sana_bench.cli.main import execute
from tests import ROOT


@pytest.fixture
def sitting(tmp_path: Path):
    """A checkout whose one script writes times at once."""
    benchmarks = tmp_path / "benchmarks"
    benchmarks.mkdir()
    for name in ("__main__.py", "side_by_side.py"):
        shutil.copy(ROOT / "benchmarks" / name, benchmarks)
    (benchmarks / "harness.py").write_text(
        "import json, pathlib, sys\n"
        "seconds = json.loads(pathlib.Path('seconds.json').read_text())\n"
        "found = {'commands': {'list': {'cpu_seconds': seconds}}, 'pairs': [{'what': 'sum', 'seconds': {'ours': seconds}}]}\n"
        "to = pathlib.Path(sys.argv[sys.argv.index('--to') + 1])\n"
        "(to / 'harness.json').write_text(json.dumps(found))\n"
    )

    def sit(seconds: list[float], *more: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "seconds.json").write_text(json.dumps(seconds))
        command = [
            sys.executable,
            "-m",
            "benchmarks",
            *(more or ("harness",)),
            "--output",
            "kept",
            "--to",
            "reports",
        ]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    return sit


def test_a_sitting_is_a_run_that_history_shows(sitting, tmp_path, capsys):
    done = sitting([3.0, 1.0, 2.0])
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "reports" / "harness.json").read_text())["commands"]
    assert execute(["history", str(tmp_path / "kept")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("harness/list of ") and line.endswith("(s), seconds@1")]
    assert [line for line in lines if line.startswith("harness/sum: ours of ")]
    assert sum("  2 [1, 3]" in line for line in lines) == 2
    assert sum(line == "  1 run, no steps" for line in lines) == 2


def test_a_script_that_measured_nothing_is_told(sitting):
    done = sitting([1.0], "harness", "cpu_speed")
    assert done.returncode == 1
    assert "cpu_speed ended with 2 and measured nothing" in done.stdout
    done = sitting([1.0], "cpuspeed")
    assert done.returncode == 2
    assert "unknown script 'cpuspeed'" in done.stderr
