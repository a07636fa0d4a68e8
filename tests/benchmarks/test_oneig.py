"""OneIG-Bench's prompts as they are published, and files that are not what they should be."""

import json
import shutil
from collections import Counter

import pytest

from sana_bench.benchmarks.oneig import CATEGORIES, read_oneig
from sana_bench.core.errors import AssetError
from sana_bench.core.registry import BENCHMARKS, METRICS
from sana_bench.metrics.oneig.alignment import questions_of
from sana_bench.metrics.oneig.text import wanted_text
from tests import SHARED

DATA = SHARED / "data/oneig"


def test_the_published_prompts(tmp_path, monkeypatch):
    if not (DATA / "OneIG-Bench.csv").is_file():
        pytest.skip(f"{DATA / 'OneIG-Bench.csv'} is not there")
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path))
    benchmark = BENCHMARKS.build("oneig")
    with pytest.raises(AssetError, match=r"OneIG-Bench\.csv is missing.*sana-bench fetch oneig"):
        benchmark.prompts("full")
    folder = tmp_path / "oneig"
    folder.mkdir()
    for name in ("OneIG-Bench.csv", "text_content.csv"):
        (folder / name).symlink_to(DATA / name)
    for name in ("anime", "human", "object"):
        (folder / f"{name}.json").symlink_to(DATA / f"questions_{name}.json")
    prompts = benchmark.prompts("full")
    assert Counter(prompt.tag for prompt in prompts) == CATEGORIES
    assert len({prompt.id for prompt in prompts}) == 1120
    asked = dict.fromkeys(CATEGORIES, 0)
    for prompt in prompts:
        asked[prompt.tag] += len(prompt.metadata.get("questions", ()))
    assert asked == {
        "Anime_Stylization": 4176, "Portrait": 4059, "General_Object": 2996, "Text_Rendering": 0, "Knowledge_Reasoning": 0,
    }  # fmt: skip
    concerned = {
        name: Counter(prompt.tag for prompt in prompts if METRICS.entry(name).concerns(prompt.metadata))
        for name in benchmark.metric_names
    }
    assert concerned["oneig_alignment"] == {tag: CATEGORIES[tag] for tag in tuple(CATEGORIES)[:3]}
    assert concerned["oneig_text"] == {"Text_Rendering": 200}
    # 131 of the first category ask for no style.
    assert concerned["oneig_style"] == {"Anime_Stylization": 114}
    assert concerned["oneig_diversity"] == CATEGORIES
    assert len({prompt.metadata["style"] for prompt in prompts if "style" in prompt.metadata}) == 29


def test_the_micro_worlds_prompts():
    prompts = BENCHMARKS.build("oneig").prompts("micro")
    assert Counter(prompt.tag for prompt in prompts) == {"General_Object": 48, "Text_Rendering": 36}
    assert len({prompt.id for prompt in prompts}) == 84
    for prompt in prompts[:48]:
        questions, parents = questions_of(prompt.metadata, prompt.id)
        assert [key for key, of in parents.items() if of == [0]] == [
            key for key, question in questions.items() if question.startswith("Is there a")
        ]
        assert not METRICS.entry("oneig_text").concerns(prompt.metadata)
    for prompt in prompts[48:]:
        assert prompt.text.endswith(f"text {wanted_text(prompt.metadata, prompt.id)[0]}")
        assert not METRICS.entry("oneig_alignment").concerns(prompt.metadata)
    assert not any(METRICS.entry("oneig_style").concerns(prompt.metadata) for prompt in prompts)


COUNTS = {
    "Anime_Stylization": 1,
    "Portrait": 1,
    "General_Object": 1,
    "Text_Rendering": 1,
    "Knowledge_Reasoning": 1,
}
TABLE = "category,id,prompt_en,type,prompt_length,class\n" + "".join(
    f"{category},000,prompt {place},NP,long,{'Line Art' if place == 0 else ''}\n"
    for place, category in enumerate(COUNTS)
)
ASKED = {
    "000": {"question": '{"1": "Is there a cat?", "2": "Is it red?"}', "dependency": '{"1": [0], "2": [1]}'}
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "OneIG-Bench.csv").write_text(TABLE)
    for name in ("anime", "human", "object"):
        (tmp_path / f"{name}.json").write_text(json.dumps(ASKED))
    (tmp_path / "text_content.csv").write_text(
        ",id,prompt_en,text_content\n0,000,prompt 3,\"['Open', 'Now']\"\n"
    )
    return tmp_path


def test_prompts_keep_what_each_metric_reads(folder):
    anime, portrait, _, text, reasoning = read_oneig(folder, COUNTS)
    graph = {"questions": {"1": "Is there a cat?", "2": "Is it red?"}, "dependency": {"1": [0], "2": [1]}}
    assert (anime.id, anime.text, anime.tag) == ("Anime_Stylization_000", "prompt 0", "Anime_Stylization")
    assert anime.metadata == {**graph, "style": "line_art"}
    assert portrait.metadata == graph
    assert text.metadata == {"text_content": "['Open', 'Now']"}
    assert reasoning.metadata == {}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("OneIG-Bench.csv", TABLE + "Portrait,001,more,NP,long,\n", "'Portrait': 2"),
        ("human.json", "{}", "human.json: no questions of prompt 000"),
        ("human.json", "[]", "human.json: not questions by prompt"),
        ("human.json", json.dumps({"000": {"question": "{", "dependency": "{}"}}), "human.json: not questions by prompt"),
        (
            "human.json",
            json.dumps({"000": ASKED["000"] | {"dependency": '{"1": [0], "2": [3]}'}}),
            "human.json: prompt 000: dependency[2]: question 3 is not asked",
        ),
        ("text_content.csv", "id,text_content\n001,Open\n", "text_content.csv: no text of prompt 000"),
        ("text_content.csv", "id,text_content\n000,?!\n", "text_content.csv: prompt 000: text_content: there is no word in it"),
        ("text_content.csv", "number,text\n", "text_content.csv: no text of prompt 000"),
    ],
)  # fmt: skip
def test_files_that_do_not_fit_together_are_refused(folder, name, content, message):
    (folder / name).write_text(content)
    with pytest.raises(AssetError) as caught:
        read_oneig(folder, COUNTS)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(folder):
    (folder / "object.json").unlink()
    with pytest.raises(AssetError, match=r"object\.json"):
        read_oneig(folder, COUNTS)
    shutil.rmtree(folder)
