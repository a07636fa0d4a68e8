"""Sight while training: validation loss, samples, exports of which the best is marked, and the numbers of every row."""

import csv
import json
from pathlib import Path

import pytest
import torch

from sana_models.checkpoints import load_transformer
from sana_models.pipeline import load_pipeline
from sana_models.training import progress
from sana_models.training.flow import flow_matching_pair
from sana_models.training.meter import Meter
from sana_models.training.run import run_training
from sana_models.training.text_to_image import LEVELS, level_sums
from sana_models.training.validation import ValidationSettings
from tests.models.training.datasets import write_folder
from tests.models.training.test_training_processes import assert_equal, config, inputs, weights
from tests.models.training.worker import WORDS, no_source

__all__ = ["inputs"]


def watched(inputs: Path, **training) -> dict:
    settings = config(inputs, **{"steps": 6, "log_every": 1, "learning_rate": 1e-2, **training})
    if not (inputs / "held").exists():
        write_folder(inputs / "held", 5)
    settings["validation"] = {
        "every": 2,
        "paths": [str(inputs / "held")],
        "images": 4,
        "prompts": ["a red dot", "a blue dot", "a dot"],
        "steps": 2,
        "exports": 1,
    }
    return settings


def go(settings: dict, out: Path, **options):
    return run_training(settings, out, source=no_source, vocabulary=WORDS, **options)


def rows(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "curve.csv").open()))


@pytest.fixture(scope="module")
def told() -> list:
    return []


@pytest.fixture(scope="module")
def whole(inputs: Path, told: list) -> Path:
    out = inputs / "whole"
    go(watched(inputs), out, observer=lambda *row: told.append(row))
    return out


def test_looking_changes_no_weight(inputs: Path, whole: Path):
    settings = watched(inputs)
    del settings["validation"]
    go(settings, inputs / "unwatched")
    assert_equal(weights(whole), weights(inputs / "unwatched"))


def test_losses_samples_and_exports_are_there_at_every_interval(whole: Path):
    seen = {
        int(row["step"]) + 1: float(row["validation_loss"]) for row in rows(whole) if row["validation_loss"]
    }
    assert list(seen) == [2, 4, 6]
    assert len(set(seen.values())) == 3
    assert sorted(path.name for path in (whole / "samples").iterdir()) == [
        f"step-{n:06d}.png" for n in (2, 4, 6)
    ]
    best = min(seen, key=lambda step: seen[step])
    note = json.loads((whole / "exports/best.json").read_text())
    assert note == {"step": best, "validation_loss": seen[best]}
    assert (whole / "exports/best").resolve().name == f"step-{best:06d}"
    kept = {path.name for path in (whole / "exports").glob("step-*")}
    assert kept == {"step-000006", f"step-{best:06d}"}
    assert (whole / "exports/best/model_index.json").is_file()
    # The last export is of the averaged weights, as the final pipeline is.
    last = load_transformer(whole / "exports/step-000006").state_dict()
    final = load_transformer(whole / "pipeline").state_dict()
    assert all(torch.equal(last[key], final[key]) for key in final)


def inodes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_ino for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("trained", [False, True])
def test_an_export_costs_what_has_changed(inputs: Path, trained: bool):
    """What is frozen is on the disk once, under the same name in every export, each of which is whole."""
    settings = watched(inputs, steps=4) | {"train_text_encoder": trained}
    settings["validation"] |= {"exports": 9, "prompts": []}
    out = inputs / f"exports-{trained}"
    go(settings, out)
    first, second, final = (out / name for name in ("exports/step-000002", "exports/step-000004", "pipeline"))
    assert not [path for path in out.rglob("*") if path.name.startswith(".tmp-")]
    for one, other in ((first, second), (second, final)):
        shared = {name for name, inode in inodes(one).items() if inode == inodes(other)[name]}
        parts = {name.partition("/")[0] for name in shared}
        assert parts == {"vae", "tokenizer"} | ({"text_encoder"} if not trained else set())
        # All files of a part, or none.
        assert shared == {name for name in inodes(one) if name.partition("/")[0] in parts}
    for folder in (first, second, final):
        images = load_pipeline(folder)(["a red dot"], seeds=[1], steps=2)
        assert images.shape[-1] == 3
    # An export that is written again, as by a resumed training, is a new one: the names of others keep what they had.
    before = load_transformer(first).state_dict()
    encoder = (first / "text_encoder/model.safetensors").read_bytes()
    go(settings | {"training": settings["training"] | {"steps": 5}}, out)
    after = load_transformer(out / "pipeline").state_dict()
    assert any(not torch.equal(before[key], after[key]) for key in after)
    assert (first / "text_encoder/model.safetensors").read_bytes() == encoder


def test_an_export_that_cannot_be_finished_leaves_the_one_before(inputs: Path, monkeypatch):
    from sana_models.training import run

    out = inputs / "unfinished"
    settings = watched(inputs, steps=2)
    settings["validation"] |= {"prompts": []}
    go(settings, out)
    before = inodes(out / "pipeline")

    def full(folder, **_):
        (folder / "transformer").mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run, "save_pretrained", full)
    with pytest.raises(OSError, match="No space left"):
        go(settings, out)
    assert inodes(out / "pipeline") == before
    assert not [path for path in out.rglob("*") if path.name.startswith(".tmp-")]


def test_every_row_has_its_numbers_and_an_observer_hears_them(whole: Path, told: list):
    training = [row for row in rows(whole) if row["loss"]]
    assert [int(row["step"]) for row in training] == list(range(6))
    for row in training:
        assert float(row["gradient_norm"]) > 0
        assert float(row["images_per_s"]) > 0
        assert 0.05 < float(row["memory_gb"]) < 100
        assert any(row[f"loss_{level}"] for level in LEVELS)
    # Two steps of warm-up, then down a cosine to 0.
    rates = [float(row["learning_rate"]) for row in training]
    assert rates[:3] == pytest.approx([5e-3, 1e-2, 1e-2])
    assert rates[3:] == sorted(rates[3:], reverse=True)
    heard = [(step, numbers) for step, numbers, _ in told if "loss" in numbers]
    assert [step for step, _ in heard] == [1, 2, 3, 4, 5, 6]
    assert [numbers["loss"] for _, numbers in heard] == [float(row["loss"]) for row in training]
    assert [sorted(pictures) for _, numbers, pictures in told if "validation_loss" in numbers] == [
        ["samples"]
    ] * 3


def test_a_resumed_training_has_the_same_validation(inputs: Path, whole: Path):
    out = inputs / "parts"
    settings = watched(inputs)

    class Stopped(Exception):
        pass

    def stop(step, numbers, pictures):
        if step == 5:
            raise Stopped

    with pytest.raises(Stopped):
        go(settings, out, observer=stop)
    go(settings, out)
    names = ["step", "loss", "validation_loss", *(f"loss_{level}" for level in LEVELS)]
    assert [[row[name] for name in names] for row in rows(out)] == [
        [row[name] for name in names] for row in rows(whole)
    ]
    assert json.loads((out / "exports/best.json").read_text()) == json.loads(
        (whole / "exports/best.json").read_text()
    )
    assert_equal(weights(out), weights(whole))


def test_a_share_is_held_out_and_not_trained_on(inputs: Path, monkeypatch):
    from sana_models.training import image_text

    seen, kept = [], image_text.ImageTextData.__init__

    def watch(self, records, *arguments, **options):
        seen.append([record.key for record in records])
        kept(self, records, *arguments, **options)

    monkeypatch.setattr(image_text.ImageTextData, "__init__", watch)
    settings = watched(inputs, steps=1)
    settings["validation"] = {"every": 1, "share": 0.3}
    go(settings, inputs / "share")
    (records,) = seen
    # 24 images in all; six standard deviations around 7.2 are 0 to 20.
    assert 4 <= len(records) < 24
    assert float(rows(inputs / "share")[-1]["validation_loss"]) > 0
    settings["validation"]["share"] = 1e-9
    with pytest.raises(ValueError, match="of 24 images is none"):
        go(settings, inputs / "none")


def test_validation_loss_is_that_of_the_weights_at_fixed_noise(inputs: Path):
    """A model that predicts nothing has the mean square of its targets, whatever the step."""
    settings = watched(inputs, steps=2, learning_rate=1e-12)
    settings["validation"] |= {"every": 1, "exports": 0, "prompts": []}
    go(settings, inputs / "still")
    losses = [float(row["validation_loss"]) for row in rows(inputs / "still") if row["validation_loss"]]
    assert losses[0] == losses[1]


def test_errors_are_sorted_by_noise_level():
    latents = torch.zeros(4, 1, 2, 2)
    sigma = torch.tensor([0.0, 0.3, 0.31, 1.0])
    _, target = flow_matching_pair(latents, sigma, torch.ones_like(latents))
    velocity = target + torch.tensor([1.0, 2.0, 4.0, 3.0])[:, None, None, None]
    assert level_sums(velocity, target, sigma).tolist() == [[1, 1], [20, 2], [0, 0], [9, 1]]


def test_a_meter_gives_means_since_the_last_row():
    meter = Meter()
    meter.add({"psnr": 1.0, "level": (6.0, 3)}, 4)
    meter.add({"psnr": 3.0, "level": (0.0, 0)}, 4)
    row = meter.row(torch.device("cpu"))
    assert (row["psnr"], row["level"]) == (2.0, 2.0)
    assert meter.row(torch.device("cpu"))["level"] is None


def test_one_process_tells_of_the_progress(monkeypatch, capsys):
    for main, lines in ((True, 1), (False, 0)):
        monkeypatch.setattr(progress, "is_main", lambda main=main: main)
        with progress.training_progress(10, 0) as report:
            report(10, "loss 0.5")
        assert len(capsys.readouterr().err.splitlines()) == lines


def test_without_an_average_there_is_no_copy_of_the_weights(inputs: Path):
    settings = watched(inputs, steps=2, ema_decay=0)
    settings["validation"] |= {"every": 1, "exports": 0}
    go(settings, inputs / "plain")
    state = torch.load(inputs / "plain/state.pt", weights_only=True)
    assert state["average"] == []
    exported = load_transformer(inputs / "plain/pipeline").state_dict()
    assert all(torch.equal(exported[key], value) for key, value in state["modules"]["transformer"].items())


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({}, r"validation\.every is missing"),
        ({"every": 0}, r"validation\.every is 0"),
        (
            {"every": 5, "share": 0.9},
            r"validation\.share is 0\.9; expected a number, at least 0, at most 0\.5",
        ),
        ({"every": 5, "prompt": ["a"]}, r"'validation\.prompt' \(did you mean 'prompts'\?\)"),
    ],
)
def test_absurd_validation_is_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        ValidationSettings.from_dict(bad)
