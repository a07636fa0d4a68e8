"""Truth and wrong scenes: they agree with GenEval's official decision wherever it sees the exact boxes."""

import numpy as np
import pytest

from sana_bench.metrics.geneval.decision import RELATIONS, decide, relations
from sana_bench.metrics.geneval.metric import TASKS
from sana_bench.micro import templates
from sana_bench.micro.captions import sample_record, scene_for
from sana_bench.micro.truth import detections_of, relation_holds, satisfies
from sana_bench.micro.world import COLORS, Scene, SceneObject
from sana_bench.micro.wrong_scenes import wrong_records, wrong_scene_for

KINDS = {
    "single_object": {"wrong shape"},
    "two_object": {"wrong shape", "missing object"},
    "counting": {"wrong shape", "wrong count"},
    "colors": {"wrong shape", "wrong colour"},
    "position": {"wrong shape", "missing object", "wrong relation"},
    "color_attr": {"wrong shape", "missing object", "wrong colour", "swapped colours"},
}


@pytest.mark.parametrize("task", TASKS)
def test_right_scenes_hold_and_wrong_scenes_do_not(task):
    rng = np.random.default_rng(21)
    for _ in range(60):
        record = sample_record(task, rng)
        scene = scene_for(record, rng)
        assert satisfies(scene, record)
        assert decide(record, detections_of(scene)).correct
        assert set(wrong_records(record)) == KINDS[task]
        for kind in KINDS[task]:
            wrong = wrong_scene_for(record, rng, kind)
            assert not satisfies(wrong, record), kind
            assert not decide(record, detections_of(wrong)).correct, kind


def test_a_mistake_that_does_not_apply_is_refused():
    record = templates.single_object_record("heart")
    with pytest.raises(KeyError, match="swapped colours"):
        wrong_scene_for(record, np.random.default_rng(0), "swapped colours")


def test_counting_mistakes_reach_one_too_many():
    counts = [
        r["include"][0]["count"] for r in wrong_records(templates.counting_record("ring", 4))["wrong count"]
    ]
    assert counts == [3, 5]


def test_relations_agree_with_the_official_rule_on_random_boxes():
    rng = np.random.default_rng(8)
    for _ in range(2000):
        x, y, width, height = rng.integers(1, 40, size=(4, 2))
        a, b = (tuple(int(v) for v in (x[i], y[i], x[i] + width[i], y[i] + height[i])) for i in (0, 1))
        held = {relation for relation in RELATIONS if relation_holds(a, relation, b)}
        assert held == set(relations(a, b))


def test_boxes_hug_the_painted_pixels():
    item = SceneObject("circle", "blue", 20.0, 30.0, 9.0, COLORS["blue"])
    (detection,) = detections_of(Scene((item,), (190, 190, 190)))
    assert detection == {"label": "circle", "score": 1.0, "box": [11, 21, 29, 39], "color": "blue"}
