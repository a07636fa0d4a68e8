"""How many images a question takes, by what is in a store: against known formulas, and against runs that were made."""

import re
from statistics import median

import pytest

from sana_bench.analysis.planning import design_lines, plan_design
from sana_bench.cli.main import execute
from sana_bench.core.errors import UsageError
from sana_bench.results.reader import batch_seconds, load_run
from sana_bench.results.statistics.power import cluster_differences, minimum_detectable_effect, prompts_needed
from sana_bench.suites.stop import StopRequest, StopSpec
from tests.runner import dice

WHOLE = StopRequest()


def planned(world: dice.World, **given: object):
    stop = StopSpec(**{"compare": ("poor", "good"), **given})
    return plan_design(world.output, "many", stop)


def test_a_fixed_design_is_planned_by_the_differences_of_prompts(many) -> None:
    many.run(WHOLE)
    found = planned(many, effect=0.1)
    run = load_run(many.output, "many")
    sides = [sorted(run.variant(name).samples, key=lambda one: one.key) for name in ("poor", "good")]
    differences = cluster_differences(
        *([one.scores["luck"].value for one in side] for side in sides),
        [one.prompt.id for one in sides[0]],
        [one.prompt.tag for one in sides[0]],
    )
    assert (found.seen, found.n_prompts, found.images_per_prompt) == (90, 90, dice.IMAGES)
    assert found.needed == prompts_needed(differences, 0.1)
    assert found.detectable == pytest.approx(minimum_detectable_effect(differences), rel=1e-12)
    assert found.seconds == tuple(
        median(batch_seconds(one.image for one in run.variant(name).samples)) for name in ("poor", "good")
    )


def test_rounds_are_expected_to_take_what_runs_took(many) -> None:
    """The live run stopped where nine simulated ones in ten have stopped too, and a larger difference takes fewer images."""
    many.run(WHOLE)
    large, small = planned(many, effect=0.5), planned(many, effect=0.1)
    assert large.in_rounds.images < 0.5 * dice.N < small.in_rounds.images <= dice.N
    assert large.in_rounds.decided >= 0.95
    # Three Monte-Carlo standard errors of 5 % among 400 simulated runs.
    assert small.without.decided <= 0.05 + 3 * (0.05 * 0.95 / 400) ** 0.5
    many.run()
    assert many.sequence().last.n_images <= large.in_rounds.most


def test_a_run_that_was_stopped_early_is_enough_to_plan_by(many) -> None:
    many.run()
    images = many.sequence().last.n_images
    found = planned(many)
    assert found.seen == images // dice.IMAGES
    assert found.n_prompts == 90
    assert found.effect == 0.02, "2 % of the range"


def test_it_is_typed(many, capsys) -> None:
    many.run(WHOLE)
    capsys.readouterr()
    asked = ["--compare", "poor,good", "--effect", "0.1", "--output", str(many.output)]
    assert execute(["plan", str(many.suite), *asked]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == design_lines(planned(many, effect=0.1))
    assert lines[0].startswith("many, luck: good against poor, by 90 prompts of 2 images in many-micro-")
    assert "with 80 % power, error 5 %: about " in lines[2]
    assert re.search(r"images of each variant \(about \d[^)]* (s|min) on cpu\)", lines[2])
    assert f"of {dice.N} images of each at most" in lines[3]
    assert execute(["plan", str(many.suite), *asked, "--power", "0.9", "--error", "0.1"]) == 0
    assert "with 90 % power, error 10 %" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--compare A,B says which two of poor, fair, good"),
        (["--compare", "poor,god"], "no micro variant 'god' (did you mean 'good'?)"),
        (
            ["--compare", "poor,good", "--power", "0.01"],
            "--power 0.01: must lie between the error, 0.05, and 1",
        ),
        (["--compare", "poor,good", "--effect", "0"], "--effect: input should be greater than 0"),
        (
            ["--compare", "poor,fair"],
            "no run of many has two prompts of each task with all images of poor and fair",
        ),
    ],
)
def test_wrong_use_is_one_line(many, capsys, arguments, message) -> None:
    many.run()
    capsys.readouterr()
    assert execute(["plan", str(many.suite), *arguments, "--output", str(many.output)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_metric_that_no_sequence_can_be_made_of_is_refused(many) -> None:
    many.run(WHOLE)
    with pytest.raises(UsageError, match="spread is no mean over prompts"):
        planned(many, metric="spread")
