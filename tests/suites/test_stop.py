"""When a run may stop: what the command line and the suite say together, and what is asked about."""

import pytest

from sana_bench.core.errors import SuiteError, UsageError
from sana_bench.suites.load import check_suite_file
from sana_bench.suites.stop import StopRequest, StopSpec, chosen_question
from tests import suite_files

TWO = ("a", "b")
GENEVAL = {"geneval": ("geneval", "clip_score", "fid")}


def asked(request: StopRequest, own: StopSpec | None = None, variants=TWO) -> dict[str, object] | None:
    stop = request.applied(own, variants)
    return None if stop is None else stop.model_dump(exclude_unset=True)


def test_nothing_said_is_the_whole_suite() -> None:
    assert asked(StopRequest()) is None
    assert asked(StopRequest("all"), StopSpec(compare=TWO)) is None


def test_the_command_line_goes_before_the_suite() -> None:
    own = StopSpec(compare=("c", "d"), metric="geneval", effect=0.1)
    assert asked(StopRequest(), own) == {"compare": ("c", "d"), "metric": "geneval", "effect": 0.1}
    assert asked(StopRequest(effect=0.2), own) == {"compare": ("c", "d"), "metric": "geneval", "effect": 0.2}
    assert asked(StopRequest("decided", TWO), own) == {"compare": TWO, "metric": "geneval", "effect": 0.1}
    assert asked(StopRequest("width=0.1"), own) == {"width": 0.1, "metric": "geneval", "effect": 0.1}
    narrow = StopSpec(width=0.1, benchmark="geneval")
    assert asked(StopRequest("decided"), narrow) == {"compare": TWO, "benchmark": "geneval"}


def test_of_two_variants_the_second_is_held_against_the_first() -> None:
    assert asked(StopRequest("decided", error=0.01)) == {"compare": TWO, "error": 0.01}


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (StopRequest("soon"), "--until soon: one of decided, width=NUMBER, all"),
        (StopRequest("width=wide"), "--until width=wide: expected a number, such as --until width=0.02"),
        (StopRequest("width=0"), "--width: input should be greater than 0"),
        (StopRequest("decided", effect=0), "--effect: input should be greater than 0"),
        (StopRequest("decided", error=1.0), "--error: input should be less than 1"),
        (StopRequest("decided", ("a", "a")), "--until: compare takes two different variants"),
        (StopRequest("decided", ("a",)), "--compare"),
        (StopRequest("all", effect=0.1), "--effect belongs to --until decided"),
        (StopRequest(error=0.1), "--error belongs to --until decided"),
        (StopRequest("width=0.1", TWO), "--until: give either compare, two variants, or width"),
    ],
)
def test_what_does_not_go_together_is_one_line(request_, message) -> None:
    with pytest.raises(UsageError) as caught:
        request_.applied(None, TWO)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_three_variants_need_to_be_named() -> None:
    with pytest.raises(UsageError, match="--compare A,B says which two of a, b, c"):
        StopRequest("decided").applied(None, ("a", "b", "c"))


def test_the_first_metric_that_can_stop_a_run_is_asked_about() -> None:
    stop = StopSpec(compare=TWO)
    assert chosen_question(stop, GENEVAL) == ("geneval", "geneval")
    assert chosen_question(stop, {"g": ("fid", "clip_score"), "latency": ("latency",)}) == ("g", "clip_score")
    assert chosen_question(StopSpec(compare=TWO, metric="clip_score"), GENEVAL) == ("geneval", "clip_score")
    two = {**GENEVAL, "dpg_bench": ("dpg",)}
    assert chosen_question(StopSpec(compare=TWO, benchmark="dpg_bench"), two) == ("dpg_bench", "dpg")
    assert chosen_question(StopSpec(compare=TWO, metric="dpg"), two) == ("dpg_bench", "dpg")


@pytest.mark.parametrize(
    ("more", "benchmarks", "message"),
    [
        ({"metric": "fid"}, GENEVAL, "fid judges a set of images as a whole and has no difference by prompt"),
        ({"metric": "kid"}, GENEVAL, "it is measured once all images are there"),
        (
            {"metric": "vendi"},
            {"a": ("clip_score", "vendi")},
            "vendi judges a set of images as a whole and has no difference by prompt, so it cannot stop a run",
        ),
        (
            {"metric": "oneig_diversity"},
            {"a": ("oneig_diversity",)},
            "oneig_diversity holds the images of a prompt against each other and has no score for an image",
        ),
        (
            {"metric": "image_reward"},
            {"a": ("image_reward",)},
            "image_reward is no mean over prompts of scores with limits",
        ),
        ({"metric": "mine"}, {"a": ("mine",)}, "mine is no mean over prompts of scores with limits"),
        ({"metric": "latency"}, GENEVAL, "latency is measured while images are made"),
        ({"metric": "genval"}, GENEVAL, "no metric 'genval' (did you mean 'geneval'?)"),
        ({"benchmark": "genval"}, GENEVAL, "no benchmark 'genval' (did you mean 'geneval'?)"),
        ({}, {"mjhq30k": ("fid",)}, "no metric that can stop a run; the suite has fid"),
        ({}, {**GENEVAL, "dpg_bench": ("dpg",)}, "say which benchmark: geneval, dpg_bench"),
    ],
)
def test_what_cannot_be_asked_about_is_one_line(more, benchmarks, message) -> None:
    with pytest.raises(SuiteError) as caught:
        chosen_question(StopSpec(compare=TWO, **more), benchmarks)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("stop", "message"),
    [
        ("{compare: [a, b], metric: fid}", "fid judges a set of images as a whole"),
        ("{compare: [a, c]}", "the suite has no variant 'c'"),
        ("{compare: [a]}", "'stop.compare.1' is missing"),
        ("{compare: [a, b], width: 0.1}", "give either compare, two variants, or width"),
        ("{}", "give either compare, two variants, or width"),
        ("{compare: [a, b], efect: 0.1}", "unknown key 'stop.efect' (did you mean 'effect'?)"),
        ("{compare: [a, b], error: 2}", "stop.error is 2"),
        ("{compare: [a, b], effect: .nan}", "stop.effect"),
    ],
)
def test_a_wrong_stop_is_told_with_its_line(tmp_path, stop, message) -> None:
    path = suite_files.write_suite(tmp_path, suite_files.GENEVAL_ALONE, TWO, tier="micro")
    text = path.read_text()
    if "fid" in stop:
        text = text.replace("[geneval]", "[geneval, fid]")
    path.write_text(f"{text}stop: {stop}\n")
    with pytest.raises(SuiteError) as caught:
        check_suite_file(path)
    assert message in str(caught.value)
    assert f"{path}:" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_right_stop_is_read(tmp_path) -> None:
    path = suite_files.write_suite(tmp_path, suite_files.GENEVAL_ALONE, TWO, tier="micro")
    path.write_text(
        f"{path.read_text()}stop: {{compare: [a, b], metric: geneval, effect: 0.02, error: 0.05}}\n"
    )
    check_suite_file(path)
