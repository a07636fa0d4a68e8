"""Training: exact resume, the flow-matching pair, and a whole tiny run from configuration to pipeline folder."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sana_models.pipeline import load_pipeline
from sana_models.solvers import shift_sigma
from sana_models.training.cache import prepare_cache
from sana_models.training.flow import flow_matching_pair, sample_noise_levels
from sana_models.training.loop import train
from sana_models.training.loop_config import LoopConfig
from sana_models.training.run import run_training
from sana_models.training.state import KEPT_STATES
from tests.models.training.datasets import TEXT_ENCODER

WORDS = ("a", "photo", "of", "red", "blue", "dot")


def source(seed: int, index: int, n: int) -> tuple[np.ndarray, list[str]]:
    """Images of one flat colour each, 16x16, and the caption that names it."""
    rng = np.random.default_rng([seed, index])
    red = rng.integers(0, 2, n).astype(bool)
    images = np.zeros((n, 16, 16, 3), dtype=np.uint8)
    images[red, ..., 0] = 220
    images[~red, ..., 2] = 220
    return images, [f"a photo of a {'red' if is_red else 'blue'} dot" for is_red in red]


class Regression:
    """A task small enough to train in milliseconds."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.modules = {"net": nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))}

    def parameter_groups(self, learning_rate: float):
        return [{"params": list(self.modules["net"].parameters()), "lr": learning_rate}]

    def loss(self, step: int, batch_size: int, generator: torch.Generator):
        x = torch.randn(batch_size, 4, generator=generator)
        return (self.modules["net"](x) - x.sum(1, keepdim=True)).square().mean(), {}


def settings(**changes) -> LoopConfig:
    values = {
        "steps": 60,
        "batch_size": 16,
        "learning_rate": 0.02,
        "warmup_steps": 5,
        "precision": "fp32",
        "checkpoint_every": 7,
        "log_every": 5,
    }
    return LoopConfig(**(values | changes))


class Killed(Exception):
    pass


def test_a_killed_and_resumed_run_has_the_same_weights_and_curve(tmp_path):
    whole = Regression()
    train(whole, settings(), tmp_path / "whole")

    interrupted = Regression()
    loss = interrupted.loss

    def dies(step, *arguments):
        if step == 33:
            raise Killed
        return loss(step, *arguments)

    interrupted.loss = dies
    with pytest.raises(Killed):
        train(interrupted, settings(), tmp_path / "parts")
    resumed = Regression()
    train(resumed, settings(), tmp_path / "parts")

    # Bit-equal: every draw depends on (seed, step) alone and the checkpoint holds everything else.
    for expected, found in zip(
        whole.modules["net"].parameters(), resumed.modules["net"].parameters(), strict=True
    ):
        assert torch.equal(expected, found)
    curves = [list(csv.DictReader((tmp_path / name / "curve.csv").open())) for name in ("whole", "parts")]
    assert [(row["step"], row["loss"]) for row in curves[0]] == [
        (row["step"], row["loss"]) for row in curves[1]
    ]


def test_training_learns(tmp_path):
    task = Regression()
    result = train(task, settings(steps=300), tmp_path)
    x = torch.randn(256, 4, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        error = (task.modules["net"](x) - x.sum(1, keepdim=True)).square().mean()
    # The target's variance is 4; a trained net of this size leaves a few per cent of it.
    assert float(error) < 0.6
    assert result.steps == 300


def broken(task: Regression, steps: set[int]) -> Regression:
    """The gradient of `steps` is not finite."""
    loss = task.loss

    def breaks(step, *arguments):
        value, extra = loss(step, *arguments)
        return (value * float("nan") if step in steps else value), extra

    task.loss = breaks
    return task


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    with pytest.raises(FloatingPointError, match="10 steps in a row, from step 0 on"):
        train(broken(Regression(), set(range(60))), settings(), tmp_path)


def test_steps_without_a_finite_gradient_change_nothing_and_are_counted(tmp_path, capsys):
    task = broken(Regression(), {9, 10, 30})
    before: dict[int, list[torch.Tensor]] = {}
    loss = task.loss

    def watched(step, *arguments):
        before[step] = [parameter.detach().clone() for parameter in task.modules["net"].parameters()]
        return loss(step, *arguments)

    task.loss = watched
    result = train(task, settings(), tmp_path)
    assert result.skipped_steps == 3
    assert all(torch.equal(a, b) for a, b in zip(before[9], before[11], strict=True))
    assert not torch.equal(before[11][0], before[12][0])
    assert capsys.readouterr().err.count("skipped: loss nan") == 3


def test_the_curve_has_a_row_for_every_interval_that_had_a_step(tmp_path):
    train(broken(Regression(), {0, 1, 10, 59}), settings(log_every=10), tmp_path)
    rows = list(csv.DictReader((tmp_path / "curve.csv").open()))
    assert [int(row["step"]) for row in rows] == [2, 11, 20, 30, 40, 50]
    with pytest.raises(FloatingPointError, match="3 steps in a row, from step 0 on"):
        train(broken(Regression(), {0, 1, 2}), settings(steps=3), tmp_path / "short")


def test_the_last_good_state_stays_and_a_repaired_run_continues_from_it(tmp_path):
    with pytest.raises(FloatingPointError, match="4 steps in a row, from step 40 on"):
        train(broken(Regression(), set(range(40, 60))), settings(stop_after_skipped=4), tmp_path)
    whole, repaired = Regression(), Regression()
    train(whole, settings(), tmp_path / "whole")
    train(repaired, settings(stop_after_skipped=4), tmp_path)
    for expected, found in zip(
        whole.modules["net"].parameters(), repaired.modules["net"].parameters(), strict=True
    ):
        assert torch.equal(expected, found)


def test_a_weight_that_is_not_finite_is_never_saved(tmp_path):
    task = Regression()
    loss = task.loss

    def poisons(step, *arguments):
        value = loss(step, *arguments)
        if step == 20:
            # After the loss, as a broken optimizer or memory would.
            task.modules["net"].register_buffer("statistic", torch.tensor(float("inf")))
        return value

    task.loss = poisons
    with pytest.raises(FloatingPointError, match=r"modules\.net\.statistic is not finite .*state\.pt"):
        train(task, settings(), tmp_path)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 14


def test_two_older_states_are_kept_and_used_when_newer_ones_are_damaged(tmp_path, capsys):
    whole = Regression()
    train(whole, settings(), tmp_path)
    steps = [torch.load(tmp_path / name, weights_only=True)["step"] for name in KEPT_STATES]
    assert steps == [60, 56, 49]
    (tmp_path / "state.pt").write_bytes((tmp_path / "state.pt").read_bytes()[:500])
    poisoned = torch.load(tmp_path / "state.1.pt", weights_only=True)
    poisoned["average"][0][0] = float("nan")
    torch.save(poisoned, tmp_path / "state.1.pt")
    again = Regression()
    train(again, settings(), tmp_path)
    assert capsys.readouterr().err.count("continuing from state.2.pt, step 49") == 2
    for expected, found in zip(
        whole.modules["net"].parameters(), again.modules["net"].parameters(), strict=True
    ):
        assert torch.equal(expected, found)
    for name in KEPT_STATES:
        (tmp_path / name).write_bytes(b"damaged")
    with pytest.raises(ValueError, match="no state to continue from: give --fresh"):
        train(Regression(), settings(), tmp_path)


@pytest.mark.parametrize(
    "bad", [{"steps": 0}, {"batch_size": 0}, {"learning_rate": -1.0}, {"precision": "fp8"}]
)
def test_absurd_settings_are_refused(bad):
    with pytest.raises(ValueError, match=r"training\.\w+ is .+; (expected|allowed)"):
        settings(**bad)


def test_flow_pair_ends_are_data_and_noise():
    latents, noise = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    noisy, velocity = flow_matching_pair(latents, torch.tensor([0.0, 1.0, 0.25]), noise)
    assert torch.equal(noisy[0], latents[0])
    assert torch.equal(noisy[1], noise[1])
    # One Euler step of the true velocity back to level 0 recovers the data, up to fp32 rounding.
    torch.testing.assert_close(
        noisy - torch.tensor([0.0, 1.0, 0.25])[:, None, None, None] * velocity, latents
    )


def test_noise_levels_are_logit_normal_and_shifted():
    levels = sample_noise_levels(20_000, shift=3.0, generator=torch.Generator().manual_seed(1)).numpy()
    assert levels.min() >= 0
    assert levels.max() < 1
    # The median of the logit-normal is 1/2; three standard errors of the median are about 0.01 here.
    assert abs(np.median(levels) - shift_sigma(np.array(0.5), 3.0)) < 0.01


def dc_ae_config(steps: int) -> dict:
    return {
        "kind": "dc_ae",
        "name": "tiny",
        "data": {"source": "test"},
        "model": {
            "latent_channels": 4,
            "attention_head_dim": 8,
            "encoder_block_types": ["ResBlock", "EfficientViTBlock"],
            "decoder_block_types": ["ResBlock", "EfficientViTBlock"],
            "encoder_block_out_channels": [8, 16],
            "decoder_block_out_channels": [8, 16],
            "encoder_layers_per_block": [1, 1],
            "decoder_layers_per_block": [1, 1],
            "encoder_qkv_multiscales": [[], [5]],
            "decoder_qkv_multiscales": [[], [5]],
        },
        "loss": {"latent_noise": 0.05, "detail_weight": 1.0, "statistics_images": 64},
        "training": {
            "steps": steps,
            "batch_size": 8,
            "learning_rate": 3e-3,
            "warmup_steps": 2,
            "precision": "fp32",
        },
    }


def sana_config(autoencoder: Path, steps: int) -> dict:
    return {
        "kind": "sana",
        "name": "tiny",
        "autoencoder": str(autoencoder),
        "data": {"source": "test", "cached_samples": 64, "max_length": 8},
        "text_encoder": dict(TEXT_ENCODER),
        "model": {
            "num_layers": 1,
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "num_cross_attention_heads": 2,
            "cross_attention_head_dim": 8,
            "caption_channels": 16,
            "in_channels": 4,
            "out_channels": 4,
            "sample_size": 8,
        },
        "flow": {"shift": 3.0, "caption_norm_start": 1.0},
        "training": {
            "steps": steps,
            "batch_size": 8,
            "learning_rate": 2e-3,
            "warmup_steps": 2,
            "precision": "fp32",
        },
    }


def test_configurations_become_a_pipeline_that_loads_and_draws(tmp_path):
    run_training(dc_ae_config(12), tmp_path / "ae", source=source)
    result = run_training(
        sana_config(tmp_path / "ae" / "vae", 6), tmp_path / "sana", source=source, vocabulary=WORDS
    )
    assert result.steps == 6
    for name in ("ae", "sana"):
        assert (tmp_path / name / "curve.png").stat().st_size > 1000
    pipe = load_pipeline(tmp_path / "sana" / "pipeline")
    statistics = pipe.autoencoder.config.latents_std
    assert statistics is not None
    assert min(statistics) > 0
    noise = torch.randn(2, *pipe.latent_shape(16, 16), generator=torch.Generator().manual_seed(0))
    images = pipe(["a photo of a red dot", "a photo of a blue dot"], noise=noise, steps=2)
    assert images.shape == (2, 16, 16, 3)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("kind",), "gan", "kind is 'gan'"),
        (("training", "stepz"), 5, "training.stepz"),
        (("surprise",), 1, "unknown key 'surprise'"),
        (("model", "latent_chanels"), 4, "latent_chanels"),
    ],
)
def test_bad_configurations_are_one_clear_line(tmp_path, path, value, message):
    config = dc_ae_config(2)
    section = config
    for key in path[:-1]:
        section = section[key]
    section[path[-1]] = value
    with pytest.raises(ValueError, match=message) as caught:
        run_training(config, tmp_path, source=source)
    assert "\n" not in str(caught.value)


def test_an_interrupted_cache_goes_on_with_the_missing_shard(tmp_path, monkeypatch):
    from sana_models.config import DCAEConfig
    from sana_models.dc_ae import DCAE
    from sana_models.training import cache

    monkeypatch.setattr(cache, "_SHARD", 128)
    torch.manual_seed(0)
    model = DCAE(DCAEConfig.from_dict(dc_ae_config(1)["model"])).eval()
    calls: list[int] = []

    def counted(seed, index, n):
        calls.append(index)
        return source(seed, index, n)

    def tokenize(captions):
        return torch.ones(len(captions), 3, dtype=torch.long), torch.ones(len(captions), 3, dtype=torch.long)

    first = prepare_cache(model, counted, tokenize, tmp_path, seed=0, count=300)
    assert calls == [0, 1, 2, 3, 4, 5]
    (tmp_path / "00001.npz").unlink()
    again = prepare_cache(model, counted, tokenize, tmp_path, seed=0, count=300)
    assert calls[6:] == [2, 3]
    assert torch.equal(first.latents, again.latents)
