"""Data sets as people have them: folders with captions, lists of files, tar shards and Parquet files, however spelt."""

import csv
import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as arrow
import pytest
from PIL import Image
from pyarrow import parquet

from sana_models.training.caption_choice import CaptionRule
from sana_models.training.data_folders import read_index
from sana_models.training.image_text import ImageTextData, Stage
from sana_models.training.records import BadRecords, Record
from tests.models.training.datasets import SIZES, caption, picture
from tests.small_parts import tiny_dc_ae


def index(*paths: Path, share: float = 0.0, **options) -> list[Record]:
    return read_index(paths, [], BadRecords(max_share=share), **options)


def texts(records: list[Record]) -> list[dict[str, str]]:
    return [dict(record.captions) for record in records]


def loose_images(folder: Path) -> Path:
    """Two levels, endings in both cases, a caption file of each kind."""
    (folder / "inner").mkdir(parents=True)
    Image.open(io.BytesIO(picture(0))).save(folder / "a.first.JPG", "JPEG")
    (folder / "a.first.txt").write_text(caption(0))
    (folder / "inner/b.PNG").write_bytes(picture(1))
    (folder / "inner/b.CAPTION").write_text(f" {caption(1)}\n")
    (folder / "inner/c.webp").write_bytes(picture(2))
    (folder / "inner/c.json").write_text(json.dumps({"caption": caption(2), "width": 5}))
    (folder / ".hidden").mkdir()
    (folder / ".hidden/d.png").write_bytes(picture(3))
    return folder


def image_list(folder: Path, ending: str) -> Path:
    folder.mkdir(parents=True)
    rows = [{"file_name": f"images/{n}.png", "text": caption(n)} for n in range(3)]
    (folder / "images").mkdir()
    for n in range(3):
        (folder / f"images/{n}.png").write_bytes(picture(n))
    path = folder / f"metadata.{ending}"
    if ending == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    elif ending == "csv":
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, ["file_name", "text"])
            writer.writeheader()
            writer.writerows(rows)
    else:
        parquet.write_table(arrow.Table.from_pylist(rows), path)
    return folder


def table(folder: Path, **columns) -> Path:
    folder.mkdir(parents=True)
    rows = {"image": [{"bytes": picture(n), "path": f"{n}.png"} for n in range(3)]}
    rows |= {"text": [caption(n) for n in range(3)], **columns}
    parquet.write_table(arrow.table(rows), folder / "train-00000-of-00001.parquet", row_group_size=2)
    return folder


def shard(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path.parent


def web_shards(folder: Path) -> Path:
    """As img2dataset writes them: text and facts a record, and beside the shard a table without images."""
    members: dict[str, bytes] = {}
    for n in range(3):
        height, width = SIZES[n]
        facts = {"caption": caption(n), "url": "x", "status": "success", "width": width, "height": height}
        members |= {f"00000000{n}.jpg": picture(n), f"00000000{n}.txt": caption(n).encode()}
        members[f"00000000{n}.json"] = json.dumps(facts).encode()
    shard(folder / "00000.tar", members)
    parquet.write_table(arrow.table({"caption": ["x"], "status": ["success"]}), folder / "00000.parquet")
    (folder / "00000_stats.json").write_text("{}")
    return folder


MAKERS = {
    "loose images": loose_images,
    "metadata.jsonl": lambda folder: image_list(folder, "jsonl"),
    "metadata.csv": lambda folder: image_list(folder, "csv"),
    "metadata.parquet": lambda folder: image_list(folder, "parquet"),
    "parquet": table,
    "img2dataset": web_shards,
}


@pytest.mark.parametrize("kind", MAKERS)
def test_every_kind_gives_its_images_and_captions(kind, tmp_path):
    folder = MAKERS[kind](tmp_path / "data")
    records = index(folder)
    assert texts(records) == [{"prompt": caption(n)} for n in range(3)]
    assert len({record.key for record in records}) == 3
    for n, record in enumerate(records):
        with Image.open(io.BytesIO(record.read())) as image:
            assert image.size == SIZES[n][::-1]
    # Sizes come from headers, whatever the bytes stand in.
    data = ImageTextData(
        records,
        tiny_dc_ae(),
        stages=[Stage(until=9, image_size=16)],
        patch_size=1,
        rule=CaptionRule(),
        bad=BadRecords(max_share=0.0),
        seed=0,
    )
    assert [data.size_of(record) for record in records] == list(SIZES[:3])


def test_a_file_of_a_kind_is_a_data_set_too(tmp_path):
    listed = image_list(tmp_path / "list", "jsonl")
    (listed / "metadata.jsonl").rename(listed / "train.jsonl")
    assert len(index(listed / "train.jsonl")) == 3
    assert len(index(next(table(tmp_path / "table").iterdir()))) == 3
    assert len(index(web_shards(tmp_path / "shards") / "00000.tar")) == 3


def test_a_list_speaks_for_the_images_below_it(tmp_path):
    folder = image_list(tmp_path / "data", "jsonl")
    (folder / "images/extra.png").write_bytes(picture(3))
    assert len(index(folder)) == 3


def test_only_the_header_of_an_image_is_read_for_its_size(tmp_path, monkeypatch):
    path = tmp_path / "data/large.bmp"
    path.parent.mkdir()
    Image.fromarray(np.zeros((2000, 1000, 3), np.uint8)).save(path)
    path.with_suffix(".txt").write_text("black")
    (record,) = index(path.parent)
    read = 0

    class Counting(io.FileIO):
        def readinto(self, buffer):
            nonlocal read
            count = super().readinto(buffer)
            read += count
            return count

    monkeypatch.setattr(
        "sana_models.training.records.open_plain", lambda path: io.BufferedReader(Counting(path))
    )
    from sana_models.training.image_text import _stored_size

    assert _stored_size(record) == (2000, 1000)
    # Of 6 MB; a buffer is 128 kB at most.
    assert 0 < read < 300_000


def test_several_captions_with_weights(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.png").write_bytes(picture(0))
    facts = {"captions": ["short", {"text": "long", "weight": 3}], "other": "elsewhere"}
    (folder / "a.json").write_text(json.dumps(facts))
    (record,) = index(folder)
    assert record.captions == {"prompt": "short", "prompt.1": "long"}
    found = CaptionRule().probabilities(record.captions, record.scores, record.weights)
    assert found == {"prompt": 0.25, "prompt.1": 0.75}
    # Keys of the user's choice are types of their own, whose weights the configuration may give.
    (record,) = index(folder, keys=["other", "captions", "absent"])
    assert record.captions == {"other": "elsewhere", "captions": "short", "captions.1": "long"}
    rule = CaptionRule(weights={"captions": 0, "other": 1})
    assert rule.probabilities(record.captions, {}, record.weights) == {"other": 0.25, "captions.1": 0.75}
    # Where there are scores, weights multiply what they say: here the same for all three.
    scores = dict.fromkeys(record.captions, 20.0)
    scored = CaptionRule(temperature=2.0).probabilities(record.captions, scores, record.weights)
    assert scored == pytest.approx({"other": 0.2, "captions": 0.2, "captions.1": 0.6}, abs=1e-12)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"caption": "  "}, "has no caption"),
        ({"caption": 3}, "caption 3 is no text"),
        ([1], "not in a JSON object"),
        ({"caption": [{"text": "a", "weight": -1}]}, "caption weight -1 is no number"),
        (
            {"caption": [{"text": "a", "weight": 0}, {"text": "b", "weight": 0}]},
            "weights of its captions are all 0",
        ),
        ({"caption": [None]}, "caption None is no text"),
    ],
)
def test_captions_that_are_none_are_bad_records(tmp_path, facts, message):
    (tmp_path / "a.png").write_bytes(picture(0))
    (tmp_path / "a.json").write_text(json.dumps(facts))
    (tmp_path / "b.png").write_bytes(picture(1))
    (tmp_path / "b.txt").write_text("good")
    bad = BadRecords(max_share=0.5)
    assert len(read_index([tmp_path], [], bad)) == 1
    assert message in bad.reasons[f"{tmp_path}/a.png"]


def test_bad_rows_are_told_apart(tmp_path):
    folder = image_list(tmp_path / "data", "jsonl")
    with (folder / "metadata.jsonl").open("a") as stream:
        stream.write(
            '\n{"file_name": "../x.png", "text": "a"}\n{"file_name": "gone.png", "text": "a"}\n{"text": "a"}\n{'
        )
    bad = BadRecords(max_share=0.9)
    assert len(read_index([folder], [], bad)) == 3
    assert [reason.partition(":")[0] for reason in bad.reasons.values()] == [
        "its name leaves the folder",
        "no such image",
        "row 6 has no file_name",
        "Expecting property name enclosed in double quotes",
    ]
    assert list(bad.reasons)[1] == f"{folder}/gone.png"


def test_a_cell_without_bytes_and_a_cut_table(tmp_path):
    images = [{"bytes": None if n == 0 else picture(n), "path": f"{n}.png"} for n in range(3)]
    folder = table(tmp_path / "data", image=images)
    bad = BadRecords(max_share=0.5)
    records = read_index([folder], [], bad)
    with pytest.raises(ValueError, match="no image bytes"):
        records[0].read()
    (path,) = folder.iterdir()
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged Parquet file"):
        index(folder)


def test_the_column_of_images_is_found_or_named(tmp_path):
    columns = {"picture": [picture(n) for n in (2, 1, 0)]}
    folder = table(tmp_path / "data", **columns)
    assert index(folder)[0].read() == picture(0)
    assert index(folder, image_key="picture")[0].read() == picture(2)
    with pytest.raises(
        ValueError, match=r"no column 'imgae' \(data.image_key\); found: image, text, picture"
    ):
        index(folder, image_key="imgae")


def test_a_folder_of_two_kinds_is_refused(tmp_path):
    folder = web_shards(loose_images(tmp_path / "data") / "shards").parent
    with pytest.raises(ValueError, match="holds tar shards and images; name the folder of each"):
        index(folder)
    with pytest.raises(ValueError, match="no such file or folder"):
        index(tmp_path / "absent")


def test_keys_of_shards_are_those_of_webdataset(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    members = {}
    for n, stem in enumerate(("plain", "in/folder", "in.dotted/x", "./led")):
        members |= {
            f"{stem}.PNG": picture(n),
            f"{stem}.seg.map.png": b"x",
            f"{stem}.txt": caption(n).encode(),
        }
    folder = shard(tmp_path / "shards/00000.tar", members)
    theirs = list(webdataset.WebDataset(str(folder / "00000.tar"), shardshuffle=False))
    ours = index(folder)
    assert [record.key.removeprefix(f"{folder}/00000.tar/") for record in ours] == [
        sample["__key__"] for sample in theirs
    ]
    assert [record.read() for record in ours] == [sample["png"] for sample in theirs]
    assert [record.captions["prompt"] for record in ours] == [sample["txt"].decode() for sample in theirs]


def test_a_record_at_the_cut_of_a_shard_is_bad(tmp_path):
    folder = web_shards(tmp_path / "shards")
    path = folder / "00000.tar"
    path.write_bytes(path.read_bytes()[:6000])
    bad = BadRecords(max_share=1.0)
    assert len(read_index([folder], [], bad)) < 3
    assert any("#" in key for key in bad.reasons)


def test_a_pipe_in_an_images_place_is_a_bad_record(tmp_path):
    import os

    folder = loose_images(tmp_path / "data")
    os.mkfifo(folder / "pipe.png")
    shutil.copy(folder / "a.first.txt", folder / "pipe.txt")
    bad = BadRecords(max_share=0.5)
    ImageTextData(
        read_index([folder], [], bad),
        tiny_dc_ae(),
        stages=[Stage(until=9, image_size=16)],
        patch_size=1,
        rule=CaptionRule(),
        bad=bad,
        seed=0,
    )
    assert list(bad.reasons) == [f"{folder}/pipe.png"]
    assert "named pipe" in bad.reasons[f"{folder}/pipe.png"]
