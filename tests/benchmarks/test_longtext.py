"""LongText-Bench's prompts as they are published, and files that are not what they should be."""

import json
from collections import Counter

import pytest

from sana_bench.benchmarks.longtext import read_longtext
from sana_bench.core.errors import AssetError, SuiteError
from sana_bench.core.registry import BENCHMARKS
from sana_bench.metrics.longtext.rules import asked_texts
from tests import SHARED

DATA = SHARED / "data/longtext"
FILES = {"longtext": "text_prompts.jsonl", "longtext_zh": "text_prompts_zh.jsonl"}


@pytest.mark.parametrize("name", FILES)
def test_the_published_prompts(tmp_path, monkeypatch, name):
    if not (DATA / FILES[name]).is_file():
        pytest.skip(f"{DATA / FILES[name]} is not there")
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path))
    benchmark = BENCHMARKS.build(name)
    assert benchmark.name == name
    with pytest.raises(AssetError, match=rf"{FILES[name]} is missing.*sana-bench fetch {name}`"):
        benchmark.prompts("full")
    (tmp_path / "longtext").mkdir()
    (tmp_path / "longtext" / FILES[name]).symlink_to(DATA / FILES[name])
    prompts = benchmark.prompts("full")
    ids = [prompt.id for prompt in prompts]
    assert ids == sorted(set(ids))
    assert len(ids) == 160
    assert set(Counter(prompt.tag for prompt in prompts).values()) == {20}
    language = "zh" if name == "longtext_zh" else "en"
    assert {prompt.metadata["language"] for prompt in prompts} == {language}
    first = {"en": "FRESH BREWS, EVERY MORNING, EVERY DAY", "zh": "每日新鲜烘焙"}[language]
    assert prompts[0].metadata["text"][0] == first
    assert benchmark.default_images_per_prompt == 4


def test_the_micro_worlds_prompts():
    prompts = BENCHMARKS.build("longtext").prompts("micro")
    assert Counter(prompt.tag for prompt in prompts) == {"1_words": 12, "2_words": 12, "3_words": 12}
    for prompt in prompts:
        texts, language = asked_texts(prompt.metadata, prompt.id)
        assert language == "en"
        assert prompt.text.endswith(f"text {' '.join(texts)}")
    with pytest.raises(SuiteError, match="'longtext_zh' has no micro tier version"):
        BENCHMARKS.build("longtext_zh").prompts("micro")


GOOD = {"category": "sign", "length": "short", "prompt": "a sign", "text": ["Open"], "prompt_id": 0}


def write(tmp_path, *records):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_prompts_keep_what_the_metric_reads(tmp_path):
    (prompt,) = read_longtext(write(tmp_path, GOOD), "en", 1)
    assert (prompt.id, prompt.text, prompt.tag) == ("000", "a sign", "sign")
    assert prompt.metadata == {"text": ["Open"], "language": "en"}


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([GOOD], "1 prompts, the benchmark has 2"),
        ([GOOD, GOOD | {"prompt_id": 1, "text": "Open"}], "prompt 1: text: 'Open' is not a list"),
        ([GOOD | {"text": ["?!"]}, GOOD | {"prompt_id": 1}], "prompt 0: text: there is no word in it"),
    ],
)
def test_other_files_are_refused(tmp_path, records, message):
    with pytest.raises(AssetError) as caught:
        read_longtext(write(tmp_path, *records), "en", 2)
    assert message in str(caught.value)
