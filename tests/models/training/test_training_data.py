"""Training data: both input formats, caption choice, buckets and stages, caches, and bad records."""

import json
import math
import os
import time
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sana_models.aspect_ratios import bucket_size, training_bucket
from sana_models.dc_ae import DCAE
from sana_models.training.caption_choice import CaptionRule
from sana_models.training.data_folders import read_index
from sana_models.training.image_text import ImageTextData, Stage
from sana_models.training.latents import load_image
from sana_models.training.records import BadRecords
from tests.models.training.datasets import SIZES, caption, picture, write_folder, write_shards
from tests.small_parts import tiny_dc_ae


@pytest.fixture(scope="module")
def autoencoder() -> DCAE:
    return tiny_dc_ae()


def make_data(paths, autoencoder, *, bad=None, **options) -> ImageTextData:
    bad = bad or BadRecords(max_share=0.0)
    records = read_index([*paths] if isinstance(paths, (list, tuple)) else [paths], ["_vlm"], bad)
    values = {
        "stages": [Stage(until=1000, image_size=16)],
        "patch_size": 1,
        "rule": CaptionRule(),
        "bad": bad,
        "seed": 3,
    }
    return ImageTextData(records, autoencoder, **(values | options))


def draw(data: ImageTextData, step: int, size: int = 4, rows: slice = slice(None)):
    return data.batch(step, size, rows, torch.Generator().manual_seed(step))


def test_a_folder_is_read_with_its_further_captions_and_scores(tmp_path: Path):
    records = read_index([write_folder(tmp_path / "dots", 5)], ["_vlm"], BadRecords(max_share=0.0))
    assert [record.key for record in records] == [
        f"{tmp_path}/dots/{name}" for name in ("0000.png", "0001", "0002.png", "0003", "0004.png")
    ]
    assert records[3].captions == {"prompt": caption(3), "vlm": f"{caption(3)} dot"}
    assert records[3].scores == {"prompt": 23.0, "vlm": 27.5}


def test_tar_shards_are_indexed_without_unpacking(tmp_path: Path):
    folder = write_shards(tmp_path / "shards", (3, 2))
    records = read_index([folder], [], BadRecords(max_share=0.0))
    assert [record.key for record in records][2:4] == [
        f"{folder}/00000.tar/000002",
        f"{folder}/00001.tar/000003",
    ]
    assert [record.size for record in records] == [SIZES[index % 4] for index in range(5)]
    assert records[4].scores == {"prompt": 24.0}
    pixels = load_image(records[3].read(), *SIZES[3])
    # Picture 3 is red, 183 of 255, in its lower right part.
    assert float(pixels[0, -1, -1]) == pytest.approx(183 / 127.5 - 1, abs=1e-6)
    assert float(pixels[2].max()) == -1


def test_softmax_and_power_law_by_hand():
    captions = {"prompt": "a", "x": "b", "y": "c"}
    scores = {"prompt": 24.0, "x": 26.0, "y": 28.0}
    soft = CaptionRule(temperature=2.0).probabilities(captions, scores)
    total = sum(math.exp(score / 2) for score in scores.values())
    assert soft == pytest.approx({kind: math.exp(score / 2) / total for kind, score in scores.items()})
    power = CaptionRule(rule="power", temperature=0.1, threshold=25.0).probabilities(captions, scores)
    assert power == pytest.approx({"x": 26**10 / (26**10 + 28**10), "y": 28**10 / (26**10 + 28**10)})


@pytest.mark.parametrize("rule", ["softmax", "power"])
def test_edges_of_the_caption_rules(rule):
    captions = {"prompt": "a", "x": "b"}
    cold = CaptionRule(rule=rule, temperature=0.0, threshold=0.0)
    assert cold.probabilities(captions, {"prompt": 20.0, "x": 30.0})["x"] == pytest.approx(1, abs=1e-12)
    assert CaptionRule(rule=rule).probabilities(captions, {}) == {"prompt": 1.0}
    assert CaptionRule(rule=rule).probabilities({"x": "b"}, {}) == {"x": 1.0}
    none_pass = CaptionRule(rule="power", threshold=99.0).probabilities(captions, {"prompt": 20.0, "x": 19.0})
    assert none_pass == {"prompt": 1.0}
    with pytest.raises(ValueError, match="no caption"):
        CaptionRule(rule=rule).probabilities({}, {})
    with pytest.raises(ValueError, match="caption_rule"):
        CaptionRule(rule="best")


def test_drawn_captions_follow_the_probabilities():
    rule = CaptionRule(temperature=2.0)
    captions, scores = {"prompt": "a", "x": "b"}, {"prompt": 25.0, "x": 27.0}
    uniform = np.random.default_rng(0).random(4000)
    counts = Counter(rule.choose(captions, scores, value) for value in uniform)
    # Four standard errors of a share near 0.73 over 4000 draws are 0.028.
    assert counts["b"] / 4000 == pytest.approx(1 / (1 + math.exp(-1)), abs=0.028)
    assert rule.choose(captions, scores, 1 - 1e-17) == "b"


def test_every_batch_is_of_one_bucket_and_an_epoch_shows_every_image(tmp_path: Path, autoencoder):
    data = make_data(write_folder(tmp_path / "dots", 16), autoencoder)
    shapes, seen = set(), set()
    # Buckets at 16 pixels: 8 square images in two batches of 4, 4 wide ones and 4 tall ones in one each.
    for step in range(4):
        latents, _ = draw(data, step)
        shapes.add(tuple(latents.shape[2:]))
        seen |= set(data._plan(step, 4)[1])
    assert len(shapes) == 3
    assert seen == set(range(16))
    epochs = [[tuple(data._plan(4 * epoch + step, 4)[1]) for step in range(4)] for epoch in range(2)]
    assert epochs[0] != epochs[1]


def test_a_batch_depends_on_seed_and_step_alone_and_its_rows_make_the_whole(tmp_path: Path, autoencoder):
    folder = write_folder(tmp_path / "dots", 12)
    data = make_data(folder, autoencoder)
    expected = [draw(data, step) for step in range(9)]
    fresh = make_data(folder, autoencoder)
    for step in (7, 2, 8):
        latents, captions = draw(fresh, step)
        assert torch.equal(latents, expected[step][0])
        assert captions == expected[step][1]
    halves = [draw(fresh, 5, rows=rows) for rows in (slice(0, 2), slice(2, 4))]
    assert torch.equal(torch.cat([half[0] for half in halves]), expected[5][0])
    assert halves[0][1] + halves[1][1] == expected[5][1]


def test_published_buckets_are_used_where_there_are_some_and_scaled_elsewhere():
    assert training_bucket(700, 1000, 1024, unit=32) == bucket_size(700, 1000, 1024)
    assert training_bucket(50, 50, 64, unit=8) == (64, 64)
    height, width = training_bucket(100, 200, 64, unit=8)
    assert (height % 8, width % 8) == (0, 0)
    assert width / height == pytest.approx(2.0, rel=0.15)
    assert training_bucket(1, 1000, 64, unit=8) == (32, 128)


def test_stages_change_the_resolution_and_the_batch(tmp_path: Path, autoencoder):
    stages = [Stage(until=2, image_size=8, batch_size=6), Stage(until=4, image_size=16)]
    data = make_data(write_folder(tmp_path / "dots", 4), autoencoder, stages=stages, use_buckets=False)
    sizes = [data.batch_size(step, 2) for step in range(5)]
    assert sizes == [6, 6, 2, 2, 2]
    shapes = [tuple(draw(data, step, size)[0].shape) for step, size in enumerate(sizes)]
    assert shapes == [(6, 4, 4, 4)] * 2 + [(2, 4, 8, 8)] * 3
    with pytest.raises(ValueError, match="rising"):
        make_data(tmp_path / "dots", autoencoder, stages=stages[::-1])


def test_cached_latents_are_the_encoded_ones_and_are_not_made_again(tmp_path: Path, autoencoder, monkeypatch):
    folder = write_folder(tmp_path / "dots", 8)
    plain = [draw(make_data(folder, autoencoder), step)[0] for step in range(4)]
    cached = make_data(folder, autoencoder, cache=tmp_path / "cache", cache_identity="a")
    assert all(torch.equal(draw(cached, step)[0], plain[step]) for step in range(4))

    def refuse(images):
        raise AssertionError("encoded again")

    monkeypatch.setattr(autoencoder, "encode", refuse)
    again = make_data(folder, autoencoder, cache=tmp_path / "cache", cache_identity="a")
    assert all(torch.equal(draw(again, step)[0], plain[step]) for step in range(4))
    other = make_data(folder, autoencoder, cache=tmp_path / "cache", cache_identity="b")
    with pytest.raises(AssertionError, match="encoded again"):
        draw(other, 0)


def test_an_image_replaced_in_place_is_encoded_again(tmp_path: Path, autoencoder):
    """At equal size and time, as rsync -t and tar leave it."""
    folder = write_folder(tmp_path / "dots", 1)
    (path,) = folder.glob("*.png")
    pixels = np.asarray(Image.open(path))
    versions = []
    for content in (pixels, 255 - pixels):
        Image.fromarray(content).save(tmp_path / "new.bmp")
        path.write_bytes((tmp_path / "new.bmp").read_bytes())
        os.utime(path, ns=(10**18, 10**18))
        data = make_data(folder, autoencoder, cache=tmp_path / "cache", cache_identity="a")
        versions.append((path.stat().st_size, draw(data, 0)[0]))
        time.sleep(0.05)  # a tick of the file system's clock is 10 ms or less
    assert versions[0][0] == versions[1][0]
    assert not torch.equal(versions[0][1], versions[1][1])


def test_cached_latents_of_another_precision_are_not_used(tmp_path: Path, autoencoder):
    folder = write_folder(tmp_path / "dots", 8)
    plain = draw(make_data(folder, autoencoder), 0)[0]
    data = make_data(folder, autoencoder, cache=tmp_path / "cache")
    with torch.autocast("cpu", torch.bfloat16):
        narrow = draw(data, 0)[0]
    assert not torch.equal(narrow, plain)
    assert torch.equal(draw(data, 0)[0], plain)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(draw(data, 0)[0], narrow)


def test_stored_latents_are_used_as_they_are(tmp_path: Path, autoencoder):
    data = make_data(write_shards(tmp_path / "shards", (4,), latents=True), autoencoder)
    latents, captions = draw(data, 0)
    assert latents.shape == (4, 4, 2, 3)
    by_value = sorted((float(latent[0, 0, 0]), text) for latent, text in zip(latents, captions, strict=True))
    # Halves of tenths, as the file has them.
    assert [value for value, _ in by_value] == pytest.approx([0, 0.1, 0.2, 0.3], abs=1e-3)
    assert [text for _, text in by_value] == [caption(index) for index in range(4)]


def test_data_sets_with_equal_names_and_keys_are_kept_apart(tmp_path: Path, autoencoder):
    """Same folder name, shard name and keys, one a directory deeper; other sizes, other latents, other damage."""
    first, second = write_shards(tmp_path / "a" / "dots", (4,)), write_shards(tmp_path / "b" / "dots", (4,))
    rewrite = {path.name: path.read_bytes() for path in second.iterdir()}
    # The second's pictures are those of the first in another order, under the same keys.
    pictures = read_index([first], [], BadRecords(max_share=0.0))
    content = rewrite["00000.tar"]
    swapped = content.replace(pictures[0].read(), b"0" * len(pictures[0].read()))
    (second / "00000.tar").write_bytes(swapped)
    bad = BadRecords(max_share=0.5, path=tmp_path / "bad.csv")
    data = make_data([first, second], autoencoder, bad=bad, use_buckets=False, cache=tmp_path / "cache")
    assert len({record.key for record in data.records}) == 8
    for step in range(4):
        draw(data, step)
    assert set(bad.reasons) == {f"{second}/00000.tar/000000"}
    # What the other data set's picture is remembered as is its own.
    alone = make_data(first, autoencoder, use_buckets=False)
    assert torch.equal(data._latent(data.records[0], (16, 16)), alone._latent(alone.records[0], (16, 16)))


def test_sizes_of_equal_keys_do_not_mix(tmp_path: Path, autoencoder):
    first, second = write_folder(tmp_path / "a" / "dots", 4), write_folder(tmp_path / "b" / "dots", 4)
    # Square here, wide there.
    (second / "0000.png").write_bytes(picture(2))
    data = make_data([first, second], autoencoder)
    sizes = {record.key: data._bucket(record, 16) for record in data.records}
    assert sizes[f"{first}/0000.png"] == training_bucket(*SIZES[0], 16, unit=2)
    assert sizes[f"{second}/0000.png"] == training_bucket(*SIZES[2], 16, unit=2)


def test_images_below_the_score_are_left_out(tmp_path: Path, autoencoder):
    data = make_data(write_shards(tmp_path / "shards", (6,)), autoencoder, minimum_score=23.0)
    assert [record.key[-1] for record in data.records] == ["3", "4", "5"]
    with pytest.raises(ValueError, match="none of 6"):
        make_data(tmp_path / "shards", autoencoder, minimum_score=99.0)


def damage(folder: Path) -> None:
    """Five kinds of damage in a folder of 20."""
    (folder / "0001.png").unlink()
    (folder / "0002.png").write_bytes(b"not an image")
    (folder / "0003.txt").unlink()
    (folder / "0003_vlm.json").unlink()
    (folder / "0004_vlm_clip_score.json").write_text("{")
    # Its header is whole, its pixels are not: found when it is first used.
    content = (folder / "0005.png").read_bytes()
    (folder / "0005.png").write_bytes(content[:60])


def test_bad_records_are_skipped_counted_and_remembered(tmp_path: Path, autoencoder):
    folder = write_folder(tmp_path / "dots", 20)
    damage(folder)
    path = tmp_path / "bad.csv"
    bad = BadRecords(max_share=0.25, path=path)
    data = make_data(folder, autoencoder, bad=bad)
    for step in range(8):
        assert bool(torch.isfinite(draw(data, step)[0]).all())
    assert set(bad.reasons) == {
        f"{folder}/{name}" for name in ("0001", "0002.png", "0003", "0004.png", "0005")
    }
    assert bad.reasons[f"{folder}/0003"] == "has no caption"
    assert bad.total == 20
    again = BadRecords(max_share=0.25, path=path)
    assert again.reasons == bad.reasons
    assert make_data(folder, autoencoder, bad=again).bad.total == 20
    assert len(path.read_text().splitlines()) == 5


def test_too_large_a_share_of_bad_records_stops_the_run(tmp_path: Path, autoencoder):
    folder = write_folder(tmp_path / "dots", 20)
    damage(folder)
    # Three are found in the index, the fourth when headers are read, the last in use.
    with pytest.raises(
        ValueError, match=r"3 of 20 training records are bad, more than the allowed share 0\.1"
    ):
        make_data(folder, autoencoder, bad=BadRecords(max_share=0.1))
    with pytest.raises(ValueError, match="4 of 20"):
        make_data(folder, autoencoder, bad=BadRecords(max_share=0.15))
    late = make_data(folder, autoencoder, bad=BadRecords(max_share=0.2))
    with pytest.raises(ValueError, match="5 of 20"):
        list(map(partial(draw, late), range(8)))


def test_damaged_shards_lose_only_what_is_damaged(tmp_path: Path, autoencoder):
    folder = write_shards(tmp_path / "shards", (4, 4))
    path = folder / "00000.tar"
    content = path.read_bytes()
    # Each record takes two headers and two padded files, 2048 bytes; the cut is inside the third.
    path.write_bytes(content[: 2048 * 2 + 600])
    bad = BadRecords(max_share=0.5)
    records = read_index([folder], [], bad)
    assert len(records) == 6
    assert len(bad.reasons) == 2
    (folder / "00001.tar").write_bytes(b"x" * 600)
    bad = BadRecords(max_share=1.0)
    assert len(read_index([folder], [], bad)) == 2
    assert len(bad.reasons) == 6


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("meta_data.json", "{", "not valid JSON"),
        ("meta_data.json", '{"__kind__": "Other"}', "__kind__ is 'Other'"),
        ("meta_data.json", '{"__kind__": "Sana-ImgDataset", "img_names": 3}', "img_names"),
        (
            "wids-meta.json",
            '{"__kind__": "SANA-WebDataset", "shardlist": [{"url": "../x.tar"}]}',
            "not a file in this",
        ),
        ("other.json", "{}", "holds no images"),
    ],
)
def test_bad_indices_are_one_clear_line(tmp_path: Path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_index([tmp_path], [], BadRecords(max_share=1.0))
    assert "\n" not in str(caught.value)


def test_names_that_leave_the_folder_are_bad(tmp_path: Path):
    folder = write_folder(tmp_path / "dots", 3)
    meta = json.loads((folder / "meta_data.json").read_text())
    meta["img_names"].append("../secret.png")
    (folder / "meta_data.json").write_text(json.dumps(meta))
    bad = BadRecords(max_share=0.5)
    assert len(read_index([folder], [], bad)) == 3
    assert bad.reasons == {f"{folder}/../secret.png": "its name leaves the folder"}


def test_a_folder_of_links_is_read_as_one_of_files(tmp_path: Path):
    """The hub's cache keeps the bytes elsewhere, and links to them under the names."""
    folder = write_folder(tmp_path / "dots", 3)
    shards = write_shards(tmp_path / "shards", (2,))
    for path in [*folder.iterdir(), *shards.iterdir()]:
        blob = tmp_path / "blobs" / f"{path.parent.name}-{path.name}"
        blob.parent.mkdir(exist_ok=True)
        path.replace(blob)
        path.symlink_to(blob)
    bad = BadRecords(max_share=0.0)
    assert len(read_index([folder, shards], [], bad)) == 5
    assert bad.reasons == {}


def test_captions_with_a_byte_order_mark_are_the_same(tmp_path: Path):
    folder = write_folder(tmp_path / "dots", 2)
    plain = read_index([folder], ["_vlm"], BadRecords(max_share=0.0))
    for path in [*folder.glob("*.txt"), *folder.glob("*.json")]:
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_index([folder], ["_vlm"], BadRecords(max_share=0.0)) == plain


def test_half_of_a_character_is_a_bad_record(tmp_path: Path):
    folder = write_folder(tmp_path / "dots", 2)
    (folder / "0001_vlm.json").write_text('{"0001": {"vlm": "a \\ud83d"}}')
    bad = BadRecords(max_share=0.5, path=tmp_path / "bad.csv")
    assert [record.key for record in read_index([folder], ["_vlm"], bad)] == [f"{folder}/0000.png"]
    assert "surrogates not allowed" in bad.reasons[f"{folder}/0001"]
    assert BadRecords(max_share=0.5, path=tmp_path / "bad.csv").reasons == bad.reasons
