"""Sequences that keep numbers: equal to the list of their items, of which none is kept."""

import pickle

from hypothesis import given
from hypothesis import strategies as st

from sana_bench.core.on_demand import OnDemand


@given(st.lists(st.integers(0, 99)), st.slices(20))
def test_it_is_as_a_list_of_its_items(numbers, part) -> None:
    items = [str(number) for number in numbers]
    found = OnDemand(str, numbers)
    assert (list(found), len(found), bool(found)) == (items, len(items), bool(items))
    assert list(found[part]) == items[part]
    assert [found[-1 - place] for place in range(len(items))] == items[::-1]
    assert pickle.loads(pickle.dumps(OnDemand(lambda number: str(number), numbers))) == tuple(items)


def test_items_are_made_when_they_are_looked_at() -> None:
    made: list[int] = []
    found = OnDemand(lambda number: made.append(number) or number, range(1000))
    part = found[10:20]
    assert (len(part), made) == (10, [])
    assert (part[3], made) == (13, [13])
    assert (next(iter(part)), made) == (10, [13, 10])
