"""Where the names beside markers go."""

import re

from hypothesis import given
from hypothesis import strategies as st

from sana_reports.plot_labels import LINE, labelled, text_width

AREA = (50.0, 16.0, 410.0, 276.0)
POINTS = st.lists(st.tuples(st.floats(60, 400), st.floats(20, 270)), min_size=1, max_size=30)
LABEL = re.compile(
    r'<text class="point" x="([\d.]+)" y="([\d.]+)" dy="0.32em" text-anchor="(start|end)">([^<]+)</text>'
)


def boxes(drawn: str) -> list[tuple[float, float, float, float]]:
    """(left, top, right, bottom) of each label."""
    found = []
    for x, y, anchor, text in LABEL.findall(drawn):
        left = float(x) - (text_width(text) if anchor == "end" else 0)
        found.append((left, float(y) - LINE / 2, left + text_width(text), float(y) + LINE / 2))
    return found


@given(POINTS, st.sampled_from(["a", "sana15-micro", "WWWW-MMMM-1234567890-abcdefgh"]))
def test_every_marker_has_a_label_that_touches_no_other_label_and_no_marker(
    points: list[tuple[float, float]], word: str
) -> None:
    names = [f"{word}-{number}" for number in range(len(points))]
    drawn, key = labelled(names, points, AREA)
    found = boxes(drawn)
    assert len(found) == len(points)
    texts = [text for *_, text in LABEL.findall(drawn)]
    assert (
        texts == [str(number) for number in range(1, len(points) + 1)]
        if key
        else len(set(texts)) == len(points)
    )
    room = 0.11  # coordinates are printed to 0.1, on both sides
    markers = [(x - 8, y - 8, x + 8, y + 8) for x, y in points]
    for index, one in enumerate(found):
        assert AREA[0] - room <= one[0]
        assert one[2] <= AREA[2] + room
        for other in [*found[:index], *markers]:
            apart = one[2] <= other[0] + room or other[2] <= one[0] + room
            assert apart or one[3] <= other[1] + room or other[3] <= one[1] + room


def test_names_that_fit_stand_beside_their_markers() -> None:
    drawn, key = labelled(["one", "two"], [(100.0, 50.0), (300.0, 200.0)], AREA)
    assert key == []
    assert [text for *_, text in LABEL.findall(drawn)] == ["one", "two"]
    assert "<line" not in drawn


def test_a_crowd_is_numbered_and_the_key_has_the_names() -> None:
    names = [f"variant-with-a-long-name-{i}" for i in range(20)]
    drawn, key = labelled(names, [(200.0 + i, 150.0) for i in range(20)], AREA)
    assert [text for *_, text in LABEL.findall(drawn)] == [str(i) for i in range(1, 21)]
    assert len(key) == 20
