"""A variant has one colour on whatever page it is shown."""

from hypothesis import given
from hypothesis import strategies as st

from sana_reports.colors import variant_colors

NAMES = st.lists(st.text("abcdefghij", min_size=1, max_size=3), unique=True, max_size=12)


@given(NAMES, NAMES)
def test_up_to_eight_variants_of_a_page_have_colours_of_their_own(names: list[str], order: list[str]) -> None:
    colors = variant_colors(names, order)
    assert list(colors) == names
    assert set(colors.values()) <= set(range(8))
    assert len(set(colors.values())) == min(len(names), 8)


@given(st.lists(st.text("abcdefghij", min_size=1, max_size=3), unique=True, max_size=8), st.data())
def test_pages_of_up_to_eight_variants_agree(order: list[str], data: st.DataObject) -> None:
    """Whichever of them a page shows in whatever sequence, and whatever was known when it was written."""
    everything = variant_colors(order, order)
    shown = data.draw(st.lists(st.sampled_from(order), unique=True) if order else st.just([]))
    known = max((order.index(name) for name in shown), default=-1) + 1
    assert variant_colors(shown, order) == {name: everything[name] for name in shown}
    assert variant_colors(shown, order[:known]) == variant_colors(shown, order)
