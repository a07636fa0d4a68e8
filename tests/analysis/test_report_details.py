"""From stored scores to the samples and the verdicts of a report."""

import re

import pytest

from sana_bench.analysis.compare import compare_with_first
from sana_bench.analysis.report import build_report_data, write_run_report
from sana_bench.core.samples import OVERALL
from sana_bench.metrics.base import ScoreRow
from sana_bench.results.reader import read_run
from sana_bench.results.run_folder import RunFiles, open_store
from sana_reports import Gain
from sana_reports.labels import format_gain
from tests.runner import fakes

SAID = {"better": "is better", "worse": "is worse", "no evidence": "no evidence of a difference"}


def test_answers_and_rewards_of_scores_are_shown(world, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = fakes.Redness.score

    def score(self, samples):
        answers = [{"question": "Is it red?", "answer": "no", "score": 0.0}]
        return [
            ScoreRow(
                row.sample_id,
                row.prompt_id,
                row.tag,
                row.value,
                row.details | {"answers": answers, "reward": 0.25},
            )
            for row in plain(self, samples)
        ]

    monkeypatch.setattr(fakes.Redness, "score", score)
    world.run()
    (directory,) = (world.output / "runs").iterdir()
    with open_store(world.output) as store:
        data = build_report_data(store, read_run(store, RunFiles(directory)))
    assert data.samples
    for sample in data.samples:
        assert sample.answers == [{"question": "Is it red?", "answer": "no", "score": 0.0}]
        assert sample.rewards == {"redness": 0.25}
    page = (directory / "report" / "report.html").read_text(encoding="utf-8")
    assert '"answers":[["Is it red?","no",0.0]]' in page
    assert '"rewards":{"redness":0.25}' in page


def test_the_verdicts_of_a_report_are_those_of_compare(world) -> None:
    world.run()
    (directory,) = (world.output / "runs").iterdir()
    with open_store(world.output) as store:
        run = read_run(store, RunFiles(directory))
        text, paths = write_run_report(store, RunFiles(directory))
    (comparison,) = compare_with_first(run)
    first, second = run.variants
    row = next(row for row in comparison.metrics if (row.metric, row.key) == ("redness", OVERALL))
    gain = Gain(over=first, difference=row.effect.difference, low=row.effect.low, high=row.effect.high)
    (line,) = (line for line in text.splitlines() if line.startswith("redness "))
    assert re.split(" {2,}", line)[1:] == [second, f"{SAID[row.verdict]}: {format_gain(gain, '')}"]
    assert f"Compared with {first}, prompt by prompt" in text.splitlines()
    assert f"Compared with {first}, prompt by prompt" in paths.html.read_text(encoding="utf-8")


def test_one_variant_is_compared_with_nothing(world) -> None:
    world.run(overrides=("variants.micro=[fake-4]",))
    (directory,) = (world.output / "runs").iterdir()
    with open_store(world.output) as store:
        assert "Compared with" not in write_run_report(store, RunFiles(directory))[0]
