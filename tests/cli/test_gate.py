"""`gate` as typed, on stores that differ from a real run in one respect each."""

import os
import re
import subprocess
import sys

import pytest
import yaml

from sana_bench.analysis.policy import load_policy
from sana_bench.cli.main import execute
from sana_bench.core.registry import METRICS
from tests import ROOT
from tests.cli.conftest import NOTHING
from tests.runner import fakes

DOCS = ROOT / "docs" / "regression.md"
DEFAULT_POLICY = ROOT / "suites" / "policies" / "default.yaml"
POLICY = "schema_version: 1\nmetrics:\n  redness: {worse_by: 10, too_good_by: 60}\n"

GATES = {
    0: NOTHING,
    3: "DELETE FROM images WHERE prompt_id = '00000'",
    4: "UPDATE scores SET value = value - 40",
    5: "UPDATE summaries SET protocol = 'x@2'",
}


@pytest.mark.parametrize("code", GATES)
def test_exit_codes_of_the_gate(made, a, other, tmp_path, code) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    assert execute(["baseline", "set", "release", a, "-o", str(made)]) == 0
    command = ["gate", other(GATES[code]), "--baseline", "release", "-o", str(made)]
    command += ["--policy", str(tmp_path / "policy.yaml"), "--junit", str(tmp_path / "gate.xml")]
    assert execute([*command, "--markdown", str(tmp_path / "gate.md")]) == code
    assert (tmp_path / "gate.md").read_text().startswith("# Regression gate: ")
    assert 'classname="sana-bench.gate"' in (tmp_path / "gate.xml").read_text()


def test_too_good_is_exit_4(made, a, other, tmp_path, capsys) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    assert execute(["baseline", "set", "release", a, "-o", str(made)]) == 0
    b = other("UPDATE scores SET value = value + 90")
    command = ["gate", b, "--baseline", "release", "--policy", str(tmp_path / "policy.yaml")]
    assert execute([*command, "-o", str(made)]) == 4
    assert "more than 60 better is suspicious" in capsys.readouterr().out


def test_the_default_policy_is_about_metrics_that_exist_and_its_sizes_are_explained() -> None:
    policy = load_policy(DEFAULT_POLICY)
    assert set(policy.metrics) <= {*METRICS.names(), "latency"}
    page = DOCS.read_text(encoding="utf-8")
    for name, rule in policy.metrics.items():
        (line,) = re.findall(rf"^\| {name} \|.*$", page, re.MULTILINE)
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[1:3] == [f"{rule.worse_by:g}", f"{rule.too_good_by:g}"]
        assert len(cells[3]) > 40


def test_the_workflow_in_the_docs_runs(made, a, tmp_path) -> None:
    """Every `run:` but the installation, by the shell that GitHub uses."""
    blocks = re.findall(r"```yaml\n(jobs:.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    (job,) = yaml.safe_load(blocks[0])["jobs"].values()
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert commands[0] == "pip install ."
    baseline = ["-o", str(tmp_path / "baselines" / "release.json")]
    assert execute(["baseline", "export", a, "--output", str(made), *baseline]) == 0
    shim = tmp_path / "bin" / "sana-bench"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} {fakes.__file__} 0.001 "$@"\n')
    shim.chmod(0o755)
    (tmp_path / "policy.yaml").write_text(POLICY)
    environment = {
        **os.environ,
        "PATH": f"{shim.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in ("", "models", "kernels", "reports")),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        **job["env"],
        "SUITE": str(made.parent / "suites" / "shapes.yaml"),
        "VARIANT": "fake-4",
        "POLICY": "policy.yaml",
    }
    for command in commands[1:]:
        done = subprocess.run(
            ["bash", "-e", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    assert (tmp_path / "summary.md").read_text().startswith("# Regression gate: pass")
    assert (tmp_path / "gate.xml").is_file()
