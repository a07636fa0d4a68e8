"""DPG-Bench's files: table, parquet form and prompt texts, and how they are put together."""

import json

import pandas as pd
import pytest

from sana_bench.benchmarks.dpg_bench import (
    DPGBench,
    family,
    official_prompts,
    read_csv,
    read_parquet,
    read_prompt_files,
)
from sana_bench.core.errors import AssetError
from tests import SHARED

SHARED = SHARED / "data/dpg_bench/prompts.jsonl"
HEADER = (
    "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,"
    "question_natural_language\n"
)
ROWS = (
    'partiprompts7," Two cats, one mat.\nSecond line",,1,0,entity,whole,"entity - whole (cats)",Are there cats?\n'
    'partiprompts7,,,2,1,other,count,"other - count (cats, ==2)","Are there two cats, or \'NA\'?"\n'
    'partiprompts7,,,3,"1, 2",relation,spatial,"relation - spatial (cats, mat, on)",Are they on a mat?\n'
    "12,A café,,1,0,global,,global - (photo),Is this a photo?\n"
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "dpg_bench.csv").write_text(HEADER + ROWS, encoding="utf-8")
    return tmp_path


def test_table_is_read_as_it_is(folder):
    first, second = read_csv(folder / "dpg_bench.csv")
    assert first["item_id"] == "partiprompts7"
    assert first["text"] == " Two cats, one mat.\nSecond line"
    assert [question["dependency"] for question in first["questions"]] == [[0], [1], [1, 2]]
    assert first["questions"][1]["tuple"] == "other - count (cats, ==2)"
    assert first["questions"][1]["question"] == "Are there two cats, or 'NA'?"
    assert second["text"] == "A café"
    flags = [question.get("first_row", False) for item in (first, second) for question in item["questions"]]
    assert flags == [True, False, False, False]


def test_parquet_gives_the_same_items_but_for_arguments(folder, tmp_path):
    rows = [
        {
            "item_id": item["item_id"],
            "prompt": item["text"],
            "questions": [
                {
                    "category_broad": question["tuple"].split(" -")[0],
                    "category_detailed": question["tuple"].split("(")[0].split("- ")[1].strip(),
                    "dependency": question["dependency"],
                    "proposition_id": question["proposition_id"],
                    "question": question["question"],
                }
                for question in item["questions"]
            ],
        }
        for item in read_csv(folder / "dpg_bench.csv")
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "test.parquet")
    expected = [
        item | {"questions": [q | {"tuple": q["tuple"].split("(")[0].strip()} for q in item["questions"]]}
        for item in read_csv(folder / "dpg_bench.csv")
    ]
    assert read_parquet(tmp_path / "test.parquet") == expected


@pytest.mark.parametrize("dependency", ["0", "1, 2", 0])
def test_parquet_may_hold_dependencies_as_text_or_number(tmp_path, dependency):
    question = {
        "category_broad": "global",
        "category_detailed": None,
        "dependency": dependency,
        "proposition_id": 3,
        "question": "?",
    }
    pd.DataFrame([{"item_id": "1", "prompt": "p", "questions": [question]}]).to_parquet(
        tmp_path / "t.parquet"
    )
    (read,) = read_parquet(tmp_path / "t.parquet")[0]["questions"]
    assert read["dependency"] == ([1, 2] if dependency == "1, 2" else [0])
    assert read["tuple"] == "global -"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("item_id,text\n1,a\n", "lacks proposition_id, dependency", id="columns"),
        pytest.param(HEADER, "holds no questions", id="empty"),
        pytest.param(HEADER + ROWS + "partiprompts7,,,9,0,,,,x\n", "row 5: .* not adjacent", id="split item"),
        pytest.param(HEADER + ROWS + "12,,,1,0,,,,x\n", "row 5: item '12' has question 1 twice", id="twice"),
        pytest.param(HEADER + "1,a,,1,none,,,,x\n", "row 1: expected numbers, found .* 'none'", id="parents"),
    ],
)
def test_a_broken_table_is_named(tmp_path, text, message):
    path = tmp_path / "dpg_bench.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(AssetError, match=message):
        read_csv(path)


def test_prompt_files_give_the_texts(folder):
    prompts = folder / "prompts"
    prompts.mkdir()
    (prompts / "partiprompts7.txt").write_bytes("  Zwei Kätzchen.\r\n".encode())
    (prompts / "12.txt").write_text("A café", encoding="utf-8")
    assert read_prompt_files(prompts)["partiprompts7"] == "  Zwei Kätzchen.\n"
    first, second = official_prompts(folder)
    assert (first.id, first.text, first.tag) == ("partiprompts7", "  Zwei Kätzchen.\n", "partiprompts")
    assert (second.id, second.tag) == ("12", "numbered")
    (prompts / "12.txt").unlink()
    with pytest.raises(AssetError, match=r"no text for 1 items, e\.g\. 12\.txt"):
        official_prompts(folder)
    (prompts / "12.txt").write_text("A café", encoding="utf-8")
    (prompts / "13.txt").write_text("?", encoding="utf-8")
    with pytest.raises(AssetError, match=r"1 texts without questions, e\.g\. 13\.txt"):
        official_prompts(folder)


def test_missing_files_name_their_source(monkeypatch, tmp_path):
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path))
    with pytest.raises(AssetError, match=r"no dpg_bench\.csv and no parquet file.*ELLA.*DPG-Bench"):
        DPGBench().prompts("full")


def test_families_of_the_published_prompts():
    if not SHARED.exists():
        pytest.skip(f"{SHARED} is not there")
    ids = [json.loads(line)["item_id"] for line in SHARED.read_text(encoding="utf-8").splitlines()]
    found = pd.Series([family(item_id) for item_id in ids]).value_counts().to_dict()
    assert len(ids) == 1065
    assert (found["numbered"], found["partiprompts"], found["localized"]) == (299, 324, 22)
    assert sum(count == 40 for count in found.values()) == 8


def test_files_of_other_systems_give_the_same_prompts(folder, tmp_path):
    """A byte order mark, other ends of lines, and the files that systems leave beside others."""
    texts = {"partiprompts7": " Two cats,\none mat.\n", "12": "A café\n"}
    (folder / "prompts").mkdir()
    for name, text in texts.items():
        (folder / "prompts" / f"{name}.txt").write_text(text, encoding="utf-8", newline="\n")
    plain = official_prompts(folder)
    assert [prompt.text for prompt in plain] == list(texts.values())
    table = (folder / "dpg_bench.csv").read_text(encoding="utf-8")
    (folder / "dpg_bench.csv").write_bytes(("\ufeff" + table.replace("\n", "\r\n")).encode())
    for name, text in texts.items():
        (folder / "prompts" / f"{name}.txt").write_bytes(("\ufeff" + text.replace("\n", "\r\n")).encode())
        (folder / "prompts" / f"._{name}.txt").write_bytes(b"\0\5\x16\x07")
    (folder / "._other.parquet").write_bytes(b"\0\5\x16\x07")
    assert official_prompts(folder) == plain
    assert read_csv(folder / "dpg_bench.csv")[0]["text"] == " Two cats, one mat.\nSecond line"
