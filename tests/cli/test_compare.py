"""`compare` as typed, on stores that differ from a real run in one respect each."""

import json
import re
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sana_bench.cli.main import execute
from sana_bench.results.statistics import holm
from tests.cli.conftest import MEAN, NETWORK, NOTHING, REFERENCE, SCATTER, TIMES
from tests.runner import fakes


@pytest.fixture
def compare(made: Path, a: str, capsys: pytest.CaptureFixture[str]):
    def run(b: str, first: str = a) -> tuple[int, dict]:
        code = execute(["compare", first, b, "--format", "json", "-o", str(made)])
        return code, json.loads(capsys.readouterr().out)

    return run


def row(found: dict, metric: str, key: str = "overall") -> dict:
    return next(r for r in found["metrics"] if (r["metric"], r["key"]) == (metric, key))


VERDICTS = {
    "better": ("UPDATE scores SET value = value + 40", "redness", ""),
    "worse": ("UPDATE scores SET value = value - 40", "redness", ""),
    "no evidence": (NOTHING, "redness", ""),
    "not comparable": (
        "UPDATE summaries SET protocol = 'redness/test@2' WHERE metric = 'redness'",
        "redness",
        "different protocols: redness/test@1 and redness/test@2",
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


@pytest.mark.parametrize("factor", [1.5, 0.5, 1.01])
def test_times_that_were_not_taken_in_turns_get_no_verdict(compare, other, factor) -> None:
    """The medians are shown; what else the machine did would be taken for a difference between the variants."""
    code, found = compare(other(TIMES.format(factor)))
    found = row(found, "latency")
    assert code == 0
    assert (found["verdict"], found["effect"]) == ("not measured", None)
    assert found["reason"] == "these times were not taken in turns; the latency benchmark takes them so"
    assert found["value_b"] == pytest.approx(factor * found["value_a"])


def test_times_of_another_device_are_not_compared(compare, other) -> None:
    found = row(compare(other("UPDATE images SET device = 'gpu-x'"))[1], "latency")
    assert found["verdict"] == "not comparable"
    assert re.fullmatch("different device: .+ and gpu-x", found["reason"])


def test_other_prompts_are_not_compared(compare, tmp_path, monkeypatch, capsys) -> None:
    """The same words in another task: the images are the same, and what is asked of them is not."""
    prompts = fakes.Shapes().prompts("micro")
    monkeypatch.setattr(
        fakes.Shapes, "prompts", lambda *_: [replace(prompt, metadata={"line": -1}) for prompt in prompts]
    )
    world = fakes.World(tmp_path)
    assert world.run() == 0
    (run,) = (world.output / "runs").iterdir()
    capsys.readouterr()
    found = row(compare(f"{run}:fake-4")[1], "redness")
    assert (found["verdict"], found["reason"]) == ("not comparable", "different prompts")


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
    with closing(sqlite3.connect(output / "store.sqlite")) as connection:
        found = connection.execute(
            "SELECT DISTINCT f.path, f.row FROM images i JOIN features f ON i.sha256 = f.image_sha256 "
            "WHERE i.path LIKE ?", (f"%/{target}-%",),
        ).fetchall()  # fmt: skip
    rows = [np.load(output / path)["features"][number] for path, number in found]
    return np.stack(rows).astype(np.float64)


def frechet(values: np.ndarray) -> float:
    from scipy.linalg import sqrtm

    covariance, reference = np.cov(values, rowvar=False), SCATTER / 49 * np.eye(4)
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
    assert found["reason"] == f"different metric identities: {reason}"


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
def test_flips_are_shown_with_their_images(made, a, capsys, format_, monkeypatch) -> None:
    monkeypatch.chdir(made)
    b = f"{a.rpartition(':')[0]}:fake-2"
    assert execute(["compare", a, b, "--format", format_, "-o", str(made)]) == 0
    lines = capsys.readouterr().out.splitlines()
    flips = [line for line in lines if re.match(r"(- )?(lost|won)  shapes ", line)]
    assert flips
    for line in flips:
        paths = [Path(word) for word in line.split() if word.endswith(".png")]
        assert [path.is_file() for path in paths] == [True, True]
        # From the folder in which one is, as the shell takes them.
        assert not any(path.is_absolute() for path in paths)
        assert "fake-4-" in str(paths[0])
        assert "fake-2-" in str(paths[1])
