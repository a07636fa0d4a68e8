"""`baseline` as typed, and baselines in files: the verdicts of the store on any machine, and one line for a file that is none."""

import base64
import copy
import json
import math
import shutil
from pathlib import Path

import pytest

import sana_bench
from sana_bench.analysis.baselines import resolve
from sana_bench.analysis.gate import evaluate
from sana_bench.analysis.policy import Policy, load_policy
from sana_bench.cli.main import execute
from sana_bench.core.errors import UsageError
from sana_bench.core.fingerprint import fingerprint
from tests.cli.conftest import NOTHING, one_line

RULES = {
    "redness": {"worse_by": 10},
    "spread": {"worse_by": 100},
    "latency": {"worse_by": 0.5, "required": False},
}
# Six prompts moved alike are 2 of 64 patterns, p = 0.031; twice that after Holm's correction over two metrics.
POLICY = {"schema_version": 1, "alpha": 0.1, "metrics": RULES}
CHANGES = {
    0: NOTHING,
    3: "DELETE FROM images WHERE prompt_id = '00000'",
    4: "UPDATE scores SET value = value - 40",
    5: "UPDATE summaries SET protocol = 'x@2'",
}


@pytest.mark.parametrize("content", ["{", "[]", '{"x": 1}', '{"x": {"run": "r"}}', "\xff"])
@pytest.mark.parametrize("command", ["baseline list", "gate A --baseline x", "compare A baseline:x"])
def test_damaged_baselines_are_one_line(made, a, tmp_path, capsys, content, command) -> None:
    output = Path(shutil.copytree(made, tmp_path / "copy"))
    (output / "baselines.json").write_bytes(content.encode("latin-1"))
    arguments = command.replace("A", a, 1).split() if "A" in command else command.split()
    assert execute([*arguments, "-o", str(output)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "baselines.json: damaged baselines" in line


@pytest.fixture(scope="module")
def exported(made, tmp_path_factory) -> Path:
    """The file of a baseline of `made`."""
    path = tmp_path_factory.mktemp("exported") / "release.json"
    run = next((made / "runs").glob("shapes-*")).name
    assert execute(["baseline", "set", "release", f"{run}:fake-4", "-o", str(made)]) == 0
    assert execute(["baseline", "export", "release", "-o", str(path), "--output", str(made)]) == 0
    return path


@pytest.fixture
def policy(tmp_path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(json.dumps(POLICY))
    return path


@pytest.mark.parametrize("code", CHANGES)
def test_a_file_gives_the_verdicts_of_the_store(
    made, other, exported, policy, tmp_path, capsys, code
) -> None:
    candidate = other(CHANGES[code])
    told = []
    for baseline, output in (("release", made), (str(exported), tmp_path / "nothing")):
        command = ["gate", candidate, "--baseline", baseline, "--policy", str(policy), "-o", str(output)]
        capsys.readouterr()
        assert execute([*command, "--junit", str(tmp_path / "gate.xml")]) == code
        told.append((capsys.readouterr(), (tmp_path / "gate.xml").read_bytes()))
    assert told[0] == told[1]
    assert not (tmp_path / "nothing").exists()


def test_everything_that_a_comparison_says_is_the_same(made, a, exported) -> None:
    run = a.rpartition(":")[0]
    found = [
        sana_bench.compare(side, f"{run}:fake-2", output=made).to_dict() for side in ("release", exported)
    ]
    assert found[0]["flips"]
    for one in found:
        for flip in one["flips"]:
            # The images are where they were made.
            flip["image_a"] = flip["image_a"].rpartition("/images/")[2]
    assert found[0] == found[1]
    assert {row["metric"] for row in found[0]["metrics"] if row["effect"]} == {"redness", "spread"}


def test_times_of_the_latency_benchmark_are_in_it(tmp_path) -> None:
    """Measured, stored and compared as those of a store; both sides are one run, so nothing differs."""
    run = sana_bench.run(
        "latency", tier="micro", variants=["sana-micro"], output=tmp_path / "results", quiet=True,
        set={"benchmarks.0.images_per_prompt": 4, "benchmarks.0.metrics": ["latency"],
             "variants.sana-micro.sampler.steps": 1},
    )  # fmt: skip
    (variant, *_) = run.variants
    path = tmp_path / "fast.json"
    name, lacking = sana_bench.export_baseline(f"{run.name}:{variant}", path, output=tmp_path / "results")
    assert (name, lacking) == (f"{run.name}:{variant}", [])
    result = sana_bench.gate((run, variant), baseline=path)
    row = next(check.row for check in result.checks if check.name == "latency/latency")
    assert (row.verdict, row.effect.difference) == ("no evidence", 0)
    assert row == next(
        check.row
        for check in sana_bench.gate((run, variant), baseline=(run, variant)).checks
        if check.name == "latency/latency"
    )


def test_a_baseline_is_replaced_and_another_file_is_not(made, exported, tmp_path, capsys) -> None:
    command = ["baseline", "export", "release", "--output", str(made), "-o"]
    before = exported.read_bytes()
    assert execute([*command, str(exported)]) == 0
    assert exported.read_bytes() == before
    taken = tmp_path / "prompts.csv"
    taken.write_text("prompt\na cat\n")
    capsys.readouterr()
    assert execute([*command, str(taken)]) == 2
    assert one_line(capsys).endswith("prompts.csv: is there already, and is no baseline")
    assert taken.read_text() == "prompt\na cat\n"


def test_an_incomplete_variant_is_no_baseline(other, tmp_path, capsys) -> None:
    candidate = other(CHANGES[3])
    path = tmp_path / "short.json"
    assert execute(["baseline", "export", candidate, "-o", str(path)]) == 3
    assert one_line(capsys).endswith("shapes has 20/24 images; a baseline is complete")
    assert not path.exists()


def test_lost_features_are_told_and_the_rest_is_exported(other, tmp_path, capsys) -> None:
    candidate = other("DELETE FROM features")
    path = tmp_path / "rest.json"
    assert execute(["baseline", "export", candidate, "-o", str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "shapes/spread cannot be compared: features missing"
    rows = {row.metric: row for row in sana_bench.compare(path, candidate).metrics}
    assert rows["redness"].verdict == "no evidence"
    assert (rows["spread"].verdict, rows["spread"].reason) == ("not measured", "features missing")


def signed(data: dict) -> str:
    """The text of a file that says it is as it was written."""
    data = {key: value for key, value in data.items() if key != "sha256"}
    try:
        return json.dumps({**data, "sha256": fingerprint(data)})
    except ValueError:
        return json.dumps({**data, "sha256": ""})


def put(*keys, value):
    def changed(data: dict) -> str:
        place = data
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value
        return signed(data)

    return changed


def floats(*values: float) -> str:
    import numpy as np

    return base64.b64encode(np.array(values, "<f4").tobytes()).decode()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (lambda data: json.dumps(data)[:-100], "no baseline; sana-bench baseline export makes one"),
        (lambda data: "", "no baseline"),
        (lambda data: "[" * 100_000, "no baseline"),
        (lambda data: '{"kind": "sana-bench baseline", "x": ' + "[" * 900 + "]" * 900 + "}", "damaged baseline"),
        (lambda data: '{"kind": "sana-bench export"}', "no baseline"),
        (lambda data: json.dumps(data).replace('"value": ', '"value": 1', 1), "it is not as it was written"),
        (put("version", value=2), "baseline version 2 is newer than this sana-bench, which reads up to 1"),
        (put("seed", value=math.nan), "it is not as it was written"),
        (put("seed", value="a"), "seed is 'a'"),
        (put("images", 0, "scores", "redness", "value", value=math.inf), "it is not as it was written"),
        (put("images", 0, "scores", "redness", "value", value=1e300), "must be at most 1e+30"),
        (put("images", 0, "scores", "redness", "value", value="9"), "images.0.scores.redness.value is '9', must be a number"),
        (put("images", 0, "index", value=-1), "images.0.index is -1, must be at least 0"),
        (put("images", 0, "index", value=4), "image 00000/4 of shapes is none that a benchmark asks for"),
        (put("images", 0, "prompt", value="x"), "image x/0 of shapes is none that a benchmark asks for"),
        (put("images", 0, "index", value=1), "an image is in it twice"),
        (put("images", 0, "seconds", value=0), "images.0.seconds is 0, must be greater than 0"),
        (put("images", 0, "scores", "latency", value={"value": -1}), "has a time that is none"),
        (put("images", 0, "more", value=1), "unknown key 'images.0.more'"),
        (put("prompts", 0, "text", value="\ud800"), "it is not as it was written"),
        (put("prompts", 0, "id", value="../x"), "prompt '../x' is not one of a benchmark"),
        (put("prompts", 0, "benchmark", value="x"), "prompt '00000' is not one of a benchmark"),
        (put("run", value="../../x"), "'../../x' is no name"),
        (put("variant", "name", value="\x1b[2J"), "is no name"),
        (put("numbers", 0, "metric", value="other"), "the number other is of nothing that is in it"),
        (put("metrics", 0, "identity", value={}), "is of nothing that is in it"),
        (put("evidence", 0, "features", value="!"), "features of spread that are not 24 images'"),
        (put("evidence", 0, "width", value=5), "features of spread that are not 24 images'"),
        (put("evidence", 0, "features", value=floats(*[math.nan] * 96)), "features of spread that are not finite"),
        (put("benchmarks", value=None), "benchmarks is None, must be a list"),
    ],
)  # fmt: skip
def test_a_hostile_or_damaged_file_is_one_line(exported, a, made, tmp_path, capsys, content, told) -> None:
    path = tmp_path / "hostile.json"
    path.write_text(content(json.loads(exported.read_text())), encoding="utf-8", errors="surrogatepass")
    assert execute(["gate", a, "--baseline", str(path), "-o", str(made)]) == 2
    line = one_line(capsys)
    assert line.startswith(f"sana-bench: {path}: ")
    assert told in line


def leaves(value, place=()):
    """The places of all values, of lists those of the first entry alone."""
    yield place
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    )
    for key, entry in entries:
        yield from leaves(entry, (*place, key))


def answer(path: Path, made: Path, candidate, policy: Policy) -> int | None:
    """The exit code of a gate against a file, None where the file is refused."""
    try:
        baseline = resolve(made, str(path))
    except UsageError:
        return None
    code = evaluate(baseline, candidate, policy).exit_code
    assert code in (0, 4, 5)
    return code


def test_whatever_a_value_is_replaced_by_the_answer_is_a_verdict_or_one_line(
    exported, a, made, tmp_path
) -> None:
    data = json.loads(exported.read_text())
    candidate, policy = resolve(made, a), Policy.model_validate(POLICY)
    path, refused = tmp_path / "changed.json", 0
    places = [place for place in leaves(data) if place and place[0] not in ("sha256", "provenance")]
    assert len(places) > 80
    for number, place in enumerate(places):
        for value in (None, -1, 1e29, "x", [], {}, [[]])[number % 2 :: 2]:
            path.write_text(put(*place, value=value)(copy.deepcopy(data)))
            refused += answer(path, made, candidate, policy) is None
    assert refused > len(places)


def test_no_gate_fails_by_times_that_were_not_taken_in_turns(made, other, exported) -> None:
    """Not even by the default policy's rule for latency when the machine was a hundred times slower."""
    slow = other("UPDATE images SET seconds = seconds * 100")
    latency = load_policy().metrics["latency"].model_dump()
    rules = {**POLICY, "metrics": {**RULES, "latency": latency}}
    for baseline in ("release", str(exported)):
        result = evaluate(resolve(made, baseline), resolve(made, slow), Policy.model_validate(rules))
        assert result.exit_code == 0
        (latency,) = [check for check in result.checks if check.name == "latency"]
        assert latency.status == "not measured"
        assert latency.message.startswith("these times were not taken in turns")
