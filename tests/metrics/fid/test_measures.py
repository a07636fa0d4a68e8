"""Measures of sets against their definitions written out, and what must hold of them whatever the numbers are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sana_bench.core.errors import IncompleteError
from sana_bench.metrics.fid.measures import MEASURES, NEAREST, cmmd, vendi

SYMMETRIC = ("cmmd",)
OF_NEIGHBOURS = ("precision", "recall", "density", "coverage")


def rows(n, seed, d=6, shift=0.0):
    return np.random.default_rng(seed).normal(shift, 1, (n, d)).astype(np.float32)


def split(x, sizes):
    return np.split(x, np.cumsum(sizes)[:-1])


def by_definition(name, x, y):
    """Naeem et al.'s definitions as plain loops: `x` drawn, `y` the reference."""
    far = [[float(np.linalg.norm(a.astype(float) - b)) for b in y.astype(float)] for a in x]
    of_y = [sorted(np.linalg.norm(y.astype(float) - b, axis=1))[NEAREST] for b in y.astype(float)]
    of_x = [sorted(np.linalg.norm(x.astype(float) - a, axis=1))[NEAREST] for a in x.astype(float)]
    n, m = len(x), len(y)
    inside = [[far[i][j] < of_y[j] for j in range(m)] for i in range(n)]
    if name == "precision":
        return sum(any(line) for line in inside) / n
    if name == "density":
        return sum(map(sum, inside)) / NEAREST / n
    if name == "coverage":
        return sum(any(inside[i][j] for i in range(n)) for j in range(m)) / m
    return sum(any(far[i][j] < of_x[i] for i in range(n)) for j in range(m)) / m


@pytest.mark.parametrize("name", OF_NEIGHBOURS)
@pytest.mark.parametrize("shift", [0.0, 1.0, 8.0])
def test_neighbourhoods_are_by_their_definition(name, shift):
    x, y = rows(23, 1, shift=shift), rows(31, 2)
    # Counts: equal but for the rounding of a mean.
    assert MEASURES[name].compute([x], y)[0] == pytest.approx(by_definition(name, x, y), rel=1e-12)


@pytest.mark.parametrize("name", OF_NEIGHBOURS)
def test_blocks_do_not_show(name, monkeypatch):
    x, y = rows(37, 3), rows(29, 4, shift=0.5)
    whole = MEASURES[name].compute([x], y)[0]
    monkeypatch.setattr("sana_bench.metrics.fid.measures._BLOCK", 7)
    assert MEASURES[name].compute([x], y)[0] == whole


def test_cmmd_is_the_mean_of_its_kernel():
    x, y = rows(9, 5), rows(12, 6, shift=0.3)

    def kernel(a, b):
        return np.mean([[np.exp(-np.sum((u - v) ** 2) / 200) for v in b] for u in a])

    a, b = (z.astype(float) / np.linalg.norm(z.astype(float), axis=1, keepdims=True) for z in (x, y))
    expected = 1000 * (kernel(a, a) + kernel(b, b) - 2 * kernel(a, b))
    # Kernel values near 1 of which all but a thousandth cancels: 1e-16 times 1e3 and more.
    assert cmmd([x], y)[0] == pytest.approx(expected, rel=1e-9)


def test_vendi_is_the_entropy_of_the_whole_kernel():
    x = rows(15, 7).astype(float)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    values = np.linalg.eigvalsh(unit @ unit.T / len(x))
    shares = values[values > 1e-12]
    assert vendi([x], x)[0] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-9)


@pytest.mark.parametrize("n", [1, 2, 6])
def test_vendi_counts_what_is_different(n):
    different = np.eye(6)[np.repeat(np.arange(n), 4)]
    assert vendi([different], different)[0] == pytest.approx(n, rel=1e-12)


@given(seed=st.integers(0, 10_000), n=st.integers(NEAREST + 1, 40))
@settings(max_examples=25, deadline=None)
def test_a_set_is_no_distance_from_itself(seed, n):
    x = rows(n, seed)
    # The root of 1e-16, times 1,000: rounding of kernel means near 1.
    assert MEASURES["cmmd"].compute([x], x)[0] <= 1e-9
    for name in ("precision", "recall", "coverage"):
        assert MEASURES[name].compute([x], x)[0] == 1.0
    # Each row lies in the surroundings of itself and of as many as have it among their nearest: five on average.
    assert MEASURES["density"].compute([x], x)[0] == pytest.approx(1.0, rel=1e-12)


@given(seed=st.integers(0, 10_000), shift=st.floats(0, 3))
@settings(max_examples=25, deadline=None)
def test_sides_mirror_each_other(seed, shift):
    x, y = rows(20, seed), rows(26, seed + 1, shift=shift)
    assert cmmd([x], y)[0] == pytest.approx(cmmd([y], x)[0], rel=1e-9, abs=1e-9)
    # Precision against a reference is the recall of that reference.
    assert MEASURES["precision"].compute([x], y)[0] == pytest.approx(
        MEASURES["recall"].compute([y], x)[0], rel=1e-12
    )


@pytest.mark.parametrize("name", MEASURES)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_order_and_groups_do_not_change_the_value(name, seed):
    x, y = rows(30, seed), rows(25, seed + 1, shift=0.4)
    order = np.random.default_rng(seed).permutation(len(x))
    whole = MEASURES[name].compute([x], y)[0]
    parted, left_out = MEASURES[name].compute(split(x[order], [4, 11, 15]), y[::-1])
    # Float64 sums in another order; CMMD's cancel to a thousandth.
    assert parted == pytest.approx(whole, rel=1e-9)
    assert left_out.shape == (3,)


@pytest.mark.parametrize("name", [name for name in MEASURES if name != "recall"])
def test_what_is_left_out_is_as_if_it_were_not_there(name):
    x, y = rows(30, 11), rows(25, 12, shift=0.4)
    groups = split(x, [8, 10, 12])
    _, left_out = MEASURES[name].compute(groups, y)
    for place in range(3):
        rest = np.concatenate([group for other, group in enumerate(groups) if other != place])
        assert left_out[place] == pytest.approx(MEASURES[name].compute([rest], y)[0], rel=1e-9)


def test_recall_without_a_group_keeps_the_surroundings_of_the_rest():
    x, y = rows(30, 13), rows(25, 14, shift=0.4)
    groups = split(x, [15, 15])
    value, left_out = MEASURES["recall"].compute(groups, y)
    assert max(left_out) <= value
    fewer = MEASURES["recall"].compute([groups[1]], y)[0]
    assert left_out[0] <= fewer  # fewer images have wider surroundings


def test_one_group_has_nothing_to_leave_out():
    for measure in MEASURES.values():
        assert measure.compute([rows(10, 1)], rows(10, 2))[1].size == 0


@pytest.mark.parametrize("name", OF_NEIGHBOURS)
def test_too_few_for_neighbours_is_said(name):
    few, enough = rows(NEAREST, 1), rows(NEAREST + 1, 2)
    with pytest.raises(IncompleteError, match="5 vectors have no 5 nearest each; at least 6 are needed"):
        MEASURES[name].compute([enough if name != "recall" else few], few)
    assert MEASURES[name].least == NEAREST + 1
