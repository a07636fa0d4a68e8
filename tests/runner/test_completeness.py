"""Existing images that are not what a suite asks for: the score stops with a list, or is marked wherever it appears."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from sana_bench.cli.main import execute
from sana_bench.core.errors import AssetError, IncompleteError
from sana_bench.core.images import load_image, png_bytes
from sana_bench.core.preprocess import as_jpeg, load_preset
from sana_bench.runner.run import RunOptions, run_suite
from tests.runner import fakes
from tests.runner import numbers_of_runs as numbers
from tests.suite_files import write_suite, write_variant

N = fakes.N_PROMPTS * fakes.Shapes.default_images_per_prompt


class Folder:
    """A suite `existing` with the variant `mine`, whose images lie in a folder, all of them at first."""

    def __init__(self, world):
        self.world = world
        self.images = world.folder / "images"
        self.images.mkdir()
        suites, size = world.folder / "suites", {"height": fakes.SIZE, "width": fakes.SIZE}
        write_variant(suites, "mine", "generator: images", tier="micro", weights=self.images, **size)
        benchmark = "{name: shapes, images_per_prompt: 4, metrics: [redness, spread]}"
        self.suite = write_suite(suites, benchmark, tier="micro", name="existing")
        rng = np.random.default_rng(0)
        self.entries = []
        for prompt in fakes.Shapes().prompts("micro"):
            for index in range(fakes.Shapes.default_images_per_prompt):
                name = f"{prompt.id}-{index}.png"
                pixels = rng.integers(0, 256, (fakes.SIZE, fakes.SIZE, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(self.images / name)
                self.entries.append({"prompt": prompt.text, "index": index, "file": name})
        self.write()

    def write(self):
        lines = [json.dumps(entry) for entry in self.entries]
        (self.images / "manifest.jsonl").write_text("\n".join(lines) + "\n")

    def run(self, **options):
        return run_suite(RunOptions(suite=self.suite, output=self.world.output, tier="micro", **options))


@pytest.fixture
def folder(world):
    return Folder(world)


def missing(folder):
    (folder.images / "00001-2.png").unlink()
    return "00001/00002", "no such image"


def unlisted(folder):
    folder.entries = [entry for entry in folder.entries if entry["file"] != "00001-2.png"]
    folder.write()
    return "00001/00002", "has no image 2 of 'micro circles 1'"


def truncated(folder):
    path = folder.images / "00001-2.png"
    path.write_bytes(path.read_bytes()[:-30])
    return "00001/00002", "damaged image"


def no_image(folder):
    (folder.images / "00001-2.png").write_bytes(b"hello")
    return "00001/00002", "not an image"


def other_size(folder):
    Image.new("RGB", (fakes.SIZE, 2 * fakes.SIZE)).save(folder.images / "00001-2.png")
    return (
        "00001/00002",
        f"is {fakes.SIZE}x{2 * fakes.SIZE} pixels, the variant has {fakes.SIZE}x{fakes.SIZE}",
    )


DAMAGES = (missing, unlisted, truncated, no_image, other_size)


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_image_that_cannot_be_scored_stops_the_score_with_a_list(folder, damage, capsys):
    place, reason = damage(folder)
    assert folder.run() == 3
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if place in line]
    assert reason in line
    assert "existing / mine" not in out
    assert "shapes / mine is not scored without --allow-incomplete" in out
    assert numbers.summaries(folder.world.output) == []


@pytest.mark.parametrize("damage", DAMAGES)
def test_allowed_it_is_marked_wherever_it_appears(folder, damage, capsys):
    place, _ = damage(folder)
    assert folder.run(allow_incomplete=True) == 3
    out = capsys.readouterr().out
    assert place in out
    assert f"has {N - 1}/{N} images, 1 failed" in out
    rows = numbers.summaries(folder.world.output)
    overall = [row for row in rows if row.key == "overall"]
    assert {(row.metric, row.n_samples, row.n_expected, row.complete) for row in overall} == {
        ("redness", N - 1, N, False), ("spread", N - 1, N, False),
    }  # fmt: skip
    (run,) = (folder.world.output / "runs").iterdir()
    for name in ("report.md", "report.html"):
        assert f"{N - 1}/{N}" in (run / "report" / name).read_text(), name
    assert execute(["leaderboard", "--output", str(folder.world.output)]) == 0
    assert f"{N - 1}/{N}" in capsys.readouterr().out


def test_a_mended_folder_scores(folder, capsys):
    kept = (folder.images / "00001-2.png").read_bytes()
    missing(folder)
    assert folder.run() == 3
    (folder.images / "00001-2.png").write_bytes(kept)
    assert folder.run() == 0
    found = [numbers.summaries(folder.world.output, run) for run in numbers.run_ids(folder.world.output)]
    # Other images are another variant: the stopped run has no number, the mended one has all.
    assert sorted(map(len, found)) == [0, 1 + len(fakes.TAGS) + 1]
    assert all(row.complete for rows in found for row in rows)


def test_only_the_part_that_lacks_images_is_not_scored(folder, monkeypatch):
    text = folder.suite.read_text().replace("micro: [mine]", "micro: [mine, fake-2]")
    folder.suite.write_text(text)
    missing(folder)
    assert folder.run() == 3
    rows = numbers.summaries(folder.world.output)
    assert {row.variant for row in rows} == {"fake-2"}
    assert all(row.complete for row in rows)


def unknown_prompt(folder):
    Image.new("RGB", (fakes.SIZE, fakes.SIZE)).save(folder.images / "x.png")
    folder.entries.append({"prompt": "a photo of nothing", "index": 0, "file": "x.png"})
    folder.write()
    return "x.png: no prompt 'a photo of nothing'"


def one_too_many(folder):
    Image.new("RGB", (fakes.SIZE, fakes.SIZE)).save(folder.images / "x.png")
    folder.entries.append({"prompt": folder.entries[0]["prompt"], "index": 4, "file": "x.png"})
    folder.write()
    return "x.png: image 4 of 'micro circles 0' is beyond the images per prompt"


@pytest.mark.parametrize("surplus", [unknown_prompt, one_too_many])
def test_images_that_nobody_asked_for_stop_the_run_before_it_starts(folder, surplus, capsys):
    reason = surplus(folder)
    with pytest.raises(IncompleteError, match=r"1 images belong to no sample .*--allow-incomplete"):
        folder.run()
    assert reason in capsys.readouterr().out
    assert not folder.world.output.exists()


@pytest.mark.parametrize("surplus", [unknown_prompt, one_too_many])
def test_allowed_they_enter_no_number_and_mark_the_variant(folder, surplus, capsys):
    assert folder.run() == 0
    clean = {(row.metric, row.key): row.value for row in numbers.summaries(folder.world.output)}
    surplus(folder)
    folder.world.output = folder.world.folder / "again"
    assert folder.run(allow_incomplete=True) == 3
    rows = numbers.summaries(folder.world.output)
    assert {(row.metric, row.key): row.value for row in rows} == clean
    assert not any(row.complete for row in rows)
    assert "mine has 1 images that the suite does not ask for" in capsys.readouterr().out
    (run,) = (folder.world.output / "runs").iterdir()
    assert "was given images that the suite does not ask for" in (run / "report" / "report.md").read_text()


def test_an_image_named_twice_is_refused_even_when_allowed(folder):
    folder.entries.append(folder.entries[3])
    folder.write()
    with pytest.raises(AssetError, match="image 3 of 'micro circles 0' appears twice"):
        folder.run(allow_incomplete=True)


def test_all_images_named_twice_are_listed(folder):
    folder.entries += [folder.entries[3], {**folder.entries[5], "index": 7}]
    folder.write()
    with pytest.raises(AssetError) as refused:
        folder.run(allow_incomplete=True)
    assert ":25: image 3 of 'micro circles 0' appears twice" in str(refused.value)
    assert ":26: image 7 of 'micro circles 1' names the same file as image 1 of" in str(refused.value)


def with_ids(folder):
    ids = {prompt.text: prompt.id for prompt in fakes.Shapes().prompts("micro")}
    folder.entries = [{"id": ids[entry["prompt"]], **entry} for entry in folder.entries]


def test_ids_of_another_prompt_set_are_unknown(folder, capsys):
    with_ids(folder)
    folder.write()
    assert folder.run() == 0
    folder.world.output = folder.world.folder / "again"
    folder.entries[0] |= {"id": "00009"}
    folder.entries[4] |= {"id": "00000"}
    folder.entries[8] |= {"index": 6}
    folder.write()
    with pytest.raises(IncompleteError, match="3 images belong to no sample"):
        folder.run()
    out = capsys.readouterr().out
    assert "00000-0.png: no prompt 00009" in out
    assert "00001-0.png: prompt 00000 has another text in the suite than 'micro circles 1'" in out
    assert "00002-0.png: image 6 of prompt 00002 is beyond the images per prompt" in out


def test_a_task_lacks_its_own_images_alone(folder, monkeypatch):
    """Missing images count against the task that lacks them, whatever the metric made of the sum."""
    lost = [entry for entry in folder.entries if entry["prompt"] == "micro circles 1"][1:]
    for entry in lost:
        (folder.images / entry["file"]).unlink()
    folder.suite.write_text(folder.suite.read_text().replace("[redness, spread]", "[redness]"))
    own = fakes.Redness.summarise

    def summarise(self, rows, n_expected, seed):
        """As GenEval and the CLIP score do: every task counts all missing images as its own."""
        found = own(self, rows, n_expected, seed)
        return [replace(one, n_expected=one.n_samples + n_expected - len(rows)) for one in found]

    monkeypatch.setattr(fakes.Redness, "summarise", summarise)
    assert folder.run(allow_incomplete=True) == 3
    counts = {row.key: (row.n_samples, row.n_expected) for row in numbers.summaries(folder.world.output)}
    assert counts == {"overall": (N - 3, N), "circles": (5, 8), "squares": (8, 8), "stars": (8, 8)}


def test_a_jpeg_is_compressed_once_and_a_png_by_the_presets(folder):
    """SANA's presets score what a JPEG file decodes to, and send a PNG through JPEG, as SANA's tools would have."""
    rng = np.random.default_rng(1)
    for entry in folder.entries[:2]:
        noise = Image.fromarray(rng.integers(0, 256, (fakes.SIZE, fakes.SIZE, 3), dtype=np.uint8))
        entry["file"] = entry["file"].replace(".png", ".jpg")
        noise.save(folder.images / entry["file"], quality=75)
    folder.write()
    assert folder.run() == 0
    stored = {f"{path.parent.name}-{int(path.stem)}": path for path in folder.world.images()}
    changed = 0
    for entry in folder.entries:
        name = entry["file"].partition(".")[0]
        decoded = np.asarray(Image.open(folder.images / entry["file"]).convert("RGB"))
        assert np.array_equal(load_image(stored[name]), decoded)
        is_jpeg = entry["file"].endswith(".jpg")
        wanted = decoded if is_jpeg else as_jpeg(decoded)
        assert np.array_equal(load_preset(stored[name], "jpeg"), wanted)
        assert np.array_equal(load_preset(stored[name], "png"), decoded)
        changed += not np.array_equal(as_jpeg(decoded), decoded)
        # What is no JPEG is stored as it ever was.
        assert (stored[name].read_bytes() == png_bytes(decoded)) == (not is_jpeg)
    # The check means something: compressing once more does change these pictures.
    assert changed == len(folder.entries)


def test_a_long_list_is_cut(folder, capsys):
    for path in folder.images.glob("*.png"):
        path.unlink()
    assert folder.run() == 3
    out = capsys.readouterr().out
    assert "and 4 more" in out
    assert sum("no such image" in line for line in out.splitlines()) == 20
