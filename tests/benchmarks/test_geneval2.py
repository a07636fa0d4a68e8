"""GenEval 2's prompts as they are published, and files that are not what they should be."""

import json
from collections import Counter

import pytest

from sana_bench.benchmarks.geneval2 import read_geneval2
from sana_bench.core.errors import AssetError, UsageError
from sana_bench.core.registry import BENCHMARKS
from sana_bench.metrics.geneval2.rules import accepted_spellings, questions
from tests import SHARED

DATA = SHARED / "data/geneval2/geneval2_data.jsonl"


def test_the_published_prompts(tmp_path, monkeypatch):
    if not DATA.is_file():
        pytest.skip(f"{DATA} is not there")
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path))
    benchmark = BENCHMARKS.build("geneval2")
    with pytest.raises(AssetError, match=r"geneval2_data\.jsonl is missing.*sana-bench fetch geneval2"):
        benchmark.prompts("full")
    (tmp_path / "geneval2").mkdir()
    (tmp_path / "geneval2/geneval2_data.jsonl").symlink_to(DATA)
    prompts = benchmark.prompts("full")
    assert (prompts[0].id, prompts[0].text, prompts[0].tag) == (
        "00000",
        "a green backpack and a pig",
        "03_atoms",
    )
    assert len({prompt.text for prompt in prompts}) == len({prompt.id for prompt in prompts}) == 800
    assert Counter(prompt.tag for prompt in prompts) == {f"{atoms:02d}_atoms": 100 for atoms in range(3, 11)}
    skills = Counter(skill for prompt in prompts for skill in prompt.metadata["skills"])
    assert skills == {"count": 2025, "object": 2025, "attribute": 1214, "position": 662, "verb": 86}
    assert benchmark.default_images_per_prompt == 1


def test_the_micro_worlds_prompts():
    prompts = BENCHMARKS.build("geneval2").prompts("micro")
    assert Counter(prompt.tag for prompt in prompts) == {f"{atoms:02d}_atoms": 12 for atoms in range(3, 9)}
    assert [prompt.id for prompt in prompts] == [f"{place:05d}" for place in range(72)]
    for prompt in prompts:
        assert f"{prompt.metadata['atom_count']:02d}_atoms" == prompt.tag
        asked = questions(prompt.metadata, prompt.id)
        assert all(accepted_spellings(question.text, question.answer) for question in asked)
    assert {skill for prompt in prompts for skill in prompt.metadata["skills"]} == {
        *("count", "object", "attribute", "position")
    }


GOOD = {
    "prompt": "a pig",
    "atom_count": 1,
    "vqa_list": [["Are there any pigs?", "Yes"]],
    "skills": ["object"],
}


def write(tmp_path, *records):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_prompts_keep_what_the_metric_reads(tmp_path):
    (prompt,) = read_geneval2(write(tmp_path, GOOD), 1)
    assert (prompt.id, prompt.tag) == ("00000", "01_atoms")
    assert prompt.metadata == {name: GOOD[name] for name in ("atom_count", "vqa_list", "skills")}


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([GOOD], "1 prompts, the benchmark has 2"),
        ([GOOD, GOOD | {"atom_count": "3"}], "prompt 00001: atom_count: '3' is not a whole number from 1 up"),
        ([GOOD | {"skills": []}, GOOD], "prompt 00000: skills: the list is empty"),
        (
            [GOOD, GOOD | {"vqa_list": [["How many?", "eleven"]]}],
            "'eleven' is not a number word from one to ten",
        ),
    ],
)
def test_other_files_are_refused(tmp_path, records, message):
    with pytest.raises(AssetError) as caught:
        read_geneval2(write(tmp_path, *records), 2)
    assert message in str(caught.value)
    assert str(tmp_path / "prompts.jsonl") in str(caught.value)


def test_a_file_that_is_no_list_of_prompts_is_refused(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("{\n")
    with pytest.raises(UsageError, match=r"prompts\.jsonl:1: not valid JSON"):
        read_geneval2(path, 1)
