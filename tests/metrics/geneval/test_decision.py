"""GenEval's decision logic: the stored official decisions, and small cases that say what each rule means."""

import gzip
import json
import random

import pytest

from sana_bench.metrics.geneval.decision import decide, relations
from tests import SHARED

OFFICIAL_CASES = SHARED / "data/geneval/decision_cases.jsonl.gz"


def found(label, score, box=(0, 0, 10, 10), color="red"):
    return {"label": label, "score": score, "box": list(box), "color": color}


def asks(tag, *include, exclude=()):
    record = {"tag": tag, "include": list(include), "prompt": "a photo"}
    return record | ({"exclude": list(exclude)} if exclude else {})


CAT = {"class": "cat", "count": 1}
DOG = {"class": "dog", "count": 1}


@pytest.mark.parametrize("order", ["as stored", "shuffled"])
def test_agrees_with_every_official_decision(order):
    if not OFFICIAL_CASES.exists():
        pytest.skip(f"the official decisions are not at {OFFICIAL_CASES}")
    with gzip.open(OFFICIAL_CASES, "rt") as lines:
        cases = [json.loads(line) for line in lines]
    assert len(cases) == 600
    shuffler = random.Random(7)
    for case in cases:
        detections = list(case["detections"])
        if order == "shuffled":  # legitimate because all scores of a case are distinct
            shuffler.shuffle(detections)
        decision = decide(case["metadata"], detections)
        assert decision.correct is case["correct"], case
        assert "\n".join(decision.reasons) == case["reason"], case


def test_score_must_be_strictly_above_the_threshold():
    assert not decide(asks("single_object", CAT), [found("cat", 0.3)]).correct
    assert decide(asks("single_object", CAT), [found("cat", 0.3000001)]).correct


def test_counting_has_its_own_threshold():
    two = {"class": "cat", "count": 2}
    detections = [found("cat", 0.95), found("cat", 0.9)]
    assert decide(asks("counting", two), detections).reasons == ("expected cat>=2, found 1",)
    assert decide(asks("counting", two), detections, counting_threshold=0.8).correct
    assert decide(asks("two_object", two), detections).correct


def test_counting_rejects_more_than_asked_only_through_exclude():
    two, three = {"class": "cat", "count": 2}, {"class": "cat", "count": 3}
    detections = [found("cat", 0.99), found("cat", 0.98), found("cat", 0.97)]
    assert decide(asks("counting", two), detections).correct
    decision = decide(asks("counting", two, exclude=[three]), detections)
    assert decision.reasons == ("expected cat<3, found 3",)
    assert decide(asks("counting", two, exclude=[three]), detections[:2]).correct


def test_at_most_max_objects_are_kept_and_counted():
    crowd = [found("cat", 0.91 + i / 1000) for i in range(20)]
    clause = asks("counting", {"class": "cat", "count": 2}, exclude=[{"class": "cat", "count": 3}])
    assert decide(clause, crowd).reasons == ("expected cat<3, found 16",)
    assert decide(clause, crowd, max_objects=2).correct


def test_missing_object_says_how_many_were_found():
    decision = decide(asks("two_object", CAT, DOG), [found("bird", 0.9)])
    assert decision.reasons == ("expected cat>=1, found 0", "expected dog>=1, found 0")


def test_colour_is_judged_on_the_most_confident_object_only():
    red_cat = CAT | {"color": "red"}
    detections = [found("cat", 0.5, color="red"), found("cat", 0.8, color="blue")]
    decision = decide(asks("colors", red_cat), detections)
    assert decision.reasons == ("expected red cat>=1, found 0 red; and 1 blue",)
    assert decide(asks("colors", CAT | {"color": "blue"}), detections).correct


def test_colour_reason_lists_colours_in_palette_order():
    three = {"class": "cat", "count": 3, "color": "red"}
    detections = [found("cat", 0.9, color=color) for color in ("white", "red", "orange")]
    assert decide(asks("colors", three), detections).reasons == (
        "expected red cat>=3, found 1 red; and 1 red, 1 orange, 1 white",
    )


def test_later_detection_ranks_first_among_equal_scores():
    detections = [found("cat", 0.9, color="red"), found("cat", 0.9, color="blue")]
    assert decide(asks("colors", CAT | {"color": "blue"}), detections).correct
    assert not decide(asks("colors", CAT | {"color": "red"}), detections).correct


def position(relation):
    return asks("position", CAT, DOG | {"position": [relation, 0]})


def test_position_holds_between_clause_and_its_target():
    detections = [found("cat", 0.9, (0, 0, 20, 20)), found("dog", 0.9, (60, 0, 80, 20))]
    assert decide(position("right of"), detections).correct
    assert decide(position("left of"), detections).reasons == (
        "expected dog left of target, found right of target",
    )


def test_position_without_target_is_a_failure_of_its_own():
    decision = decide(position("above"), [found("dog", 0.9)])
    assert decision.reasons == ("expected cat>=1, found 0", "no target for dog to be above")


def test_position_is_not_asked_of_an_object_of_the_wrong_colour():
    metadata = asks("position", CAT, DOG | {"color": "red", "position": ["above", 0]})
    detections = [found("cat", 0.9), found("dog", 0.9, color="blue")]
    assert decide(metadata, detections).reasons == ("expected red dog>=1, found 0 red; and 1 blue",)


def test_first_violated_pair_ends_the_clause():
    metadata = asks("position", CAT, {"class": "dog", "count": 2, "position": ["below", 0]})
    detections = [found("cat", 0.9), found("dog", 0.9), found("dog", 0.8)]
    assert decide(metadata, detections).reasons == ("expected dog below target, found  target",)


def test_every_found_object_must_hold_the_relation_to_every_target():
    metadata = asks(
        "position", {"class": "cat", "count": 2}, {"class": "dog", "count": 2, "position": ["below", 0]}
    )
    cats = [found("cat", 0.9, (0, 0, 10, 10)), found("cat", 0.8, (0, 20, 10, 30))]
    dogs = [found("dog", 0.9, (0, 80, 10, 90)), found("dog", 0.8, (0, 60, 10, 70))]
    assert decide(metadata, cats + dogs).correct
    misplaced = found("dog", 0.8, (0, 0, 10, 10))
    assert not decide(metadata, [*cats, dogs[0], misplaced]).correct
    assert not decide(metadata, [cats[0], found("cat", 0.8, (0, 100, 10, 110)), *dogs]).correct


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        ((-90, -90), ("left of", "above")),  # each axis keeps 70 of 90 pixels: 70 / 127.3 = 0.55
        ((90, 90), ("below", "right of")),
        ((-30, 0), ()),  # 10 of 30 pixels survive: 0.33
        ((-39, 0), ()),  # 19 / 39 = 0.487
        ((-41, 0), ("left of",)),  # 21 / 41 = 0.512
        ((41, 0), ("right of",)),
        ((0, 41), ("below",)),
        ((0, -41), ("above",)),
        ((20, 0), ()),  # shortened to exactly nothing
        ((0, 0), ()),
        ((200, 90), ("right of",)),  # 180 / 219, 70 / 219
    ],
)
def test_relations_of_boxes_of_side_100(offset, expected):
    box = (offset[0], offset[1], offset[0] + 100, offset[1] + 100)
    assert relations(box, (0, 0, 100, 100)) == expected


def test_position_threshold_scales_with_both_boxes():
    assert relations((-41, 0, -41 + 100, 100), (0, 0, 100, 100), position_threshold=0.2) == ()
    assert relations((-30, 0, 70, 100), (0, 0, 100, 100), position_threshold=0.0) == ("left of",)
    # Shrinking only the target brings its share of the threshold down from 20 to 11 pixels.
    assert relations((-30, 0, 70, 100), (45, 45, 55, 55)) == ("left of",)
