"""What people read while work goes on."""

import io

import pytest

from sana_bench.core import progress
from sana_bench.core.progress import Progress, format_moment


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        ("2026-01-13T14:05:59+00:00", "2026-01-13 14:05 UTC"),
        ("2026-01-13T01:05:00+02:00", "2026-01-12 23:05 UTC"),
        ("2026-01-13T14:05:59", "2026-01-13T14:05:59"),
        ("yesterday", "yesterday"),
    ],
)
def test_a_moment_for_people(moment, text) -> None:
    assert format_moment(moment) == text


@pytest.fixture
def told(monkeypatch):
    """What a stage of so many items prints to a file, each item taking so many seconds by a clock of its own."""

    def work(n_items: int, seconds_each: float) -> list[str]:
        clock = [0.0]
        monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
        stream = io.StringIO()
        with Progress("drawing", n_items, "images", stream) as found:
            for _ in range(n_items):
                clock[0] += seconds_each
                found.advance(1)
        return stream.getvalue().splitlines()

    return work


def test_items_that_take_long_say_how_long(told) -> None:
    assert told(3, 40.0) == [
        "drawing: 1/3 images, 40.0 s each, 1 min 20 s left",
        "drawing: 2/3 images, 40.0 s each, 40 s left",
        "drawing: 3/3 images, 40.0 s each",
    ]
    assert told(100, 0.25)[-1] == "drawing: 100/100 images, 4.0 images/s"
    assert told(0, 1.0) == []


def test_lines_of_long_work_lie_a_minute_apart(told) -> None:
    lines = told(10 * 3600, 1.0)
    # Five seconds apart for 50 s, then by a tenth of the time so far until that is a minute, at 600 s.
    assert lines[0].startswith("drawing: 5/36000")
    assert lines[9].startswith("drawing: 50/36000")
    done = [int(line.split()[1].split("/")[0]) for line in lines]
    assert {later - before for before, later in zip(done[-101:-2], done[-100:-1], strict=True)} == {60}
    assert len(lines) < 10 + 30 + 10 * 60
