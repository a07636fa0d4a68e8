"""Existing images as a variant: both layouts, broken manifests, and real scenes that score as they should."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sana_bench.benchmarks.geneval import GenEval
from sana_bench.cli.main import execute
from sana_bench.core.errors import AssetError, SuiteError
from sana_bench.generators.base import Request
from sana_bench.generators.image_folder import (
    MANIFEST,
    ImageFolder,
    ImageName,
    find_name,
    images_sha256,
    other_files,
    read_folder,
)
from sana_bench.micro.captions import scene_for
from sana_bench.micro.renderer import render
from sana_bench.results.store import Store
from sana_bench.suites.cells import GeneratorSpec
from sana_bench.suites.load import load_variant
from tests.suite_files import GENEVAL_ALONE, write_images, write_suite, write_variant

LIMIT = 24


def write_prompted(folder: Path, count: int) -> None:
    """True scenes of the first prompts in the order of work."""
    rng = np.random.default_rng(0)
    by_tag: dict[str, list] = {}
    for prompt in GenEval().prompts("micro"):
        by_tag.setdefault(prompt.tag, []).append(prompt)
    spread = [group[turn] for turn in range(count) for group in by_tag.values() if turn < len(group)]
    # The micro prompts repeat texts.
    entries = (
        {"id": prompt.id, "prompt": prompt.text, "index": 0, "file": f"{i}.png"}
        for i, prompt in enumerate(spread[:count])
    )
    write_images(
        folder, ((entry, render(scene_for(prompt.metadata, rng))) for entry, prompt in zip(entries, spread))
    )


def write_mine(folder: Path, *more: str, images: Path, size: int = 64) -> Path:
    mine = {"tier": "micro", "weights": images, "height": size, "width": size}
    return write_variant(folder, "mine", "generator: images", *more, **mine)


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    write_mine(tmp_path / "suites", images=tmp_path / "images")
    return write_suite(tmp_path / "suites", GENEVAL_ALONE, tier="micro", name="existing")


def run(suite: Path, *arguments: str) -> int:
    return execute(
        ["run", str(suite), "--tier", "micro", "--output", str(suite.parents[1] / "results"), *arguments]
    )


def test_true_scenes_score_one(suite, tmp_path):
    write_prompted(tmp_path / "images", LIMIT)
    assert run(suite, "--limit", str(LIMIT)) == 3
    with Store.open_existing(tmp_path / "results") as store:
        rows = store.summaries(next((tmp_path / "results" / "runs").iterdir()).name)
    overall = next(row for row in rows if row.key == "overall")
    # The micro evaluator is right on 98 % of true scenes or more; here on all.
    assert (overall.value, overall.n_samples) == (1.0, LIMIT)


def test_an_image_that_is_not_there_makes_the_run_incomplete(suite, tmp_path, capsys):
    write_prompted(tmp_path / "images", 2)
    assert run(suite, "--limit", "4") == 3
    assert "2 failed" in capsys.readouterr().out


def test_a_sampler_is_refused(suite, tmp_path, capsys):
    write_prompted(tmp_path / "images", 1)
    write_mine(suite.parent, "sampler: {steps: 2, guidance_scale: 1.0}", images=tmp_path / "images")
    assert run(suite) == 2
    assert "generator images takes no sampler" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_genevals_own_layout(tmp_path):
    for name, prompt in (("00000", "a bench"), ("00001", "two cats")):
        samples = tmp_path / name / "samples"
        samples.mkdir(parents=True)
        (tmp_path / name / "metadata.jsonl").write_text(json.dumps({"tag": "x", "prompt": prompt}))
        for i in (1, 0):
            Image.new("RGB", (4, 4)).save(samples / f"{i:05d}.png")
        (samples / "notes.txt").write_text("not an image")
    found = read_folder(tmp_path)
    names = [
        ImageName(f"0000{line}", text, i) for line, text in enumerate(("a bench", "two cats")) for i in (0, 1)
    ]
    assert list(found) == names
    assert found[names[3]] == tmp_path / "00001/samples/00001.png"


def write_layout(folder: Path, *files: str, prompt: str = "a bench", name: str = "00000") -> Path:
    """One prompt in GenEval's layout with image files of these names."""
    samples = folder / name / "samples"
    samples.mkdir(parents=True)
    (folder / name / "metadata.jsonl").write_text(json.dumps({"prompt": prompt}))
    for file in files:
        Image.new("RGB", (4, 4)).save(samples / file)
    return samples


def test_the_number_of_a_file_is_its_index_as_for_the_official_evaluator(tmp_path):
    samples = write_layout(tmp_path, "00000.png", "00003.png", "2.png", "10.png", "thumb.jpg", "00003.jpg")
    (samples / "00001.txt").write_text("no image")
    found = read_folder(tmp_path)
    # 00001 is missing and nothing takes its place; 10 comes after 3.
    assert [(name.index, path.name) for name, path in found.items()] == [
        (0, "00000.png"), (2, "2.png"), (3, "00003.png"), (10, "10.png"),
    ]  # fmt: skip


def test_an_image_that_genevals_layout_does_not_take_is_not_left_out_silently(tmp_path):
    samples = write_layout(tmp_path, "00000.png", "00001.jpg")
    (samples / "00002.PNG").write_bytes((samples / "00000.png").read_bytes())
    with pytest.raises(AssetError, match=r"only NUMBER\.png .*00000/samples/00001\.jpg; .*/00002\.PNG$"):
        read_folder(tmp_path)


def test_two_files_or_folders_of_one_number_are_refused(tmp_path):
    write_layout(tmp_path, "00000.png", "0.png")
    write_layout(tmp_path, "00000.png", name="0")
    with pytest.raises(AssetError) as refused:
        read_folder(tmp_path)
    assert str(refused.value).count("image 0 of prompt 00000 appears twice") == 2


def test_prompts_of_equal_text_are_told_apart_by_their_ids(tmp_path):
    entries = [
        {"id": "00000", "prompt": "a", "file": "x.png"},
        {"id": "00001", "prompt": "a", "file": "y.png"},
        {"prompt": "b", "file": "z.png"},
    ]
    (tmp_path / MANIFEST).write_text("\n".join(map(json.dumps, entries)))
    files = read_folder(tmp_path)

    def file(prompt_id: str, text: str) -> str | None:
        name = find_name(files, prompt_id, text, 0)
        return files[name].name if name is not None else None

    assert (file("00000", "a"), file("00001", "a"), file("00007", "b")) == ("x.png", "y.png", "z.png")
    # Neither an id of its own nor the id of another text will do.
    assert (file("00002", "a"), file("00000", "c"), file("", "a")) == (None, None, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", ":1: not valid JSON"),
        ("[1]", ":1: expected an object"),
        ('\n{"prompt": "a"}', ":2: expected prompt and file as text"),
        ('{"prompt": "a", "file": "x.png", "index": true}', ":1: expected index as a whole number"),
        ('{"prompt": "a", "file": "../x.png"}', "lies outside the folder"),
        (
            '{"prompt": "a", "file": "x.png"}\n{"prompt": "a", "file": "y.png"}',
            ":2: image 0 of 'a' appears twice",
        ),
        ('{"prompt": "a", "file": "x\\u0000.png"}', "lies outside the folder"),
        ('{"id": 5, "prompt": "a", "file": "x.png"}', ":1: expected id as text"),
        ('{"id": "", "prompt": "a", "file": "x.png"}', ":1: expected id as text"),
        (
            '{"id": "5", "prompt": "a", "file": "x.png"}\n{"id": "5", "prompt": "a", "file": "y.png"}',
            ":2: image 0 of prompt 5 appears twice",
        ),
        (
            '{"prompt": "a", "file": "x.png"}\n{"prompt": "a", "file": "y.png"}',
            "prompts with the same text need the key id",
        ),
        (
            '{"prompt": "a", "file": "x.png"}\n{"prompt": "b", "file": "./x.png"}',
            ":2: image 0 of 'b' names the same file as image 0 of 'a'",
        ),
        ("", "no manifest.jsonl, and no"),
    ],
)
def test_broken_manifests(tmp_path, text, message):
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(AssetError) as refused:
        read_folder(tmp_path)
    assert message in str(refused.value)


def test_a_folder_without_anything(tmp_path):
    with pytest.raises(AssetError, match=r"no manifest\.jsonl"):
        read_folder(tmp_path)


def test_every_repeat_is_listed_and_a_long_list_cut(tmp_path):
    lines = [json.dumps({"prompt": f"p{i % 30}", "file": f"{i}.png"}) for i in range(60)]
    (tmp_path / MANIFEST).write_text("\n".join(lines))
    with pytest.raises(AssetError) as refused:
        read_folder(tmp_path)
    message = str(refused.value)
    assert message.count("appears twice") == 20
    assert ":31: image 0 of 'p0' appears twice; " in message
    assert "; and 10 more" in message
    assert "\n" not in message


def test_the_generator_asks_by_id_and_tells_jpegs_from_others(tmp_path):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (8, 8, 3), dtype=np.uint8) for _ in range(2)]
    Image.fromarray(pictures[0]).save(tmp_path / "x.png")
    Image.fromarray(pictures[1]).save(tmp_path / "y.jpg")
    entries = [{"id": str(i), "prompt": "a", "file": file} for i, file in enumerate(("x.png", "y.jpg"))]
    (tmp_path / MANIFEST).write_text("\n".join(map(json.dumps, entries)))
    path = write_mine(tmp_path, images=tmp_path, size=8)
    generator = ImageFolder(GeneratorSpec(load_variant(path), tmp_path, "sha"))
    requests = [Request("a", 1, 0, str(i)) for i in range(3)]
    images = generator.generate(requests[:2])
    assert np.array_equal(images[0], pictures[0])
    assert np.array_equal(images[1], np.asarray(Image.open(tmp_path / "y.jpg")))
    assert [generator.source_format(request) for request in requests] == [None, "jpeg", None]


def test_an_exported_folder_gives_the_same_images_again(suite, tmp_path, capsys):
    """The micro prompts repeat texts: only their ids tell the images of an export apart."""
    prompts = GenEval().prompts("micro")
    assert len({prompt.text for prompt in prompts}) < len(prompts)
    write_prompted(tmp_path / "images", len(prompts))
    assert run(suite) == 0
    (first,) = (tmp_path / "results/runs").iterdir()
    assert execute(["export", str(first), "--geneval", str(tmp_path / "official")]) == 0
    assert execute(["export", str(first), "--format", "json", "--to", str(tmp_path / "tables")]) == 0
    (tmp_path / "images").rename(tmp_path / "old")
    (tmp_path / "official/mine").rename(tmp_path / "images")
    assert execute(["run", str(suite), "--tier", "micro", "--output", str(tmp_path / "again")]) == 0
    (second,) = (tmp_path / "again/runs").iterdir()
    contents = [
        {path.relative_to(path.parents[2]): path.read_bytes() for path in (run / "images").rglob("*.png")}
        for run in (first, second)
    ]
    assert contents[0] == contents[1]
    assert len(contents[0]) == len(prompts)


def test_an_image_that_would_count_for_two_prompts_is_refused(suite, tmp_path, capsys):
    """Without ids, prompts of equal text would share one image."""
    texts = [prompt.text for prompt in GenEval().prompts("micro")]
    repeated = next(text for text in texts if texts.count(text) > 1)
    (tmp_path / "images").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "images/x.png")
    (tmp_path / "images" / MANIFEST).write_text(json.dumps({"prompt": repeated, "file": "x.png"}))
    assert run(suite, "--allow-incomplete") == 2
    error = capsys.readouterr().err
    assert "prompts with the same text need the key id in the manifest" in error
    assert f"image 0 of {repeated!r} matches both prompts 000" in error
    assert not (tmp_path / "results").exists()


def link_into(blobs: Path, folder: Path) -> None:
    """Put the files of a folder where the hub's cache has them: equal ones once, with links in their place."""
    blobs.mkdir(parents=True)
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        blob = blobs / hashlib.sha256(path.read_bytes()).hexdigest()
        path.replace(blob)
        path.symlink_to(os.path.relpath(blob, path.parent))


def test_a_folder_of_links_is_read_as_one_of_files(tmp_path):
    folder = tmp_path / "hub/snapshots/abc"
    write_layout(folder / "layout", "00000.png", "00001.png")
    entries = [{"prompt": text, "file": f"{text}.png"} for text in "ab"]
    (folder / MANIFEST).write_text("\n".join(map(json.dumps, entries)))
    for text in "ab":
        Image.new("RGB", (4, 4)).save(folder / f"{text}.png")
    before = [images_sha256(place) for place in (folder, folder / "layout")]
    link_into(tmp_path / "hub/blobs", folder)
    assert [path.name for path in read_folder(folder).values()] == ["a.png", "b.png"]
    assert [path.name for path in read_folder(folder / "layout").values()] == ["00000.png", "00001.png"]
    assert [images_sha256(place) for place in (folder, folder / "layout")] == before
    # A whole folder may be a link too, and a link into itself is no endless road.
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/00000").symlink_to(folder / "layout/00000")
    (tmp_path / "linked/again").symlink_to(tmp_path / "linked")
    assert images_sha256(tmp_path / "linked") == before[1]
    assert other_files(tmp_path / "linked") == []


@pytest.mark.parametrize("file", ["/elsewhere/x.png", "a/../../x.png", ".."])
def test_a_path_that_leads_out_as_it_is_written_is_refused(tmp_path, file):
    (tmp_path / MANIFEST).write_text(json.dumps({"prompt": "a", "file": file}))
    with pytest.raises(AssetError, match="lies outside the folder"):
        read_folder(tmp_path)


STRAYS = ("Thumbs.db", "desktop.ini", "grid.png", "results.jsonl", "._0.png", "sub/.DS_Store")


@pytest.mark.parametrize("layout", ["manifest", "geneval"])
def test_other_files_do_not_make_another_variant_and_are_named_once(suite, tmp_path, capsys, layout):
    write_prompted(tmp_path / "images", 2)
    if layout == "geneval":
        for entry in map(json.loads, (tmp_path / "images" / MANIFEST).read_text().splitlines()):
            name = entry["id"]
            samples = write_layout(tmp_path / "other", prompt=entry["prompt"], name=name)
            (tmp_path / "images" / entry["file"]).rename(samples / "00000.png")
        shutil.rmtree(tmp_path / "images")
        (tmp_path / "other").rename(tmp_path / "images")
    before = images_sha256(tmp_path / "images")
    assert run(suite, "--limit", "2") == 3
    assert "ignored files" not in capsys.readouterr().out
    for name in STRAYS:
        (tmp_path / "images" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "images" / name).write_text("{}")
    assert images_sha256(tmp_path / "images") == before
    assert run(suite, "--limit", "2") == 3
    out = capsys.readouterr().out
    assert "0 images to read, 2 already there" in out
    (line,) = [line for line in out.splitlines() if "ignored files" in line]
    assert all(name in line for name in STRAYS)
    assert len(list((tmp_path / "results/runs").iterdir())) == 1


def test_what_is_scored_makes_the_variant(tmp_path):
    def identity(*entries: dict) -> str:
        (tmp_path / MANIFEST).write_text("\n".join(map(json.dumps, entries)))
        return images_sha256(tmp_path)

    for name, colour in (("x", "red"), ("y", "blue"), ("z", "red")):
        Image.new("RGB", (4, 4), colour).save(tmp_path / f"{name}.png")
    one = {"id": "0", "prompt": "a", "index": 0, "file": "x.png"}
    base = identity(one)
    assert identity(one | {"file": "z.png"}) == base
    changes = ({"file": "y.png"}, {"index": 1}, {"prompt": "b"}, {"id": "1"}, {"file": "missing.png"})
    others = [identity(one | change) for change in changes]
    assert len({base, *others, identity(one, one | {"index": 1, "file": "y.png"})}) == 7
    two = {"prompt": "b", "file": "y.png"}
    assert identity(one, two) == identity(two, one)


@pytest.mark.parametrize("with_id", [True, False])
def test_a_text_that_only_looks_like_the_prompt_is_told_by_code_points(suite, tmp_path, capsys, with_id):
    write_prompted(tmp_path / "images", 1)
    path = tmp_path / "images" / MANIFEST
    entry = json.loads(path.read_text())
    text = entry["prompt"]
    entry["prompt"] = text.replace(" ", "\u00a0", 1)
    path.write_text(json.dumps(entry if with_id else {k: v for k, v in entry.items() if k != "id"}))
    assert run(suite, "--limit", "1") == 3
    place = text.index(" ") + 1
    told = f"which only looks like the suite's: character {place} is U+00A0 here and U+0020 there"
    assert told in capsys.readouterr().out


def test_half_of_a_character_is_one_line_with_the_prompts_id(suite, tmp_path, capsys):
    write_prompted(tmp_path / "images", 1)
    for line in (
        '{"id": "00003", "prompt": "a \\ud83d", "file": "0.png"}',
        '{"id": "00003", "prompt": "a", "file": "\\ud83d"}',
    ):
        (tmp_path / "images" / MANIFEST).write_text(line)
        assert run(suite) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "manifest.jsonl:1: " in error
        assert "of prompt '00003' holds U+D83D, half of a character" in error


def test_images_without_a_size_keep_their_own(tmp_path):
    folder = tmp_path / "suites"
    first = GenEval().prompts("micro")[:2]
    sizes = [(32, 48), (64, 40)]
    write_images(
        tmp_path / "images",
        (
            ({"id": prompt.id, "prompt": prompt.text, "file": f"{i}.png"}, np.full((*size, 3), 9, np.uint8))
            for i, (prompt, size) in enumerate(zip(first, sizes, strict=True))
        ),
    )
    path = folder / "variants" / "mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(
        "schema_version: 1\nname: mine\ntier: micro\ngenerator: images\n"
        f"model: {{weights: {tmp_path / 'images'}}}\n"
    )
    generator = ImageFolder(GeneratorSpec(load_variant(path), tmp_path / "images", "sha"))
    requests = [Request(prompt.text, 0, 0, prompt.id) for prompt in first]
    assert [image.shape[:2] for image in generator.generate(requests)] == sizes
    for line, told in (("height: 64", "'model.width' is missing"), ("", "'model.height' is missing")):
        other = "images" if line else "sana"
        path.write_text(
            f"schema_version: 1\nname: mine\ntier: micro\ngenerator: {other}\n"
            f"model: {{weights: ./w{', ' * bool(line)}{line}}}\n"
        )
        with pytest.raises(SuiteError, match=rf"mine\.yaml:5: {told}"):
            load_variant(path)
