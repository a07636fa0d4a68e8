"""Contrastive training: negatives that are really false, a loss that knows them, exact resumption."""

import math

import numpy as np
import pytest
import torch

from sana_bench.metrics.clip import training as train_clip
from sana_bench.metrics.clip.micro_network import load_clip
from sana_bench.metrics.clip.training import contrastive_loss, run_clip_training, training_batch
from sana_bench.micro.captions import is_held_out, sample_training_pair
from sana_bench.micro.evaluation_set import geneval_prompts
from sana_bench.micro.hard_negatives import hard_negative, wrong_captions


def flat(caption):
    return [wrong for kind in wrong_captions(caption) for wrong in kind]


def test_kinds_of_falsification():
    wrong = flat("a photo of a red circle left of an orange square")
    assert "a photo of an orange circle left of a red square" in wrong
    assert "a photo of a red circle right of an orange square" in wrong
    assert "a photo of a blue circle left of an orange square" in wrong
    assert "a photo of a red star left of an orange square" in wrong
    assert "a photo of a red square left of an orange circle" not in wrong
    assert set(flat("a photo of two crosses")) >= {"a photo of three crosses", "a photo of two hearts"}
    assert flat("a photo of a circle and a star") == [
        f"a photo of a {shape} and a star"
        for shape in ("square", "triangle", "cross", "ring", "diamond", "heart")
    ] + [
        f"a photo of a circle and a {shape}"
        for shape in ("square", "triangle", "cross", "ring", "diamond", "heart")
    ]


def test_hard_negatives_change_the_caption_and_are_never_held_out():
    rng = np.random.default_rng(0)
    for _ in range(300):
        _, caption = sample_training_pair(rng)
        wrong = hard_negative(caption, rng)
        assert wrong is not None
        assert wrong != caption
        assert not is_held_out(wrong)


def test_captions_with_only_held_out_falsifications_have_none(monkeypatch):
    monkeypatch.setattr("sana_bench.micro.hard_negatives.is_held_out", lambda caption: True)
    assert hard_negative("a photo of a red circle", np.random.default_rng(0)) is None


def test_a_batch_is_a_function_of_seed_and_step():
    first, again, other = training_batch(1, 5, 40), training_batch(1, 5, 40), training_batch(1, 6, 40)
    np.testing.assert_array_equal(first.images, again.images)
    assert first.captions == again.captions
    assert first.negatives == again.negatives
    assert first.captions != other.captions
    assert not set(first.captions) & set(first.negatives)
    assert set(first.caption_ids.tolist()) == set(range(len(first.captions)))
    held_out = {record["prompt"] for record in geneval_prompts() if is_held_out(record["prompt"])}
    assert not held_out & {*first.captions, *first.negatives}


def unit(*angles):
    return torch.tensor([[math.cos(angle), math.sin(angle)] for angle in angles])


def test_loss_by_hand():
    images, texts = unit(0.0, math.pi / 2), unit(0.0, math.pi / 2)
    loss = contrastive_loss(images, texts, torch.tensor([0, 1]), 2, torch.tensor(2.0))
    # Every row of logits is (2, 0) with the first right; 1e-6: float32.
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2)), abs=1e-6)


def test_images_of_one_caption_are_not_negatives_of_each_other():
    twice, texts = unit(0.0, 0.0, math.pi), unit(0.0, math.pi)
    loss = contrastive_loss(twice, texts, torch.tensor([0, 0, 1]), 2, torch.tensor(50.0))
    # Perfect features: only the even split over both images of the first caption is left, log 2 of one
    # caption in two, and half of that because the two directions are averaged.
    assert loss.item() == pytest.approx(math.log(2) / 4, abs=1e-6)


def test_hard_negatives_count_for_images_only():
    images, ids, scale = unit(0.0, math.pi), torch.tensor([0, 1]), torch.tensor(50.0)
    plain = contrastive_loss(images, unit(0.0, math.pi), ids, 2, scale)
    confusing = contrastive_loss(images, unit(0.0, math.pi, 0.0), ids, 2, scale)
    # One image of two cannot tell its caption from the negative: log 2, averaged over images and directions.
    assert (confusing - plain).item() == pytest.approx(math.log(2) / 4, abs=1e-6)


def config(steps, **training):
    return {
        "kind": "clip",
        "name": "tiny",
        "data": {"source": "micro"},
        "model": {
            "embed_dim": 8,
            "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32},
            "text_cfg": {"context_length": 16, "width": 16, "heads": 2, "layers": 1},
        },
        "training": {
            "steps": steps,
            "batch_size": 12,
            "learning_rate": 1e-3,
            "warmup_steps": 2,
            "checkpoint_every": 2,
            "log_every": 1,
            **training,
        },
    }


class Killed(BaseException):
    """Stands for the end of the process at this point."""


def test_interrupted_training_ends_with_the_same_weights(tmp_path, monkeypatch):
    run_clip_training(config(6), tmp_path / "whole")
    original = train_clip._one_step

    def dies(model, tokenizer, optimizer, settings, step, batch):
        if step == 3:
            raise Killed
        return original(model, tokenizer, optimizer, settings, step, batch)

    monkeypatch.setattr(train_clip, "_one_step", dies)
    with pytest.raises(Killed):
        run_clip_training(config(6), tmp_path / "cut")
    monkeypatch.setattr(train_clip, "_one_step", original)
    run_clip_training(config(6), tmp_path / "cut")
    whole, cut = (load_clip(tmp_path / name / "clip").model.state_dict() for name in ("whole", "cut"))
    # Exact: same batches, same state, same kernels.
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    curves = [(tmp_path / name / "clip/curve.csv").read_text().splitlines() for name in ("whole", "cut")]
    assert [line.rsplit(",", 1)[0] for line in curves[0]] == [line.rsplit(",", 1)[0] for line in curves[1]]
    assert len(curves[0]) == 7


def test_a_state_of_another_configuration_is_not_continued(tmp_path):
    run_clip_training(config(2), tmp_path)
    with pytest.raises(ValueError, match=r"training\.learning_rate \(0\.001, now 0\.01\); give --fresh"):
        run_clip_training(config(2, learning_rate=1e-2), tmp_path)
    assert {path.name for path in tmp_path.glob("state*.pt")} == {"state.pt"}


def test_training_leaves_weights_curve_and_card(tmp_path):
    run_clip_training(config(2), tmp_path)
    assert {path.name for path in (tmp_path / "clip").iterdir()} == {
        "README.md", "curve.csv", "curve.png", "model.safetensors", "open_clip_config.json", "vocab.json",
    }  # fmt: skip
    card = (tmp_path / "clip/README.md").read_text()
    for part in (
        "# tiny",
        "Seed 0, 2 steps of 12 pairs",
        "| image to caption |",
        "| color_attr |",
        "steps: 2",
    ):
        assert part in card


def test_the_loss_falls(tmp_path):
    run_clip_training(config(30, learning_rate=3e-3, log_every=1, checkpoint_every=30), tmp_path)
    rows = (tmp_path / "clip/curve.csv").read_text().splitlines()[1:]
    losses = [float(row.split(",")[1]) for row in rows]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["training"].update(stepz=1), r"unknown key 'training\.stepz'"),
        (lambda c: c["model"].update(depth=1), r"unknown key 'model\.depth'"),
        (lambda c: c.update(extra=1), "unknown key 'extra'"),
        (lambda c: c.pop("model"), "section 'model' is missing"),
        (lambda c: c["training"].update(steps=0), "at least 1 step"),
        (lambda c: c["training"].update(precision="int1"), r"training\.precision is 'int1'"),
        (lambda c: c["model"]["text_cfg"].pop("context_length"), "context_length"),
    ],
    ids=["training key", "model key", "key", "no model", "no steps", "precision", "no context"],
)
def test_bad_configurations_are_refused_before_anything_is_written(tmp_path, change, message):
    bad = config(2)
    change(bad)
    with pytest.raises(ValueError, match=message):
        run_clip_training(bad, tmp_path / "out")
    assert not (tmp_path / "out").exists()
