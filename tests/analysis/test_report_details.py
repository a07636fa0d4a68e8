"""From the details of stored scores to the samples of a report."""

import pytest

from sana_bench.analysis.report import build_report_data
from sana_bench.metrics.base import ScoreRow
from sana_bench.results.reader import read_run
from sana_bench.results.run_folder import RunFiles, open_store
from tests.runner import fakes


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
