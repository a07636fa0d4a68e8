"""Small GenEval cases with the verdict that the official rules give, each for one clause of the rules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["CASES", "DecisionCase"]


@dataclass(frozen=True)
class DecisionCase:
    """What a prompt asks for, what was detected, and the verdict with its number of violated clauses."""

    metadata: Mapping[str, Any]
    detections: Sequence[Mapping[str, Any]]
    correct: bool
    n_reasons: int = 0


def _asked(
    tag: str, *include: Mapping[str, Any], exclude: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    return {"tag": tag, "include": list(include), "exclude": list(exclude)}


def _one(
    label: str, score: float = 0.95, x: float = 0, y: float = 0, color: str | None = None, size: float = 20
) -> dict[str, Any]:
    return {"label": label, "score": score, "box": [x, y, x + size, y + size], "color": color}


_CAT = {"class": "cat", "count": 1}
_COUNTED = _asked("counting", {"class": "cat", "count": 2}, exclude=[{"class": "cat", "count": 3}])
_LEFT = _asked("position", _CAT, {"class": "dog", "count": 1, "position": ("left of", 0)})
_RED = _asked("colors", {"class": "cat", "count": 1, "color": "red"})
_MANY = (
    _asked("single_object", {"class": "cat", "count": 16}),
    _asked("single_object", {"class": "cat", "count": 17}),
)

CASES = (
    DecisionCase(_asked("single_object", _CAT), [_one("cat", 0.31)], True),
    # The threshold must be passed, not met.
    DecisionCase(_asked("single_object", _CAT), [_one("cat", 0.3)], False, 1),
    DecisionCase(_asked("single_object", _CAT), [_one("dog")], False, 1),
    DecisionCase(_asked("two_object", _CAT, {"class": "dog", "count": 1}), [_one("cat"), _one("dog")], True),
    DecisionCase(_asked("two_object", _CAT, {"class": "dog", "count": 1}), [], False, 2),
    DecisionCase(_COUNTED, [_one("cat"), _one("cat")], True),
    # Counting has its own threshold of 0.9.
    DecisionCase(_COUNTED, [_one("cat"), _one("cat", 0.9)], False, 1),
    DecisionCase(_COUNTED, [_one("cat"), _one("cat"), _one("cat", 0.89)], True),
    DecisionCase(_COUNTED, [_one("cat")] * 3, False, 1),
    DecisionCase(_RED, [_one("cat", color="red")], True),
    DecisionCase(_RED, [_one("cat", color="blue")], False, 1),
    # As many as asked for are looked at, the most confident; among equals the later one.
    DecisionCase(_RED, [_one("cat", 0.9, color="red"), _one("cat", 0.95, color="blue")], False, 1),
    DecisionCase(_RED, [_one("cat", 0.95, color="red"), _one("cat", 0.9, color="blue")], True),
    DecisionCase(_RED, [_one("cat", color="blue"), _one("cat", color="red")], True),
    # Never more than sixteen of a class.
    DecisionCase(_MANY[0], [_one("cat")] * 17, True),
    DecisionCase(_MANY[1], [_one("cat")] * 17, False, 1),
    DecisionCase(_LEFT, [_one("cat", x=60), _one("dog", x=0)], True),
    DecisionCase(_LEFT, [_one("cat", x=0), _one("dog", x=60)], False, 1),
    # The offset loses a tenth of both sizes: 4 pixels leave nothing of 4.
    DecisionCase(_LEFT, [_one("cat", x=4), _one("dog", x=0)], False, 1),
    DecisionCase(_LEFT, [_one("cat", x=20), _one("dog", x=0)], True),
    # More than half of the whole offset must lie along the relation.
    DecisionCase(_LEFT, [_one("cat", x=20, y=60), _one("dog", x=0)], False, 1),
    # A relation to what is not there.
    DecisionCase(_LEFT, [_one("dog")], False, 2),
)
