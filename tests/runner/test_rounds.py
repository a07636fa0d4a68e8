"""Runs that stop when a question is answered: what they make, what they leave, and that going on loses nothing."""

import json

import pytest

from sana_bench.analysis.leaderboard import collect_leaderboard
from sana_bench.cli.main import execute
from sana_bench.core.errors import SuiteError, UsageError
from sana_bench.results.reader import load_run
from sana_bench.results.store import Store
from sana_bench.runner.rounds import round_order
from sana_bench.suites.stop import StopRequest
from tests.runner import numbers_of_runs as numbers
from tests.runner.dice import IMAGES, PER_TAG, TAGS, Dice, Many, N


def test_a_large_difference_stops_the_run_early(many, capsys) -> None:
    assert many.run() == 0
    found = many.sequence()
    assert found.last.verdict == "better"
    assert (found.last.variant, found.last.against) == ("good", "poor")
    assert many.images() == 2 * found.last.n_images < 0.5 * 2 * N
    assert found.last.low <= 0.5 <= found.last.high
    assert len(found.looks) > 1
    lines = capsys.readouterr().out.splitlines()
    assert f"look 1: 24 of {N} images of each, luck " in "\n".join(lines)
    assert any(line.startswith("good is better than poor: luck +0.") for line in lines)
    assert "stopped early: --until all goes on to the whole suite; spread is left for it;" in "\n".join(lines)
    (session,) = numbers.sessions(many.output)
    assert (session["state"], session["images_generated"]) == ("done", 2 * found.last.n_images)


def test_it_is_typed(many, capsys) -> None:
    where = ["--tier", "micro", "--output", str(many.output)]
    asked = ["--until", "decided", "--compare", "poor,good", "--effect", "0.05", "--error", "0.1"]
    assert execute(["run", str(many.suite), *asked, *where]) == 0
    out = capsys.readouterr().out
    assert "good is better than poor" in out
    assert "stopped early: --until all goes on to the whole suite" in out
    found = many.sequence().last
    assert (found.effect, found.error) == (0.05, 0.1)
    assert execute(["run", str(many.suite), "--until", "decided", "--set", "stop.metric=spread", *where]) == 2
    assert "stop" in capsys.readouterr().err


def test_what_was_stopped_early_is_no_number_of_the_suite(many, capsys) -> None:
    many.run()
    assert numbers.summaries(many.output) == []
    (provenance,) = many.output.glob("runs/*/provenance.json")
    assert json.loads(provenance.read_text())["protocols"] == {"luck": "luck/test@1"}
    run = load_run(many.output, "many")
    assert not run.complete
    (reason,) = run.variant("good").reasons["many"]
    assert "images, stopped early: good is better than poor" in reason
    board = collect_leaderboard(many.output)
    assert board.tables == []
    assert {row.variant for row in board.incomplete} == {"poor", "fair", "good"}
    assert "stopped early" in " ".join(reason for row in board.incomplete for reason in row.reasons)
    capsys.readouterr()
    assert execute(["compare", "poor", "good", "--run", "many", "--output", str(many.output)]) == 5
    assert "stopped early: good is better than poor" in " ".join(capsys.readouterr().out.split())


def test_the_report_shows_the_looks_and_later_the_whole_suite_beside_them(many) -> None:
    many.run()
    last = many.sequence().last
    for stop in (None, StopRequest()):
        if stop is not None:
            many.run(stop)
        (page,) = many.output.glob("runs/*/report/report.html")
        text = page.read_text()
        assert f"better after {last.n_images} of {N} images" in text
        assert 'class="sequence v' in text
        numbers_of_the_suite = page.with_suffix(".md").read_text().count(f"n={N} ({N // IMAGES})")
        assert numbers_of_the_suite == (0 if stop is None else 4), "two metrics of two variants"


def test_the_whole_suite_later_reuses_every_image_and_keeps_the_sequence(many, capsys) -> None:
    many.run()
    before, looks = numbers.image_bytes(many.output), many.sequence().looks
    assert many.run(StopRequest()) == 0
    assert numbers.sessions(many.output)[1]["images_generated"] == 2 * N - len(before)
    after = numbers.image_bytes(many.output)
    assert {path: after[path] for path in before} == before
    assert many.sequence().looks == looks
    assert all(row.complete for row in numbers.summaries(many.output))
    assert load_run(many.output, "many").variant("good").complete
    full = [(row.variant, row.metric, row.value) for row in numbers.summaries(many.output)]
    # Looking again at images that are there makes none, and changes no number of the suite.
    made = len(Dice.made)
    assert many.run() == 0
    assert len(Dice.made) == made
    assert numbers.sessions(many.output)[2]["images_reused"] == 2 * looks[-1].n_images
    assert many.sequence().looks == looks
    assert [(row.variant, row.metric, row.value) for row in numbers.summaries(many.output)] == full
    assert "stopped early: --until all" not in capsys.readouterr().out.rpartition("tier:")[2]


def test_without_a_difference_all_prompts_are_used_and_the_suite_is_complete(many, capsys) -> None:
    path = many.suite.parent / "variants" / "good.yaml"
    path.write_text(path.read_text().replace("guidance_scale: 8.0", "guidance_scale: 3.2"))
    assert many.run() == 0
    found = many.sequence()
    assert found.last.verdict == "all prompts used"
    assert not found.answered
    assert many.images() == 2 * N
    assert all(row.complete for row in numbers.summaries(many.output))
    out = capsys.readouterr().out
    assert "no verdict on good against poor (all prompts used)" in out
    assert "stopped early" not in out


@pytest.mark.parametrize("stop_after", [1, 30, 70])
def test_an_interrupted_run_goes_on_and_ends_as_one_that_was_not(
    many, tmp_path, monkeypatch, stop_after
) -> None:
    monkeypatch.setattr(Dice, "stop_after", stop_after)
    assert many.run(batch_size=8) == 3
    assert numbers.sessions(many.output)[0]["state"] == "interrupted"
    monkeypatch.setattr(Dice, "stop_after", None)
    assert many.run(batch_size=8) == 0
    sessions = numbers.sessions(many.output)
    assert sum(session["images_generated"] for session in sessions) == many.images()
    found = many.sequence().looks
    many.output = tmp_path / "again"
    assert many.run(batch_size=5) == 0
    assert many.sequence().looks == found


def test_rounds_go_on_from_images_that_are_there(many) -> None:
    """A limited run made other images first: they are used when their turn comes, and not before."""
    assert many.run(StopRequest(), limit=40) == 3
    first = set(numbers.image_bytes(many.output))
    assert len(first) == 80
    assert many.run() == 0
    found = many.sequence()
    assert first <= set(numbers.image_bytes(many.output))
    many.output = many.output.with_name("fresh")
    assert many.run() == 0
    assert many.sequence().looks == found.looks


def test_an_interval_of_one_variant(many, capsys) -> None:
    assert many.run(StopRequest("width=0.5"), variants=("fair",)) == 0
    found = many.sequence()
    assert found.last.verdict == "narrow enough"
    assert found.last.high - found.last.low <= 0.5
    assert (found.last.variant, found.last.against, found.last.effect) == ("fair", None, None)
    assert found.last.low <= 0.5 <= found.last.high
    assert many.images() == found.last.n_images < N
    assert "fair: luck 0." in capsys.readouterr().out


def test_each_of_several_variants_has_an_interval_of_its_own(many) -> None:
    """One is narrow soon, the other never: only the second is made whole."""
    assert many.run(StopRequest("width=0.42"), variants=("fair", "good")) == 0
    run = load_run(many.output, "many")
    assert {one.last.variant: one.answered for one in run.sequences}["good"]
    recorded = {name: len(variant.recorded["many"]) for name, variant in run.variants.items()}
    assert recorded["good"] < N
    assert recorded["poor"] == 0


def test_a_round_that_cannot_be_made_ends_the_run_as_incomplete(many, monkeypatch, capsys) -> None:
    monkeypatch.setattr(Dice, "failing", "stars number 1")
    assert many.run() == 3
    out = capsys.readouterr().out
    assert "no further round: many / poor stars-1" in out
    assert "incomplete: many / poor and good: the images of a round are not all there" in out
    assert numbers.sessions(many.output)[0]["state"] == "incomplete"
    assert many.images() < 2 * N
    monkeypatch.setattr(Dice, "failing", None)
    assert many.run() == 0
    assert many.sequence().last.verdict == "better"


def test_other_settings_are_another_sequence(many) -> None:
    many.run()
    many.run(StopRequest("decided", effect=0.1))
    many.run(StopRequest("decided", ("good", "poor")))
    found = load_run(many.output, "many").sequences
    assert {(one.last.effect, one.last.verdict) for one in found} == {
        (0.02, "better"),
        (0.1, "better"),
        (0.02, "worse"),
    }
    mirrored = {one.last.variant: one.last for one in found if one.last.effect == 0.02}
    assert mirrored["good"].low == -mirrored["poor"].high


@pytest.mark.parametrize("format_", ["parquet", "csv", "json"])
def test_a_sequence_goes_out_and_comes_back(many, tmp_path, format_) -> None:
    many.run()
    looks, exported, new = many.sequence().looks, tmp_path / "exported", tmp_path / "new"
    out = ["export", "--all", "--format", format_, "--to", str(exported), "--output", str(many.output)]
    assert execute(out) == 0
    assert execute(["import", str(exported), "--output", str(new)]) == 0
    assert execute(["import", str(exported), "--output", str(new)]) == 0
    (found,) = load_run(new, "many").sequences
    assert found.looks == looks
    samples = load_run(new, "many").variant("good").samples
    assert len(samples) == looks[-1].n_images
    assert all("luck" in sample.scores for sample in samples), "scores without a summary come along"


def test_an_export_from_before_there_were_sequences_is_read(many, tmp_path) -> None:
    assert many.run(StopRequest()) == 0
    exported = tmp_path / "exported"
    out = ["export", "--all", "--format", "json", "--to", str(exported), "--output", str(many.output)]
    assert execute(out) == 0
    manifest = json.loads((exported / "manifest.json").read_text())
    del manifest["tables"]["sequences"]
    (exported / "manifest.json").write_text(json.dumps(manifest))
    (exported / "sequences.json").unlink()
    assert execute(["import", str(exported), "--output", str(tmp_path / "new")]) == 0
    assert load_run(tmp_path / "new", "many").sequences == []


def test_a_sequence_that_contradicts_the_store_is_refused(many, tmp_path, capsys) -> None:
    many.run()
    new = tmp_path / "new"
    assert execute(["import", str(many.output), "--output", str(new)]) == 0
    with Store.open(new) as store, store.transaction() as connection:
        connection.execute("UPDATE sequences SET low = 0.5 WHERE look = 0")
    assert execute(["import", str(many.output), "--output", str(new)]) == 5
    assert "look 0 of luck of good has another low there" in capsys.readouterr().err


def test_the_order_is_of_the_seed_and_spread_over_tasks() -> None:
    prompts = Many().prompts("micro")
    order = round_order(prompts, "many", 0, by_task=True)
    assert list(order) == sorted(TAGS)
    assert all(len(found) == PER_TAG for found in order.values())
    assert round_order(prompts[::-1], "many", 0, by_task=True) == order
    assert round_order(prompts, "many", 1, by_task=True) != order
    assert [prompt.id for prompt in order["stars"]] != sorted(prompt.id for prompt in order["stars"])
    (together,) = round_order(prompts, "many", 0, by_task=False).values()
    assert len(together) == 3 * PER_TAG


def test_prompts_that_the_metric_does_not_score_are_no_part_of_the_question(many) -> None:
    """`partly` scores circles and squares alone."""
    many.suite.write_text(many.suite.read_text().replace("[luck, spread]", "[partly, spread]"))
    assert many.run() == 0
    found = many.sequence().last
    assert found.metric == "partly"
    assert set(found.tasks) == {"circles", "squares"}
    assert found.n_expected == 2 * N // 3
    assert not any("stars" in path for path in numbers.image_bytes(many.output))


def test_the_suite_may_ask_by_itself(many) -> None:
    text = many.suite.read_text()
    many.suite.write_text(f"{text}stop: {{compare: [poor, good], metric: luck, effect: 0.05, error: 0.1}}\n")
    assert many.run(StopRequest(), variants=None) == 0
    found = many.sequence()
    assert (found.last.effect, found.last.error) == (0.05, 0.1)
    assert many.images() == 2 * found.last.n_images
    assert many.run(StopRequest("all"), variants=None) == 0
    assert many.images() == 3 * N
    assert len(numbers.run_ids(many.output)) == 1, "when a run stops is no part of what it is"


@pytest.mark.parametrize(
    ("stop", "options", "message"),
    [
        (StopRequest("decided"), {"variants": None}, "--compare A,B says which two of poor, fair, good"),
        (StopRequest("decided", ("poor", "god")), {}, "no micro variant 'god'.*'good'"),
        (
            StopRequest("decided", ("poor", "fair")),
            {},
            "fair is to be compared, and --variants leaves it out",
        ),
        (StopRequest("decided"), {"limit": 5}, "--limit takes images away"),
        (StopRequest("decided"), {"allow_incomplete": True}, "--allow-incomplete takes images away"),
        (StopRequest(compare=("poor", "good")), {}, "--compare belongs to --until decided"),
    ],
)
def test_wrong_use_is_one_line_and_writes_nothing(many, stop, options, message) -> None:
    with pytest.raises((UsageError, SuiteError), match=message):
        many.run(stop, **options)
    assert not many.output.exists()


def test_a_score_without_limits_cannot_stop_a_run(many) -> None:
    many.suite.write_text(many.suite.read_text().replace("[luck, spread]", "[free]"))
    with pytest.raises(SuiteError, match="no metric that can stop a run; the suite has free"):
        many.run()
    many.suite.write_text(f"{many.suite.read_text()}stop: {{compare: [poor, good], metric: free}}\n")
    with pytest.raises(SuiteError, match="free is no mean over prompts of scores with limits"):
        many.run(StopRequest())
    assert not many.output.exists()
