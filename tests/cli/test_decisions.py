"""`compare`, `gate` and `baseline` as typed, on stores that differ from a real run in one respect each."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from sana_bench.analysis.gate import load_policy
from sana_bench.cli.main import execute
from sana_bench.core.fingerprint import fingerprint, short
from sana_bench.core.registry import METRICS
from sana_bench.metrics.fid.frechet import Moments
from sana_bench.metrics.fid.micro_reference import write_moments
from sana_bench.results.statistics import holm
from tests import ROOT
from tests.runner import fakes

DOCS = ROOT / "docs" / "regression.md"
DEFAULT_POLICY = ROOT / "suites" / "policies" / "default.yaml"
POLICY = "schema_version: 1\nmetrics:\n  redness: {worse_by: 10, too_good_by: 60}\n"
# Measurements that differ between images, so that each is a batch of its own.
TIMES = "UPDATE images SET seconds = {} * (0.1 + 0.001 * sample_index + 0.0001 * CAST(prompt_id AS INTEGER))"
NETWORK = {"network": "corner-means@1", "weights_sha256": "w"}
REFERENCE = {"protocol": "reference@1", "n": 50, "scenes_sha256": "s"}
MEAN, SCATTER = np.full(4, 100.0), 49 * 20.0 * np.eye(4)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The results of one run, with times and with features and a reference as a Fréchet distance has them."""
    folder = tmp_path_factory.mktemp("made")
    with fakes.installed():
        world = fakes.World(folder)
        output = world.output
        assert world.run() == 0
        assert world.run(overrides=("name=alone", "variants.micro=[fake-4]")) == 0
        identity = {"metric": "spread", "protocol": "spread/test@1", **NETWORK, "reference": REFERENCE}
        change(output, TIMES.format(1), f"UPDATE features SET feature_key = '{'/'.join(NETWORK.values())}'",
               f"UPDATE metrics SET identity = '{json.dumps(identity)}' WHERE name = 'spread'")  # fmt: skip
        of = {**REFERENCE, "network": NETWORK}
        moments = Moments(REFERENCE["n"], MEAN, SCATTER)
        write_moments(output / "cache" / f"frechet-{short(fingerprint(of))}.npz", of, moments)
        yield output


def change(output: Path, *statements: str) -> None:
    with sqlite3.connect(output / "store.sqlite") as connection:
        for statement in statements:
            assert connection.execute(statement).rowcount, statement
    connection.close()


@pytest.fixture
def a(made: Path) -> str:
    return f"{next((made / 'runs').glob('shapes-*')).name}:fake-4"


@pytest.fixture
def other(made: Path, tmp_path: Path) -> Callable[..., str]:
    """The same variant in a copy of the results that `statements` change."""

    def copy(*statements: str) -> str:
        folder = Path(shutil.copytree(made, tmp_path / "copy"))
        change(folder, *statements)
        return f"{next((folder / 'runs').glob('shapes-*'))}:fake-4"

    return copy


@pytest.fixture
def compare(made: Path, a: str, capsys: pytest.CaptureFixture[str]):
    def run(b: str, first: str = a) -> tuple[int, dict]:
        code = execute(["compare", first, b, "--format", "json", "-o", str(made)])
        return code, json.loads(capsys.readouterr().out)

    return run


def row(found: dict, metric: str, key: str = "overall") -> dict:
    return next(r for r in found["metrics"] if (r["metric"], r["key"]) == (metric, key))


NOTHING = "UPDATE runs SET created = created"
VERDICTS = {
    "better": ("UPDATE scores SET value = value + 40", "redness", ""),
    "worse": ("UPDATE scores SET value = value - 40", "redness", ""),
    "no evidence": (NOTHING, "redness", ""),
    "not comparable": (
        "UPDATE summaries SET protocol = 'redness/test@2' WHERE metric = 'redness'",
        "redness",
        "other protocol: redness/test@1 and redness/test@2",
    ),
    "not measured": ("DELETE FROM summaries WHERE metric = 'redness'", "redness", "B has no score"),
}


@pytest.mark.parametrize("verdict", VERDICTS)
def test_every_verdict_of_compare(compare, other, made, a, capsys, verdict) -> None:
    statement, metric, reason = VERDICTS[verdict]
    b = other(statement)
    code, found = compare(b)
    assert code == 0  # the other metrics can be compared
    assert (row(found, metric)["verdict"], row(found, metric)["reason"]) == (verdict, reason)
    assert execute(["compare", a, b, "-o", str(made)]) == 0
    (line,) = (x for x in capsys.readouterr().out.splitlines() if x.startswith(f"shapes/{metric}  "))
    assert line.endswith(f"{verdict}: {reason}" if reason else verdict)


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1.5, "worse"), (0.5, "better"), (1.01, "no evidence")]
)  # 1 % is below the smallest difference that counts, 2 %
def test_latency_is_judged_from_the_stored_times(compare, other, factor, verdict) -> None:
    found = row(compare(other(TIMES.format(factor)))[1], "latency")
    assert found["verdict"] == verdict
    assert found["effect"]["test"].startswith("Mann-Whitney")
    # The ratio of medians of the same times but for a factor, in float64.
    assert found["effect"]["difference"] == pytest.approx(factor - 1, rel=1e-6)


def test_times_of_another_device_are_not_compared(compare, other) -> None:
    found = row(compare(other("UPDATE images SET device = 'gpu-x'"))[1], "latency")
    assert found["verdict"] == "not comparable"
    assert re.fullmatch("other device: .+ and gpu-x", found["reason"])


def test_other_prompts_are_not_compared(compare, other) -> None:
    b = other(NOTHING)
    path = Path(b.rpartition(":")[0]) / "suite.resolved.yaml"
    resolved = yaml.safe_load(path.read_text())
    resolved["benchmarks"][0]["prompts_sha256"] = "0" * 64
    path.write_text(yaml.safe_dump(resolved))
    found = row(compare(b)[1], "redness")
    assert (found["verdict"], found["reason"]) == ("not comparable", "other prompts")


def test_nothing_comparable_is_exit_5(compare, other) -> None:
    code, found = compare(
        other("UPDATE summaries SET protocol = 'x@2'", "UPDATE images SET device = 'gpu-x'")
    )
    assert code == 5
    assert {r["verdict"] for r in found["metrics"]} == {"not comparable"}


def test_tasks_are_corrected_by_holm(compare, other, made, a, capsys) -> None:
    b = other("UPDATE scores SET value = value - 40")
    _, found = compare(b)
    tasks = [r for r in found["metrics"] if r["metric"] == "redness" and r["key"] != "overall"]
    raw = [r["effect"]["p_value"] for r in tasks]
    assert [r["key"] for r in tasks] == list(fakes.TAGS)
    assert [r["p_value"] for r in tasks] == pytest.approx(holm(raw), rel=1e-12)  # through JSON only
    assert all(r["p_value"] > p for r, p in zip(tasks, raw, strict=True))
    assert execute(["compare", a, b, "-o", str(made)]) == 0
    out = capsys.readouterr().out
    assert "p (Holm)" in out
    assert all(f"shapes/redness ({tag})" in out for tag in fakes.TAGS)


def features(output: Path, target: str) -> np.ndarray:
    with sqlite3.connect(output / "store.sqlite") as connection:
        found = connection.execute(
            "SELECT DISTINCT f.path, f.row FROM images i JOIN features f ON i.sha256 = f.image_sha256 "
            "WHERE i.path LIKE ?", (f"%/{target}-%",),
        ).fetchall()  # fmt: skip
    rows = [np.load(output / path)["features"][number] for path, number in found]
    return np.stack(rows).astype(np.float64)


def frechet(values: np.ndarray) -> float:
    from scipy.linalg import sqrtm

    covariance, reference = np.cov(values, rowvar=False), SCATTER / 49
    mixed = np.trace(sqrtm(covariance @ reference).real)
    return float(((values.mean(0) - MEAN) ** 2).sum() + np.trace(covariance + reference) - 2 * mixed)


def test_a_distance_of_sets_is_compared_by_its_features(compare, made, a) -> None:
    run = a.rpartition(":")[0]
    _, found = compare(f"{run}:fake-2")
    effect = row(found, "spread")["effect"]
    expected = frechet(features(made, "fake-2")) - frechet(features(made, "fake-4"))
    # Two algorithms for the square root of a 4 x 4 matrix, both in float64.
    assert effect["difference"] == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert effect["low"] <= effect["difference"] <= effect["high"]
    assert (effect["n_pairs"], effect["n_clusters"]) == (24, 6)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [({"weights_sha256": "other"}, "weights_sha256"),
     ({"reference": {**REFERENCE, "scenes_sha256": "other"}}, "reference.scenes_sha256")],
)  # fmt: skip
def test_other_features_or_another_reference_are_not_compared(compare, other, changed, reason) -> None:
    identity = {"metric": "spread", "protocol": "spread/test@1", **NETWORK, "reference": REFERENCE, **changed}
    b = other(
        f"UPDATE metrics SET metric_key = 'k', identity = '{json.dumps(identity)}' WHERE name = 'spread'",
        "UPDATE summaries SET metric_key = 'k' WHERE metric = 'spread'",
    )
    found = row(compare(b)[1], "spread")
    assert found["verdict"] == "not comparable"
    assert found["reason"] == f"other metric identity: {reason}"


def test_sides_are_runs_variants_or_baselines(compare, made, a, capsys) -> None:
    run = a.rpartition(":")[0]
    alone = next((made / "runs").glob("alone-*")).name
    assert execute(["baseline", "set", "stable", a, "-o", str(made)]) == 0
    capsys.readouterr()
    for first in (alone, "stable", "baseline:stable", a, f"{made / 'runs' / run}:fake-4"):
        code, found = compare(f"{run}:fake-2", first)
        assert code == 0
        assert found["a"].endswith(":fake-4")
        assert found["settings"]["sampler.steps"] == [4, 2]
    assert execute(["compare", "fake-4", "fake-2", "--run", run, "-o", str(made)]) == 0


@pytest.mark.parametrize("format_", ["text", "markdown"])
def test_flips_are_shown_with_their_images(made, a, capsys, format_) -> None:
    b = f"{a.rpartition(':')[0]}:fake-2"
    assert execute(["compare", a, b, "--format", format_, "-o", str(made)]) == 0
    lines = capsys.readouterr().out.splitlines()
    flips = [line for line in lines if re.match(r"(- )?(lost|won)  shapes ", line)]
    assert flips
    for line in flips:
        paths = [Path(word) for word in line.split() if word.endswith(".png")]
        assert [path.is_file() for path in paths] == [True, True]
        assert "fake-4-" in str(paths[0])
        assert "fake-2-" in str(paths[1])


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


@pytest.mark.parametrize("content", ["{", "[]", '{"x": 1}', '{"x": {"run": "r"}}', "\xff"])
@pytest.mark.parametrize("command", ["baseline list", "gate A --baseline x", "compare A baseline:x"])
def test_damaged_baselines_are_one_line(made, a, tmp_path, capsys, content, command) -> None:
    output = Path(shutil.copytree(made, tmp_path / "copy"))
    (output / "baselines.json").write_bytes(content.encode("latin-1"))
    arguments = command.replace("A", a, 1).split() if "A" in command else command.split()
    assert execute([*arguments, "-o", str(output)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "baselines.json: damaged baselines" in line


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
    shutil.copytree(made, tmp_path / "results")
    assert execute(["baseline", "set", "release", a, "-o", str(tmp_path / "results")]) == 0
    shim = tmp_path / "bin" / "sana-bench"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m {fakes.__name__} 0.001 "$@"\n')
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
