"""A variant has one colour on whatever page it is shown."""

from hypothesis import given
from hypothesis import strategies as st

from sana_bench.suites.config_files import read_yaml
from sana_reports.colors import variant_colors
from tests import ROOT

names = st.lists(st.text(min_size=1, max_size=12).filter(str.isprintable), unique=True, max_size=12)


@given(names)
def test_up_to_eight_variants_have_colours_of_their_own_in_any_order(names: list[str]) -> None:
    colors = variant_colors(names)
    assert list(colors) == names
    assert variant_colors(reversed(names)) == colors
    assert set(colors.values()) <= set(range(8))
    if len(names) <= 8:
        assert len(set(colors.values())) == len(names)


@given(names, st.text(min_size=1).filter(str.isprintable))
def test_a_variant_that_shares_its_colour_with_no_other_keeps_it_beside_any(
    names: list[str], one: str
) -> None:
    alone = {name: variant_colors([name])[name] for name in [*names, one]}
    beside = variant_colors([*names, one])
    shared = [name for name in alone if list(alone.values()).count(alone[name]) > 1]
    assert {name: beside[name] for name in alone if name not in shared} == {
        name: color for name, color in alone.items() if name not in shared
    }


def test_the_variants_of_a_shipped_suite_have_as_many_colours_as_there_are() -> None:
    suites = [read_yaml(path).data for path in sorted((ROOT / "suites").glob("*.yaml"))]
    assert len(suites) > 5
    for suite in suites:
        for variants in suite["variants"].values():
            assert len(set(variant_colors(variants).values())) == min(len(variants), 8)
