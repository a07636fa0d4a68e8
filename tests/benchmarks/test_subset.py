"""A declared part of a prompt set: the right number, spread over tasks, the same whatever the order."""

from collections import Counter

import pytest

from sana_bench.benchmarks.geneval import GenEval
from sana_bench.benchmarks.subset import stratified
from sana_bench.core.errors import SuiteError
from sana_bench.core.samples import Prompt

PROMPTS = [Prompt(f"{i:03d}", f"p{i}", tag) for i, tag in enumerate("a" * 70 + "b" * 27 + "c" * 3)]


@pytest.mark.parametrize("count", [*range(1, 101)])
def test_every_count_is_met_and_shared_out(count):
    chosen = stratified(PROMPTS, count)
    assert len({prompt.id for prompt in chosen}) == len(chosen) == count
    assert chosen == [prompt for prompt in PROMPTS if prompt in chosen]
    shares = Counter(prompt.tag for prompt in chosen)
    if count >= 3:
        assert set(shares) == {"a", "b", "c"}
        # A share is off by less than one, but where the smallest task is lifted to its one prompt.
        assert abs(shares["a"] - 0.70 * count) < 2
        assert abs(shares["b"] - 0.27 * count) < 2


def test_shares_are_exact_where_they_come_out_even():
    assert Counter(prompt.tag for prompt in stratified(PROMPTS, 100)) == {"a": 70, "b": 27, "c": 3}
    even = [Prompt(f"{i}", "p", "xyz"[i % 3]) for i in range(30)]
    assert Counter(prompt.tag for prompt in stratified(even, 12)) == {"x": 4, "y": 4, "z": 4}


def test_the_order_of_the_file_plays_no_part():
    assert set(map(id, stratified(PROMPTS[::-1], 20))) == set(map(id, stratified(PROMPTS, 20)))


def test_a_larger_part_has_the_smaller_one_in_it():
    even = [Prompt(f"{i}", "p", "xyz"[i % 3]) for i in range(30)]
    assert {p.id for p in stratified(even, 6)} < {p.id for p in stratified(even, 12)}


def test_geneval_has_every_task():
    chosen = stratified(GenEval().prompts("micro"), 24)
    assert len(Counter(prompt.tag for prompt in chosen)) == 6


def test_more_than_there_are_is_refused():
    with pytest.raises(SuiteError, match="101 prompts are asked for, and there are 100"):
        stratified(PROMPTS, 101)
