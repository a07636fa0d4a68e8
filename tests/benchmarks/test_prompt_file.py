"""Prompts of one's own: every kind of file gives the same prompts, and a broken one a line with its row."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sana_bench.benchmarks.prompt_file import read_geneval_prompts, read_prompts
from sana_bench.core.errors import UsageError

ROWS = [
    {"id": "a1", "prompt": 'a "red" cup, full', "tag": "cups", "style": "oil"},
    {"id": "b2", "prompt": "ein Löffel", "tag": "spoons", "style": "ink"},
]
CSV = 'id,prompt,tag,style\na1,"a ""red"" cup, full",cups,oil\nb2,ein Löffel,spoons,ink\n'


def write(path, text, encoding="utf-8"):
    path.write_text(text, encoding=encoding)
    return path


def as_parquet(path):
    pq.write_table(pa.Table.from_pylist([row | {"jpg": b"x"} for row in ROWS]), path)
    return path


KINDS = {
    "csv": lambda d: write(d / "p.csv", CSV),
    "csv of a spreadsheet": lambda d: write(d / "p.csv", CSV.replace("\n", "\r\n"), "utf-8-sig"),
    "tsv": lambda d: write(
        d / "p.tsv",
        'Item_ID\tCaption\tCategory\tstyle\na1\t"a ""red"" cup, full"\tcups\toil\nb2\tein Löffel\tspoons\tink\n',
    ),
    "jsonl": lambda d: write(d / "p.jsonl", "\n".join(map(json.dumps, ROWS)) + "\n\n"),
    "parquet": lambda d: as_parquet(d / "p.parquet"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_table_gives_the_same_prompts(kind, tmp_path):
    found = read_prompts(KINDS[kind](tmp_path))
    assert [(p.id, p.text, p.tag) for p in found.prompts] == [
        (row["id"], row["prompt"], row["tag"]) for row in ROWS
    ]
    assert [p.metadata for p in found.prompts] == [
        {name: row[name] for name in ("prompt", "tag", "style")} for row in ROWS
    ]
    assert (found.files, found.numbered) == ({}, False)


def test_lines_are_numbered_by_row(tmp_path):
    found = read_prompts(write(tmp_path / "p.txt", "a cup\n\na spoon\u2028bent\na cup\n"))
    assert [(p.id, p.text) for p in found.prompts] == [
        ("00000", "a cup"),
        ("00001", "a spoon\u2028bent"),
        ("00002", "a cup"),
    ]
    assert found.numbered


def test_a_folder_has_a_text_for_each_image(tmp_path):
    (tmp_path / "x").mkdir()
    write(tmp_path / "0002.txt", "a spoon\n")
    write(tmp_path / "x" / "1.txt", "a\ncup")
    found = read_prompts(tmp_path)
    assert [(p.id, p.text) for p in found.prompts] == [("0002", "a spoon"), ("x_1", "a cup")]
    assert found.files == {("0002", 0): "0002", ("x_1", 0): "x/1"}


def test_coco_captions_give_the_first_of_each_image(tmp_path):
    images = [{"id": 7, "file_name": "000000000007.jpg"}, {"id": 9, "file_name": "000000000009.jpg"}]
    captions = [(9, "a cat"), (7, "a dog\n"), (9, "one cat")]
    annotations = [{"image_id": image, "id": i, "caption": text} for i, (image, text) in enumerate(captions)]
    path = write(tmp_path / "c.json", json.dumps({"images": images, "annotations": annotations}))
    found = read_prompts(path)
    assert [(p.id, p.text) for p in found.prompts] == [("9", "a cat"), ("7", "a dog")]
    assert found.files == {("9", 0): "000000000009.jpg", ("7", 0): "000000000007.jpg"}


def test_rows_with_files_of_one_prompt_are_its_images(tmp_path):
    path = write(tmp_path / "p.csv", "caption,image\na cup,1.png\na spoon,2.png\na cup,3.png\n")
    found = read_prompts(path)
    assert [(p.id, p.text) for p in found.prompts] == [("00000", "a cup"), ("00001", "a spoon")]
    assert found.files == {("00000", 0): "1.png", ("00001", 0): "2.png", ("00000", 1): "3.png"}


def test_ids_that_start_again_in_every_category_are_told_apart_by_it(tmp_path):
    path = write(tmp_path / "p.csv", "category,id,prompt_en\nPortrait,000,a man\nGeneral_Object,000,a cup\n")
    assert [p.id for p in read_prompts(path).prompts] == ["Portrait_000", "General_Object_000"]


def test_ids_can_name_folders(tmp_path):
    path = write(tmp_path / "p.csv", "id,prompt\n../up,a\na b/c,b\n")
    assert [p.id for p in read_prompts(path).prompts] == ["_up", "a_b_c"]


def test_geneval_layout_keeps_the_whole_metadata(tmp_path):
    record = {"tag": "colors", "include": [{"class": "cup", "count": 1}], "prompt": "a photo of a red cup"}
    for name in ("00010", "00002"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "metadata.jsonl", json.dumps(record))
    found = read_geneval_prompts(tmp_path).prompts
    assert [(p.id, p.text, p.tag) for p in found] == [
        (name, record["prompt"], "colors") for name in ("00002", "00010")
    ]
    assert found[0].metadata == record


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        (
            "p.csv",
            "id,words\n1,a\n",
            r"p\.csv:2: no column of prompts \(prompt, caption, .*; it has id, words",
        ),
        ("p.csv", "id,prompt\n1,a\n2,\n", r"p\.csv:3: no prompt$"),
        (
            "p.csv",
            "id,prompt\n1,a, b\n",
            r"p\.csv:2: 3 values for 2 columns; a prompt with ',' in it stands in",
        ),
        ("p.csv", "id,prompt\n1,a\n1,b\n", r"p\.csv:3: the id '1' is that of .*p\.csv:2 already"),
        ("p.csv", "id,prompt\n1,a\n,b\n", r"p\.csv: some rows have an id and others have none"),
        ("p.csv", 'id,prompt\n1,"a\n', r"p\.csv:\d: unexpected end of data"),
        ("p.csv", "id,prompt\n", r"p\.csv: no prompts"),
        ("p.jsonl", '{"prompt": "a"}\nnonsense\n', r"p\.jsonl:2: not valid JSON"),
        ("p.jsonl", '{"prompt": "a \\ud83d"}\n', r"p\.jsonl:1: holds U\+D83D, half of a character$"),
        ("p.jsonl", "[1]\n", r"p\.jsonl:1: expected an object"),
        ("p.json", '{"images": []}', r"p\.json: no COCO captions: 'annotations' is missing"),
        ("p.parquet", "x", r"p\.parquet: no Parquet file: "),
        (
            "p.xlsx",
            "x",
            r"p\.xlsx: prompts are read from \.csv, \.tsv, \.jsonl, \.parquet, \.txt, \.json or a",
        ),
    ],
)
def test_a_broken_file_is_told_in_one_line(tmp_path, name, text, told):
    with pytest.raises(UsageError, match=told) as error:
        read_prompts(write(tmp_path / name, text))
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        read_prompts(tmp_path / "p.csv")
    (tmp_path / "latin.csv").write_bytes("prompt\nLöffel\n".encode("latin-1"))
    with pytest.raises(UsageError, match="is not UTF-8 text"):
        read_prompts(tmp_path / "latin.csv")
