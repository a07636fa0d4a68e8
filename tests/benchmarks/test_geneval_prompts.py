"""GenEval's prompt sets: the official one byte for byte, and the shape of both tiers."""

import hashlib
import json
from collections import Counter

import pytest

from sana_bench.benchmarks import geneval as geneval_prompts
from sana_bench.benchmarks.geneval import GenEval
from sana_bench.core.errors import AssetError, SuiteError
from sana_bench.core.registry import BENCHMARKS
from sana_bench.metrics.geneval.metric import TASKS
from tests import SHARED

PUBLISHED = SHARED / "data/geneval/evaluation_metadata.jsonl"


def as_file(records):
    return "".join(json.dumps(record) + "\n" for record in records)


def test_official_prompts_have_the_published_hash():
    content = as_file(geneval_prompts.official_metadata()).encode()
    assert hashlib.sha256(content).hexdigest() == geneval_prompts.OFFICIAL_SHA256


def test_official_prompts_are_the_published_file():
    if not PUBLISHED.exists():
        pytest.skip(f"the published prompt file is not at {PUBLISHED}")
    assert as_file(geneval_prompts.official_metadata()) == PUBLISHED.read_text()


def test_another_random_stream_is_refused(monkeypatch):
    monkeypatch.setattr(geneval_prompts, "OFFICIAL_SEED", 44)
    geneval_prompts._official_lines.cache_clear()
    try:
        with pytest.raises(AssetError, match="cannot be drawn again"):
            geneval_prompts.official_metadata()
    finally:
        geneval_prompts._official_lines.cache_clear()


def test_full_tier_counts_and_ids():
    prompts = GenEval().prompts("full")
    assert Counter(prompt.tag for prompt in prompts) == {
        "single_object": 80,
        "two_object": 99,
        "counting": 80,
        "colors": 94,
        "position": 100,
        "color_attr": 100,
    }
    assert [prompts[0].id, prompts[-1].id] == ["00000", "00552"]


def test_micro_tier_has_every_task_with_at_least_twenty_prompts():
    prompts = GenEval().prompts("micro")
    counts = Counter(prompt.tag for prompt in prompts)
    assert tuple(counts) == TASKS
    assert min(counts.values()) >= 20
    assert len({prompt.id for prompt in prompts}) == len(prompts)
    assert all(prompt.text == prompt.metadata["prompt"] for prompt in prompts)


def test_unknown_names_are_answered_with_the_nearest():
    assert BENCHMARKS.build("geneval").name == "geneval"
    with pytest.raises(SuiteError, match=r"unknown benchmark 'gen_eval' \(did you mean 'geneval'\?\)"):
        BENCHMARKS.build("gen_eval")
    with pytest.raises(SuiteError, match="unknown tier 'nano'"):
        GenEval().prompts("nano")
