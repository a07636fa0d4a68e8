"""The runner's promises, in this process and on fake models."""

import contextlib
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from sana_bench.core import fingerprint, provenance
from sana_bench.core.errors import UsageError
from sana_bench.core.images import ImageError
from sana_bench.core.progress import format_seconds
from sana_bench.results.database import writer_lock
from sana_bench.results.store import Store
from tests.runner import fakes
from tests.runner import numbers_of_runs as numbers

N = fakes.N_PROMPTS * 4  # images of one variant


def test_a_run_makes_every_image_and_number(world, capsys) -> None:
    assert world.run() == 0
    assert len(world.images()) == 2 * N
    found = numbers.summaries(world.output)
    assert {(row.variant, row.metric) for row in found} == {
        (variant, metric) for variant in ("fake-4", "fake-2") for metric in ("redness", "spread")
    }
    assert all(row.complete for row in found)
    assert [row.n_samples for row in found if row.key == "overall"] == [N] * 4
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "tier: micro (asked for with --tier micro)"
    report = Path(next(line for line in lines if line.startswith("report: ")).removeprefix("report: "))
    assert report.is_file()


def test_the_run_directory_explains_the_run(world) -> None:
    world.run()
    directory = world.output / "runs" / numbers.run_ids(world.output)[0]
    resolved = yaml.safe_load((directory / "suite.resolved.yaml").read_text())
    assert resolved["benchmarks"][0]["n_prompts"] == fakes.N_PROMPTS
    provenance = json.loads((directory / "provenance.json").read_text())
    weights = provenance["weights"]["fake-4"]
    assert len(weights["sha256"]) == 64
    assert provenance["n_images"] == provenance["n_expected"] == 2 * N
    assert provenance["protocols"] == {"redness": "redness/test@1", "spread": "spread/test@1"}
    assert {"torch", "numpy"} <= provenance["packages"].keys()


def test_the_same_command_again_does_nothing_new(world) -> None:
    world.run()
    before = numbers.summaries(world.output)
    made, computed = len(fakes.FakeGenerator.batches), fakes.Spread.computed
    assert world.run() == 0
    assert len(fakes.FakeGenerator.batches) == made
    assert fakes.Spread.computed == computed
    assert numbers.summaries(world.output) == before
    second = numbers.sessions(world.output)[1]
    assert (second["images_generated"], second["scores_computed"]) == (0, 0)


@pytest.mark.parametrize("metrics", ["redness, spread", "redness"])
def test_planning_reads_an_image_once_a_session(world, monkeypatch, metrics) -> None:
    """Also one that another run left, and that gets a second name in this one's directory."""
    world.run()
    made = world.images()
    read, opened = Counter[int](), fingerprint.open_plain
    monkeypatch.setattr(
        fingerprint, "open_plain", lambda path: (read.update([path.stat().st_ino]), opened(path))[1]
    )
    # Files of the last two seconds could change again without another time of change.
    monkeypatch.setattr(fingerprint, "_now_ns", lambda: time.time_ns() + 10 * 10**9)
    assert world.run(overrides=(f"benchmarks.0.metrics=[{metrics}]",)) == 0
    assert len(world.images()) == (4 * N if metrics == "redness" else 2 * N)
    assert {read[path.stat().st_ino] for path in made} == {1}


def test_numbers_do_not_depend_on_the_batch_size(world, tmp_path_factory) -> None:
    results = []
    for size in (1, 5, 64):
        world.output = tmp_path_factory.mktemp("results")
        assert world.run(batch_size=size) == 0
        results.append((numbers.summaries(world.output), numbers.image_bytes(world.output)))
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("key", ["sampler.steps=3", "sampler.guidance_scale=2"])
def test_changed_settings_never_reuse_images(world, key) -> None:
    world.run()
    first = numbers.image_bytes(world.output)
    assert world.run(overrides=(f"variants.fake-4.{key}",)) == 0
    old, new = sorted(
        (numbers.sessions(world.output, run)[0] for run in numbers.run_ids(world.output)),
        key=lambda s: s["session_id"],
    )
    assert old["images_generated"] == 2 * N
    assert new["images_generated"] == N  # fake-2 is unchanged and its images serve both runs
    second = {
        path: content for path, content in numbers.image_bytes(world.output).items() if path not in first
    }
    changed = [content for path, content in second.items() if "fake-4" in path]
    assert len(changed) == N
    assert not set(changed) & set(first.values())


def test_changed_seed_makes_all_images_again(world) -> None:
    world.run()
    world.run(overrides=("seed=1",))
    assert len(set(numbers.image_bytes(world.output).values())) == 4 * N


def test_kind_and_origin_describe_and_remake_nothing(world) -> None:
    world.run()
    before = numbers.image_bytes(world.output)
    made = sum(fakes.FakeGenerator.batches)
    path = world.suite.parent / "variants" / "fake-2.yaml"
    path.write_text(f"{path.read_text()}kind: pruned\nderived_from: fake-4\n")
    assert world.run() == 0
    assert sum(fakes.FakeGenerator.batches) == made
    assert numbers.image_bytes(world.output) == before
    assert len(numbers.run_ids(world.output)) == 1
    (directory,) = (world.output / "runs").iterdir()
    _, pruned = yaml.safe_load((directory / "suite.resolved.yaml").read_text())["variants"]
    assert (pruned["kind"], pruned["derived_from"]) == ("pruned", "fake-4")
    report = (directory / "report" / "report.md").read_text()
    assert "| **Kind** |  |  | Full-size models | Pruned models, pruned from fake-4 |" in report


def test_changed_weights_make_all_images_again(world) -> None:
    world.run()
    weights = world.suite.parent / "variants" / "weights" / "transformer" / "model.safetensors"
    weights.write_bytes((20).to_bytes(8, "little") + b'{"__metadata__":{}} ')
    world.run()
    assert len(numbers.run_ids(world.output)) == 2
    assert sum(fakes.FakeGenerator.batches) == 4 * N


def test_a_limited_run_is_incomplete_and_its_images_serve_the_full_run(world, capsys) -> None:
    assert world.run(limit=5) == 3
    out = capsys.readouterr().out
    assert f"incomplete: shapes / fake-4 has 5/{N} images" in out
    found = [row for row in numbers.summaries(world.output) if row.key == "overall"]
    assert all((row.n_samples, row.n_expected, row.complete) == (5, N, False) for row in found)
    ids = {path.parent.name for path in world.images()}
    assert len(ids) == 5, "a limited run takes different prompts first"
    assert world.run() == 0
    assert [session["images_generated"] for session in numbers.sessions(world.output)] == [10, 2 * N - 10]
    assert all(row.complete for row in numbers.summaries(world.output))


def test_a_limit_never_hides_what_is_there(world) -> None:
    world.run()
    before = numbers.summaries(world.output)
    assert world.run(limit=5) == 0
    assert numbers.summaries(world.output) == before


def test_one_variant_then_all(world, capsys) -> None:
    assert world.run(variants=("fake-2",)) == 0
    assert len(world.images()) == N
    assert world.run() == 0
    assert numbers.sessions(world.output)[1]["images_generated"] == N
    assert len(numbers.run_ids(world.output)) == 1


def test_unknown_selected_variant_is_named(world) -> None:
    with pytest.raises(UsageError, match=r"no micro variant 'fake-3' \(did you mean 'fake-[24]'\?\)"):
        world.run(variants=("fake-3",))
    assert not world.output.exists()


@pytest.mark.parametrize("damage", ["truncate", "zero", "empty", "delete", "garble"])
def test_damaged_images_are_made_again(world, damage) -> None:
    world.run()
    before, good = numbers.summaries(world.output), numbers.image_bytes(world.output)
    target = world.images()[7]
    content = target.read_bytes()
    damaged = {
        "truncate": content[: len(content) // 2],
        "zero": bytes(len(content)),
        "empty": b"",
        "garble": content[:-20] + bytes([content[-20] ^ 1]) + content[-19:],
    }
    if damage == "delete":
        target.unlink()
    else:
        target.write_bytes(damaged[damage])
    assert world.run() == 0
    assert numbers.image_bytes(world.output) == good
    assert numbers.summaries(world.output) == before
    assert numbers.sessions(world.output)[1]["images_generated"] == 1


def test_damaged_feature_chunks_are_computed_again(world) -> None:
    world.run()
    before, computed = numbers.summaries(world.output), fakes.Spread.computed
    chunk = sorted(world.output.glob("runs/*/features/**/*.npz"))[0]
    chunk.write_bytes(chunk.read_bytes()[:-30])
    assert world.run() == 0
    assert numbers.summaries(world.output) == before
    assert fakes.Spread.computed == computed + N


def test_a_failed_sample_is_recorded_and_the_run_incomplete(world, monkeypatch, capsys) -> None:
    monkeypatch.setattr(fakes.FakeGenerator, "failing", ("squares 2",))
    assert world.run(batch_size=8) == 3
    assert f"incomplete: shapes / fake-4 has {N - 4}/{N} images, 4 failed" in capsys.readouterr().out
    assert len(world.images()) == 2 * (N - 4), "no stand-in for a failed sample"
    session = numbers.sessions(world.output)[0]
    assert (session["images_generated"], session["images_failed"]) == (2 * (N - 4), 8)
    overall = [row for row in numbers.summaries(world.output) if row.key == "overall"]
    assert not any(row.complete for row in overall)
    monkeypatch.setattr(fakes.FakeGenerator, "failing", ())
    assert world.run() == 0, "failed samples are tried again"


def test_out_of_memory_halves_the_batch_and_keeps_the_numbers(world, monkeypatch, tmp_path) -> None:
    world.run(batch_size=16)
    expected = numbers.summaries(world.output), numbers.image_bytes(world.output)
    world.output = tmp_path / "small"
    monkeypatch.setattr(fakes.FakeGenerator, "largest_batch", 3)
    monkeypatch.setattr(fakes.FakeGenerator, "batches", [])
    assert world.run(batch_size=16) == 0
    assert max(fakes.FakeGenerator.batches) == 2
    assert (numbers.summaries(world.output), numbers.image_bytes(world.output)) == expected
    store = Store.open_existing(world.output)
    assert store is not None
    halved = [event["batch_size"] for event in store.events(numbers.run_ids(world.output)[0])]
    assert halved[:3] == [8, 4, 2]


@contextlib.contextmanager
def stopped_by(error: type[BaseException], batches: int) -> Iterator[None]:
    """The generator raises `error` once so many batches are made."""
    original = fakes.FakeGenerator.generate

    def generate(self, requests):
        if len(fakes.FakeGenerator.batches) == batches:
            raise error
        return original(self, requests)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fakes.FakeGenerator, "generate", generate)
        yield


def test_a_crash_keeps_finished_batches(world) -> None:
    class Bug(Exception):
        pass

    with stopped_by(Bug, 4), pytest.raises(Bug):
        world.run(batch_size=4)
    assert numbers.sessions(world.output)[0]["state"] == "failed"
    assert world.run(batch_size=4) == 0
    first, second = numbers.sessions(world.output)
    assert first["images_generated"] >= 4
    assert first["images_generated"] + second["images_generated"] == 2 * N


def test_ctrl_c_says_how_to_go_on(world, capsys) -> None:
    with stopped_by(KeyboardInterrupt, 3):
        assert world.run(batch_size=4) == 3
    assert "run the same command again to continue" in capsys.readouterr().out
    assert numbers.sessions(world.output)[0]["state"] == "interrupted"
    assert world.run(batch_size=4) == 0


def test_dry_run_writes_nothing_and_counts(world, capsys) -> None:
    assert world.run(dry_run=True) == 0
    assert not world.output.exists()
    out = capsys.readouterr().out
    assert f"total: {2 * N} images to generate" in out
    assert "nothing was timed yet" in out
    world.run(limit=5)
    before = {path: path.stat().st_mtime_ns for path in world.output.rglob("*")}
    capsys.readouterr()
    assert world.run(dry_run=True) == 0
    assert {path: path.stat().st_mtime_ns for path in world.output.rglob("*")} == before
    out = capsys.readouterr().out
    assert f"total: {2 * N - 10} images to generate" in out
    assert "(1 s to 1 s; measured here)" in out


def test_a_second_writer_is_refused(world) -> None:
    world.output.mkdir()
    with writer_lock(world.output), pytest.raises(UsageError, match=r"another sana-bench .* is writing here"):
        world.run()
    assert world.run() == 0


def test_output_that_is_a_file_is_refused(world) -> None:
    world.output.write_text("mine")
    with pytest.raises(UsageError, match="is a file, not a folder"):
        world.run()
    assert world.output.read_text() == "mine"


def test_images_come_over_from_another_run_of_the_same_output(world) -> None:
    world.run()
    assert world.run(overrides=("benchmarks.0.metrics=[redness]",)) == 0
    runs = numbers.run_ids(world.output)
    assert len(runs) == 2
    assert sum(fakes.FakeGenerator.batches) == 2 * N
    assert len(world.images()) == 4 * N, "each run directory holds all of its images"


def test_truncated_weights_are_refused_before_anything_is_written(world) -> None:
    weights = world.suite.parent / "variants" / "weights" / "vae" / "model.safetensors"
    weights.write_bytes((200).to_bytes(8, "little") + b"{}")
    with pytest.raises(UsageError, match="not a whole safetensors file"):
        world.run()
    assert not world.output.exists()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (0.2, "1 s"), (59.4, "59 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_format_seconds(seconds, text) -> None:
    assert format_seconds(seconds) == text


def test_a_run_that_is_ended_on_another_machine_says_who_made_what(world, monkeypatch, capsys) -> None:
    monkeypatch.setattr(provenance, "cpu_model", lambda: "processor A")
    assert world.run(limit=5) == 3
    assert "Mixed devices" not in capsys.readouterr().out
    monkeypatch.setattr(provenance, "cpu_model", lambda: "processor B")
    assert world.run() == 0
    line = (
        "Mixed devices, whose numbers may differ in their last bits: 10 images and 10 scores on processor A; "
        f"{2 * N - 10} images and {2 * N - 10} scores on processor B."
    )
    assert line in " ".join(capsys.readouterr().out.split())
    (directory,) = (world.output / "runs").iterdir()
    report = directory / "report"
    assert line in (report / "report.md").read_text()
    assert line in (report / "report.html").read_text()
    workers = json.loads((directory / "provenance.json").read_text())["workers"]
    store = Store.open_existing(world.output)
    assert store is not None
    with store:
        made = {row[0] for row in store._connection.execute("SELECT DISTINCT worker FROM images")}
        judged = {row[0] for row in store._connection.execute("SELECT DISTINCT worker FROM scores")}
    assert workers.keys() == made == judged
    assert all({"node", "python", "packages"} <= one.keys() for one in workers.values())


def test_what_a_lost_writer_left_goes_with_the_end_of_the_run(world, monkeypatch):
    score = fakes.Redness.score

    def score_beside_a_loss(self, samples):
        (samples[0].image_path.parent / ".tmp-0-lost.png").write_bytes(b"half an image")
        return score(self, samples)

    monkeypatch.setattr(fakes.Redness, "score", score_beside_a_loss)
    assert world.run() == 0
    assert not list(world.output.rglob(".tmp-*"))


def test_an_image_that_goes_while_it_is_scored_is_made_again(world, monkeypatch):
    score = fakes.Redness.score

    def score_what_goes(self, samples):
        samples[0].image_path.unlink()
        return score(self, samples)

    with monkeypatch.context() as patched:
        patched.setattr(fakes.Redness, "score", score_what_goes)
        with pytest.raises(ImageError, match="no such image") as caught:
            world.run()
    assert caught.value.exit_code == 2
    assert world.run() == 0
