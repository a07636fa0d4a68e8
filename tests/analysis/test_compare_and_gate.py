import json
import re
import shlex
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sana_bench.analysis.baselines import resolve
from sana_bench.analysis.compare import about, compare_variants, configuration_difference
from sana_bench.analysis.comparison import Comparison
from sana_bench.analysis.gate import Check, GateResult, evaluate, junit_xml, markdown
from sana_bench.analysis.policy import Policy
from sana_bench.cli.main import execute
from sana_bench.results.reader import RunResults, VariantResults, load_run
from tests import ROOT
from tests.runner import fakes

DOCS = ROOT / "docs" / "regression.md"
Selected = tuple[RunResults, VariantResults]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("world")
    with fakes.installed():
        world = fakes.World(folder)
        assert world.run() == 0
        yield world.output


@pytest.fixture
def run(output: Path) -> str:
    return next((output / "runs").iterdir()).name


@pytest.fixture
def sides(output: Path, run: str) -> tuple[Selected, Selected]:
    return resolve(output, f"{run}:fake-4"), resolve(output, f"{run}:fake-2")


def shifted(side: Selected, by: float) -> Selected:
    """The same results with every redness moved."""
    samples = [
        replace(s, scores={"redness": replace(s.scores["redness"], value=s.scores["redness"].value + by)})
        for s in side[1].samples
    ]
    return side[0], replace(side[1], samples=samples)


def of_one_prompt(side: Selected) -> Selected:
    """The results on the first prompt alone, complete by count."""
    samples = [s for s in side[1].samples if s.prompt.id == side[1].samples[0].prompt.id]
    summaries = [replace(s, n_samples=len(samples)) for s in side[1].summaries]
    return side[0], replace(side[1], samples=samples, summaries=summaries)


def row(comparison: Comparison, metric: str = "redness"):
    return next(r for r in comparison.metrics if r.metric == metric and r.key == "overall")


def policy(**rule: object) -> Policy:
    return Policy.model_validate({"schema_version": 1, "metrics": {"redness": {"worse_by": 10, **rule}}})


def test_a_run_is_read_whole(output: Path, run: str) -> None:
    loaded = load_run(output, run)
    assert loaded.complete
    assert set(loaded.variants) == {"fake-4", "fake-2"}
    assert len(loaded.variants["fake-4"].samples) == 24
    assert all(sample.sample.image_path.is_file() for sample in loaded.variants["fake-4"].samples)


# Six prompts moved alike: the sign-flip test counts 2 of 64 patterns, p = 0.031.
@pytest.mark.parametrize(("by", "verdict"), [(20, "better"), (-20, "worse"), (0, "no evidence")])
def test_verdicts(sides: tuple[Selected, Selected], by: float, verdict: str) -> None:
    assert row(compare_variants(sides[0], shifted(sides[0], by))).verdict == verdict


def test_a_metric_of_sets_without_reference_is_not_measured(sides: tuple[Selected, Selected]) -> None:
    found = row(compare_variants(*sides), "spread")
    assert (found.verdict, found.reason) == ("not measured", "reference statistics missing")


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"protocol": "x@2"}, "different protocols"), ({"metric_key": "0"}, "different metric identities"),
     ({"complete": False}, "incomplete")],
)  # fmt: skip
def test_summaries_that_differ_in_kind(sides: tuple[Selected, Selected], change: dict, reason: str) -> None:
    (a, first), b = sides
    changed = replace(first, summaries=[replace(s, **change) for s in first.summaries])
    found = row(compare_variants((a, changed), b))
    assert found.verdict == "not comparable"
    assert reason in found.reason


@pytest.mark.parametrize(
    ("change", "reason"), [({"tier": "full"}, "different tiers"), ({"seed": 9}, "not paired by seed")]
)
def test_runs_that_differ_in_kind(sides: tuple[Selected, Selected], change: dict, reason: str) -> None:
    (a, first), b = sides
    found = row(compare_variants((replace(a, suite=replace(a.suite, **change)), first), b))
    assert found.verdict == "not comparable"
    assert reason in found.reason


def test_latency_of_another_device_is_not_compared(sides: tuple[Selected, Selected]) -> None:
    (a, first), b = sides
    changed = replace(
        first, samples=[replace(s, image=replace(s.image, device="other")) for s in first.samples]
    )
    assert row(compare_variants((a, changed), b), "latency").reason.startswith("different device")


def test_flips_are_the_samples_whose_verdicts_differ_lost_first(sides: tuple[Selected, Selected]) -> None:
    second = {s.key: s for s in sides[1][1].samples}
    verdict = [(s.scores["redness"].details["correct"], second[s.key].scores["redness"].details["correct"])
               for s in sides[0][1].samples]  # fmt: skip
    flips = compare_variants(*sides).flips
    assert len(flips) == sum(a != b for a, b in verdict) > 0
    assert [f.lost for f in flips] == sorted((f.lost for f in flips), reverse=True)
    assert all(f.image_a.is_file() and f.image_b.is_file() for f in flips)


def test_configuration_difference_has_dotted_keys() -> None:
    assert configuration_difference({"s": {"x": 1, "y": 2}}, {"s": {"x": 3, "y": 2}}) == {"s.x": (1, 3)}


@pytest.mark.parametrize(
    ("by", "rule", "code", "status"),
    [(0, {}, 0, "pass"), (-20, {}, 4, "regression"), (-5, {}, 0, "pass"),
     (90, {"too_good_by": 50}, 4, "too good"), (90, {}, 0, "pass")],
)  # fmt: skip
def test_gate_outcomes(
    sides: tuple[Selected, Selected], by: float, rule: dict, code: int, status: str
) -> None:
    result = evaluate(sides[0], shifted(sides[0], by), policy(**rule))
    assert (result.exit_code, result.checks[0].status) == (code, status)


def test_too_few_prompts_cannot_tell(sides: tuple[Selected, Selected]) -> None:
    detectable = row(compare_variants(*sides)).detectable
    check = evaluate(*sides, policy(worse_by=detectable / 4)).checks[0]
    assert check.status == "cannot tell"
    # Six prompts show `detectable`; a quarter takes sixteen times as many, and fewer for the surer estimate of the spread.
    assert 48 < check.row.prompts_needed < 96
    assert check.message.endswith(f"already matters: about {check.row.prompts_needed} prompts would show it")


def test_a_change_out_of_reach_cannot_be_told_by_any_number_of_prompts(
    sides: tuple[Selected, Selected],
) -> None:
    result = evaluate(*sides, policy(worse_by=1e-6))
    assert (result.exit_code, result.checks[0].status) == (0, "cannot tell")
    assert result.checks[0].message.endswith("and 1e-06 already matters")


def test_a_single_prompt_shows_no_change(sides: tuple[Selected, Selected]) -> None:
    check = evaluate(*map(of_one_prompt, sides), policy()).checks[0]
    assert check.status == "cannot tell"
    assert check.message.endswith("; these prompts are too few to show any change (no interval: one prompt)")


def test_no_evidence_says_how_many_prompts_would_show_a_change_that_matters(
    sides: tuple[Selected, Selected],
) -> None:
    matters = row(compare_variants(*sides)).detectable / 10
    found = row(compare_variants(*sides, sizes={"redness": matters}))
    assert (found.verdict, found.matters) == ("no evidence", matters)
    assert found.prompts_needed > 100
    assert found.reason == f"{about(found.prompts_needed)} prompts would show a change of {matters:g}"
    easy = row(compare_variants(*sides, sizes={"redness": 10 * found.detectable}))
    assert (easy.prompts_needed, easy.reason) == (2, "")


@pytest.mark.parametrize(
    ("number", "words"), [(7, "7"), (96, "96"), (411, "420"), (1999, "2,000"), (420, "420")]
)
def test_numbers_of_prompts_are_rounded_up(number: int, words: str) -> None:
    assert about(number) == f"about {words}"


def test_gate_refuses_incomplete_and_incomparable(sides: tuple[Selected, Selected]) -> None:
    (a, first), b = sides
    short = replace(first, reasons={"shapes": ["shapes has 5/24 images"]})
    assert evaluate(b, (a, short), policy()).exit_code == 3
    assert evaluate(b, (replace(a, suite=replace(a.suite, seed=5)), first), policy()).exit_code == 5


def test_junit_and_markdown_escape() -> None:
    check = Check("<a|b>&\x00", "regression", 'x < "y"', True, None)
    result = GateResult(4, "regression", [check], None)
    root = ElementTree.fromstring(junit_xml(result))
    assert (root.get("failures"), root[0].get("name")) == ("1", "<a|b>&\\u0000")
    assert root[0][0].get("message") == 'regression: x < "y"'
    assert "&lt;a\\|b>" in markdown(result)


@pytest.mark.parametrize(
    ("command", "line"),
    [("compare fake-4 fake-3 --run RUN", "did you mean"), ("compare RUN RUN", "write RUN:VARIANT"),
     ("compare nothing x", "no such run"), ("compare baseline:x RUN:fake-4", "no baseline 'x'"),
     ("compare a b --format yaml", "--format yaml"), ("baseline remove x", "no baseline 'x'"),
     ("baseline set a/b RUN:fake-4", "a name is"), ("gate RUN:fake-4 --baseline x", "no baseline 'x'")],
)  # fmt: skip
def test_bad_input_is_one_line(
    output: Path, run: str, command: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute([*command.replace("RUN", run, 2).split(), "-o", str(output)]) == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1


def test_a_misspelt_policy_key(output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("schema_version: 1\nmetrics:\n  redness: {worse_bi: 1}\n")
    assert execute(["gate", "x", "--baseline", "y", "--policy", str(path), "-o", str(output)]) == 2
    assert "did you mean 'worse_by'" in capsys.readouterr().err


def test_compare_json(output: Path, run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["compare", "fake-4", "fake-2", "--run", run, "--format", "json", "-o", str(output)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["settings"]["sampler.steps"] == [4, 2]


def test_the_documented_commands(
    output: Path, run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```(\w+)\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    Path("policy.yaml").write_text(next(text for kind, text in blocks if kind == "yaml"))
    commands = [line for kind, text in blocks if kind == "sh" for line in text.splitlines()]
    assert len(commands) >= 6
    for command in commands:
        arguments = shlex.split(command.replace("RUN", run).replace(f"--{run}", "--run"))[1:]
        assert execute([*arguments, "--output", str(output)]) == 0, command
    assert ElementTree.parse("gate.xml").getroot().get("failures") == "0"
    assert Path("gate.md").read_text().startswith("# Regression gate: pass")
