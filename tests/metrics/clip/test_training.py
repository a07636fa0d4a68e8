"""Contrastive training: negatives that are really false, a loss that knows them, exact resumption."""

import math

import numpy as np
import pytest
import torch

from sana_bench.metrics.clip.micro_network import load_clip
from sana_bench.metrics.clip.training import ClipTask, contrastive_loss, run_clip_training, training_batch
from sana_bench.micro.captions import is_held_out, sample_training_pair
from sana_bench.micro.evaluation_set import geneval_prompts
from sana_bench.micro.hard_negatives import hard_negative, wrong_captions
from sana_models.training.loop_config import LoopConfig
from tests.judges.interruption import stop_at


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


def test_interrupted_training_ends_with_the_same_weights(tmp_path):
    run_clip_training(config(6), tmp_path / "whole")
    stop_at(ClipTask, 3, lambda: run_clip_training(config(6), tmp_path / "cut"))
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


def test_a_folder_of_another_training_is_no_start(tmp_path):
    run_clip_training(config(2), tmp_path)
    with pytest.raises(ValueError, match=r"its state is at step 2, past the 1 of the configuration"):
        run_clip_training(config(1), tmp_path)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    state["modules"]["vqa"] = state["modules"].pop("clip")
    torch.save(state, tmp_path / "state.pt")
    with pytest.raises(ValueError, match=r"its state is of another model \(of vqa, not of clip\)"):
        run_clip_training(config(2), tmp_path)


def test_a_step_that_is_not_finite_is_skipped(tmp_path, monkeypatch):
    whole = ClipTask.loss

    def broken(self, step, *rest):
        loss, extra = whole(self, step, *rest)
        return (loss * math.nan if step == 1 else loss), extra

    monkeypatch.setattr(ClipTask, "loss", broken)
    assert run_clip_training(config(3), tmp_path).skipped_steps == 1
    weights = load_clip(tmp_path / "clip").model.state_dict()
    assert all(bool(torch.isfinite(value).all()) for value in weights.values())


def test_training_goes_on_from_given_weights(tmp_path):
    run_clip_training(config(2), tmp_path / "first")
    start = tmp_path / "first/clip"
    settings = LoopConfig(steps=1, batch_size=2, learning_rate=1e-3, seed=9)
    task = ClipTask(config(1)["model"], settings, start)
    weights = load_clip(start).model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in task.network.state_dict().items())
    run_clip_training(config(2) | {"start": str(start)}, tmp_path / "second")
    assert f"from the weights in `{start}`" in (tmp_path / "second/clip/README.md").read_text()


def test_the_temperature_stays_below_its_ceiling(tmp_path):
    task = ClipTask(config(1)["model"], LoopConfig(steps=1, batch_size=4, learning_rate=1e-3))
    with torch.no_grad():
        task.network.logit_scale.fill_(9.0)
    task.loss(0, 4, torch.Generator())
    assert task.network.logit_scale.item() == pytest.approx(math.log(100), rel=1e-6)  # float32


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
        (lambda c: c["training"].update(steps=0), r"training\.steps is 0; .*at least 1"),
        (lambda c: c["training"].update(log_every=0), r"training\.log_every is 0; .*at least 1"),
        (lambda c: c["training"].update(batch_size=1), r"training\.batch_size is at least 2 pairs"),
        (lambda c: c["training"].update(precision="int1"), r"training\.precision is 'int1'"),
        (lambda c: c["model"]["text_cfg"].pop("context_length"), "context_length"),
    ],
    ids=[
        "training key",
        "model key",
        "key",
        "no model",
        "no steps",
        "no interval",
        "no pair",
        "precision",
        "no context",
    ],
)
def test_bad_configurations_are_refused_before_anything_is_written(tmp_path, change, message):
    bad = config(2)
    change(bad)
    with pytest.raises(ValueError, match=message):
        run_clip_training(bad, tmp_path / "out")
    assert not (tmp_path / "out").exists()
