"""Data and configurations as they go wrong at people's hands: `--check` and the training say the same, in one line."""

import csv
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from sana_bench.cli.main import execute
from sana_models.training.captions import CaptionReader
from sana_models.training.data_folders import read_index
from sana_models.training.records import BadRecords
from tests.tiny_weights import write_tiny_pipeline

ALL_ZERO = {"captions": [{"text": "a", "weight": 0}, {"text": "b", "weight": 0}]}


def picture() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (40, 40), "red").save(stream, "PNG")
    return stream.getvalue()


def pictures(folder: Path, count: int = 4) -> Path:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.png").write_bytes(picture())
        (folder / f"{number}.txt").write_text("a red dot")
    return folder


def shard(path: Path, mode: str = "w") -> None:
    with tarfile.open(path, mode) as archive:
        for number in range(4):
            for name, content in ((f"{number}.png", picture()), (f"{number}.txt", b"a red dot")):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def weights_of_nothing(folder: Path) -> None:
    for path in pictures(folder).glob("*.txt"):
        path.unlink()
        path.with_suffix(".json").write_text(json.dumps(ALL_ZERO))


def compressed_shard(folder: Path) -> None:
    folder.mkdir()
    shard(folder / "a.tar", "w:gz")


def compressed_shard_by_name(folder: Path) -> None:
    folder.mkdir()
    shard(folder / "a.tar.gz", "w:gz")


def empty_shard(folder: Path) -> None:
    folder.mkdir()
    (folder / "a.tar").write_bytes(b"")


def long_field(folder: Path) -> None:
    pictures(folder)
    (folder / "metadata.csv").write_text(f"file_name,text\n0.png,{'a' * 200_000}\n")


def empty_latent(folder: Path) -> None:
    folder.mkdir()
    np.save(folder / "0.npy", np.zeros((8, 0, 2), np.float32))
    (folder / "0.txt").write_text("a red dot")


def promise_of_words(folder: Path) -> None:
    folder.mkdir()
    index = {"__kind__": "SANA-WebDataset", "shardlist": [{"url": "a.tar", "nsamples": "many"}]}
    (folder / "wids-meta.json").write_text(json.dumps(index))


def promise_of_a_billion(folder: Path) -> None:
    folder.mkdir()
    index = {"__kind__": "SANA-WebDataset", "shardlist": [{"url": "a.tar", "nsamples": 10**9}]}
    (folder / "wids-meta.json").write_text(json.dumps(index))


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    return write_tiny_pipeline(tmp_path_factory.mktemp("start") / "start")


def told(config: dict, capsys, *more: str) -> str:
    """Write a configuration that is refused and return the one line."""
    Path("c.yaml").write_text(yaml.safe_dump(config))
    assert execute(["train", "c.yaml", "-o", "out", *more]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def configuration(start: Path, *paths: str, **data) -> dict:
    data = {"source": "images", "paths": list(paths), "image_size": 64, **data}
    training = {"steps": 1, "batch_size": 4, "learning_rate": 1e-4}
    return {"kind": "sana", "name": "dots", "start": str(start), "data": data, "training": training}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (weights_of_nothing, "0.png: the weights of its captions are all 0"),
        (compressed_shard, "is compressed, and records are read by their place: unpack it to a plain .tar"),
        (compressed_shard_by_name, "is compressed, and records are read by their place"),
        (empty_shard, "a.tar#0: empty file"),
        (long_field, "metadata.csv: damaged CSV file (field larger than field limit"),
        (empty_latent, "0.npy: latent has shape (8, 0, 2)"),
        (promise_of_words, "nsamples of a.tar is 'many', not a number"),
        (promise_of_a_billion, "a.tar#0: No such file or directory"),
    ],
)
def test_a_folder_without_images_is_told_with_the_reason(start, make, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "data")
    for more in (["--check"], []):
        assert message in told(configuration(start, "data"), capsys, *more)


def test_values_that_no_training_can_have(start, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "data")
    good = configuration(start, "data")
    for key, value, message in (
        (
            "image_size",
            10**9,
            "data.image_size is 1000000000; expected a whole number, at least 1, at most 16384",
        ),
        ("caption_suffixes", ["_" * 300], "is no part of a file's name"),
        ("caption_suffixes", ["../x"], "data.caption_suffixes: '../x' is no part of a file's name"),
        ("paths", ["data", "./data"], "data.paths: what is in data is named twice, by data too"),
        ("paths", ["data/0.png"], "data/0.png: is one image; name its folder"),
        ("caption_weights", {"prompt": 0}, "the weights of its captions are all 0"),
    ):
        assert message in told(good | {"data": good["data"] | {key: value}}, capsys, "--check")
    training = good["training"] | {"batch_size": 10**6}
    assert "training.batch_size is 1000000; expected a whole number, at least 1, at most 65536" in told(
        good | {"training": training}, capsys, "--check"
    )
    (tmp_path / "a.pth").write_bytes(b"weights")
    for more in (["--check"], []):
        assert "start is 'a.pth', a file; give the folder or hub id of a pipeline" in told(
            good | {"start": "a.pth"}, capsys, *more
        )
    assert "validation.paths holds out every training image" in told(
        good | {"validation": {"every": 1, "paths": ["data"]}}, capsys
    )


def test_a_folder_that_is_held_out_is_not_trained_on(start, tmp_path, monkeypatch, capsys):
    """Also where it is a part of the training images, by another name."""
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "data", 6)
    pictures(tmp_path / "data/apart", 2)
    config = configuration(start, "data") | {
        "validation": {"every": 1, "paths": [str(tmp_path / "data/apart")]}
    }
    seen = []
    from sana_models.training import image_text

    kept = image_text.ImageTextData.__init__

    def watch(self, records, *arguments, **options):
        seen.extend(record.key for record in records)
        kept(self, records, *arguments, **options)

    monkeypatch.setattr(image_text.ImageTextData, "__init__", watch)
    Path("c.yaml").write_text(yaml.safe_dump(config))
    assert execute(["train", "c.yaml", "-o", "out"]) == 0
    assert sorted(seen) == [f"data/{number}.png" for number in range(6)]
    rows = csv.DictReader(io.StringIO(Path("out/curve.csv").read_text()))
    assert any(row["validation_loss"] for row in rows)


def test_check_finds_the_latents_that_training_would_not_use(start, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data"
    folder.mkdir()
    arrays = [np.zeros((8, 2, 2))] * 4 + [np.full((8, 2, 2), np.nan), np.zeros((4, 2, 2))]
    for number, array in enumerate(arrays):
        np.save(folder / f"{number}.npy", array)
        (folder / f"{number}.txt").write_text("a red dot")
    Path("c.yaml").write_text(yaml.safe_dump(configuration(start, "data", max_bad_share=0.5)))
    assert execute(["train", "c.yaml", "--check", "-o", "out"]) == 0
    out = capsys.readouterr().out
    assert "data/4.npy: latent is not finite" in out
    assert "data/5.npy: latent has shape (4, 2, 2), expected (8, h, w)" in out


def test_a_size_that_cannot_be_is_asked_of_the_image(tmp_path):
    pictures(tmp_path / "data", 8)
    heights = [0, -5, "x", None, True, [40], "40", 40.0]
    lines = [{"file_name": f"{n}.png", "text": "a", "height": h, "width": 40} for n, h in enumerate(heights)]
    (tmp_path / "data/metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    bad = BadRecords(max_share=0)
    sizes = [record.size for record in read_index([tmp_path / "data"], (), bad)]
    assert sizes == [None] * 6 + [(40, 40)] * 2


def test_a_score_that_is_not_finite_is_none(tmp_path):
    (tmp_path / "0_llm.json").write_text('{"0": {"llm": "a dot", "own": "dot"}}')
    (tmp_path / "0_llm_clip_score.json").write_text('{"0": {"llm": NaN, "own": 20}}')
    found = CaptionReader(("_llm",)).beside(tmp_path / "0", "0")
    assert found.scores == {"own": 20.0}
    assert set(found.texts) == {"llm", "own"}
