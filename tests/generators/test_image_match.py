"""Which image of a folder is which sample: every way of naming, and no guess where two would do."""

import json

import numpy as np
import pytest
from PIL import Image

from sana_bench.core.errors import AssetError, UsageError
from sana_bench.core.samples import Prompt
from sana_bench.generators.image_match import match_images, number_images


def prompts(*ids):
    return [Prompt(name, f"text of {name}", "all") for name in ids]


@pytest.fixture
def folder(tmp_path):
    def made(*names):
        for name in names:
            path = tmp_path / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)
        return tmp_path / "images"

    return made


def found(folder, asked, named=None, **more):
    match = match_images(folder, asked, named, **more)
    pairs = {place: path.relative_to(folder).as_posix() for place, path in match.found.files.items()}
    return pairs, match.found.surplus


@pytest.mark.parametrize(
    "name", ["0001.png", "prompt_0001.png", "1.jpg", "image-1.webp", "IMG_0001.PNG", "deep/0001.png"]
)
def test_by_id_in_the_name(folder, name):
    assert found(folder(name), prompts("0001", "0002")) == ({("0001", 0): name}, ())


def test_several_images_count_from_one_or_from_zero(folder):
    asked = prompts("0001", "0002")
    from_one = folder("0001.png", "0001_02.png", "0002_01.png", "0002_03.png")
    assert found(from_one, asked)[0] == {
        ("0001", 0): "0001.png",
        ("0001", 1): "0001_02.png",
        ("0002", 0): "0002_01.png",
        ("0002", 2): "0002_03.png",
    }
    from_zero = folder("0002_00.png")
    (from_zero / "0001.png").unlink()
    assert found(from_zero, asked)[0] == {
        ("0001", 2): "0001_02.png",
        ("0002", 1): "0002_01.png",
        ("0002", 3): "0002_03.png",
        ("0002", 0): "0002_00.png",
    }


def test_a_folder_for_each_prompt(folder):
    pairs, _ = found(folder("7/0.png", "7/1.png", "8/0.png"), prompts("7", "8"))
    assert pairs == {("7", 0): "7/0.png", ("7", 1): "7/1.png", ("8", 0): "8/0.png"}


def test_oneig_layout(folder):
    images = folder("anime/mine/000.webp", "human/mine/000.webp", "human/mine/001.webp")
    pairs, surplus = found(images, prompts("Anime_Stylization_000", "Portrait_000", "Portrait_001"))
    assert pairs == {
        ("Anime_Stylization_000", 0): "anime/mine/000.webp",
        ("Portrait_000", 0): "human/mine/000.webp",
        ("Portrait_001", 0): "human/mine/001.webp",
    }
    assert surplus == ()


def test_two_models_in_one_folder_are_refused(folder):
    images = folder("human/a/000.webp", "human/b/000.webp")
    with pytest.raises(AssetError, match=r"human/a/000\.webp and human/b/000\.webp would both be image 0"):
        match_images(images, prompts("Portrait_000"))


def test_a_text_as_the_name(folder):
    images = folder("A_red-cup_000001.png", "a red cup_000000.png")
    pairs, _ = found(images, [Prompt("x", "a red cup", "all"), Prompt("y", "a spoon", "all")])
    assert pairs == {("x", 0): "a red cup_000000.png", ("x", 1): "A_red-cup_000001.png"}


def test_by_column_with_another_suffix_or_folder(folder):
    images = folder("out/dog.jpg", "cat.png", "other.png")
    named = {("1", 0): "images/cat.png", ("2", 0): "dog.png"}
    pairs, surplus = found(images, prompts("1", "2"), named)
    assert pairs == {("1", 0): "cat.png", ("2", 0): "out/dog.jpg"}
    assert surplus == ("other.png",)


def test_coco_names_that_no_file_has_are_found_by_id(folder):
    named = {("391895", 0): "COCO_val2014_000000391895.jpg"}
    assert found(folder("391895.png"), prompts("391895"), named)[0] == {("391895", 0): "391895.png"}


def test_a_manifest_is_believed_and_a_text_of_one_prompt_enough(folder):
    images = folder("a.png", "b.png", "c.png")
    lines = [
        {"id": "1", "prompt": "text of 1", "file": "a.png"},
        {"id": "other", "prompt": "text of 2", "file": "b.png", "index": 1},
        {"id": "2", "prompt": "another text", "file": "c.png"},
    ]
    (images / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert found(images, prompts("1", "2")) == ({("1", 0): "a.png", ("2", 1): "b.png"}, ("c.png",))


def test_equal_images_of_the_hubs_cache_are_links_to_one_file(folder):
    images = folder("blobs/abc.png").parent / "snapshot"
    (images / "deep").mkdir(parents=True)
    for name in ("0001.png", "0002.png"):
        (images / name).symlink_to("../images/blobs/abc.png")
    (images / "deep" / "linked").symlink_to(folder("more/0003.png") / "more")
    (images / "deep" / "linked" / "again").symlink_to(images)
    assert found(images, prompts("0001", "0002", "0003")) == (
        {("0001", 0): "0001.png", ("0002", 0): "0002.png", ("0003", 0): "deep/linked/0003.png"},
        (),
    )


def test_geneval_layout(folder):
    images = folder("00000/samples/00000.png", "00000/samples/00001.png", "00001/samples/00000.png")
    for name in ("00000", "00001"):
        (images / name / "metadata.jsonl").write_text(json.dumps({"prompt": f"text of {name}"}))
    pairs, surplus = found(images, prompts("00000", "00001"))
    assert list(pairs) == [("00000", 0), ("00000", 1), ("00001", 0)]
    assert surplus == ()


def test_row_numbers_count_from_the_first_file_or_to_the_last(folder):
    asked = prompts("00000", "00001", "00002")
    images = folder("1.png", "3.png")
    assert found(images, asked, numbered=True)[0] == {("00000", 0): "1.png", ("00002", 0): "3.png"}
    folder("0.png", "7.png")
    pairs, surplus = found(images, asked, numbered=True)
    assert pairs == {("00000", 0): "0.png", ("00001", 0): "1.png"}
    assert surplus == ("3.png", "7.png")


def test_row_numbers_that_could_be_either_are_refused(folder):
    with pytest.raises(
        UsageError, match="numbered 1 to 2 and the 3 prompts have no ids: whether 1 is the first"
    ):
        match_images(folder("1.png", "2.png"), prompts("00000", "00001", "00002"), numbered=True)


def test_numbers_that_read_the_same_are_not_guessed(folder):
    # 1 and 01 are two prompts: 001.png could be either.
    pairs, surplus = found(folder("001.png", "x.png"), [*prompts("1", "01"), *prompts("x")])
    assert (pairs, surplus) == ({("x", 0): "x.png"}, ("001.png",))


def test_images_beyond_the_number_are_surplus(folder):
    images = folder("1_1.png", "1_2.png", "1_3.png")
    pairs, surplus = found(images, prompts("1"), images_per_prompt=2)
    assert (list(pairs), surplus) == ([("1", 0), ("1", 1)], ("1_3.png",))


def test_nothing_that_matches_is_told(folder, tmp_path):
    with pytest.raises(
        UsageError, match=r"none of its 1 images \(holiday\.png, \.\.\) is named after a prompt \(1, "
    ):
        match_images(folder("holiday.png"), prompts("1"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no images"):
        match_images(tmp_path / "empty", prompts("1"))
    with pytest.raises(UsageError, match="no such folder"):
        match_images(tmp_path / "none", prompts("1"))


def test_without_prompts_images_are_numbered_in_the_order_of_their_names(folder):
    files = number_images(folder("b10.png", "b9.png", ".hidden/c.png")).files
    assert {place: path.name for place, path in files.items()} == {
        ("00000", 0): "b9.png",
        ("00001", 0): "b10.png",
    }
