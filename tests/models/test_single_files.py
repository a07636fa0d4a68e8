"""Files as trainers leave them: wrapped names, averages, generator states; and what they say when they do not fit."""

import json
import logging
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sana_models import CheckpointError, load_autoencoder, load_transformer
from sana_models.dc_ae import DCAE
from tests.models.test_key_maps import SMALL, official_transformer
from tests.parity.conftest import small_dc_ae


@pytest.fixture(scope="module")
def official() -> dict[str, torch.Tensor]:
    return official_transformer(SMALL)


@pytest.fixture(scope="module")
def expected(official, tmp_path_factory) -> dict[str, torch.Tensor]:
    path = tmp_path_factory.mktemp("plain") / "sana.pth"
    torch.save({"state_dict": official}, path)
    return load_transformer(path, config=SMALL).state_dict()


def assert_loads(path: Path, expected: dict[str, torch.Tensor], **options) -> None:
    found = load_transformer(path, config=SMALL, **options).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_the_official_trainers_own_file(tmp_path, official, expected):
    """Weights beside an optimizer and the states of three random generators, numpy's among them."""
    content = {
        "state_dict": {f"module._orig_mod.{key}": value for key, value in official.items()},
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-4}]},
        "scheduler": {"last_epoch": np.int64(3), "loss": np.float64(0.25)},
        "epoch": 3,
        "step": 1000,
        "rng_state": {
            "torch": torch.get_rng_state(),
            "numpy": np.random.get_state(),  # noqa: NPY002
            "python": random.getstate(),
        },
    }
    torch.save(content, tmp_path / "epoch_3_step_1000.pth")
    assert_loads(tmp_path / "epoch_3_step_1000.pth", expected)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: weights,
        lambda weights: {"model": weights},
        lambda weights: {"state_dict": {f"module.{key}": value for key, value in weights.items()}},
        lambda weights: {
            key.replace("blocks.0.", "blocks.0._orig_mod."): value for key, value in weights.items()
        },
    ],
    ids=["bare", "model", "data parallel", "compiled blocks"],
)
def test_wrapped_weights_are_found(tmp_path, official, expected, wrap):
    torch.save(wrap(official), tmp_path / "sana.pth")
    assert_loads(tmp_path / "sana.pth", expected)


def test_average_or_raw_as_asked_and_told(tmp_path, official, expected, caplog):
    average = {key: value + 1 for key, value in official.items()}
    torch.save({"state_dict": official, "state_dict_ema": average}, tmp_path / "sana.pth")
    with caplog.at_level(logging.WARNING):
        assert_loads(tmp_path / "sana.pth", expected)
        assert_loads(tmp_path / "sana.pth", {key: value + 1 for key, value in expected.items()}, ema=True)
    assert [record.getMessage().split("holds ")[1] for record in caplog.records] == [
        "state_dict and state_dict_ema; taking state_dict (ema=False)",
        "state_dict and state_dict_ema; taking state_dict_ema (ema=True)",
    ]
    torch.save({"state_dict": official}, tmp_path / "raw.pth")
    with pytest.raises(CheckpointError, match=r"holds no moving average; found state_dict$"):
        load_transformer(tmp_path / "raw.pth", config=SMALL, ema=True)
    torch.save({"state_dict_ema": average}, tmp_path / "ema.pth")
    with pytest.raises(
        CheckpointError, match=r"holds no weights but their moving average; found state_dict_ema$"
    ):
        load_transformer(tmp_path / "ema.pth", config=SMALL)


def test_a_lone_safetensors_file_in_either_naming(tmp_path, official, expected):
    save_file(official, tmp_path / "official.safetensors")
    save_file(expected, tmp_path / "diffusers.safetensors")
    for name in ("official", "diffusers"):
        assert_loads(tmp_path / f"{name}.safetensors", expected)
    (tmp_path / "config.json").write_text(json.dumps(SMALL.to_dict()))
    assert load_transformer(tmp_path / "official.safetensors").config == SMALL
    with pytest.raises(CheckpointError, match="one set of weights and no moving average"):
        load_transformer(tmp_path / "official.safetensors", ema=True)


def test_a_training_state_of_this_project(tmp_path, expected):
    encoder = {"embed.weight": torch.zeros(3, 2)}
    state = {
        "step": 5,
        "modules": {"text_encoder": encoder, "transformer": expected},
        "optimizer": {},
        "average": [*encoder.values(), *(value + 1 for value in expected.values())],
    }
    torch.save(state, tmp_path / "state.pt")
    assert_loads(tmp_path / "state.pt", expected)
    assert_loads(tmp_path / "state.pt", {key: value + 1 for key, value in expected.items()}, ema=True)
    with pytest.raises(
        CheckpointError, match="a training state of text_encoder, transformer, not of autoencoder"
    ):
        load_autoencoder(tmp_path / "state.pt", config=small_dc_ae())


def test_a_state_of_several_processes_is_told_apart(tmp_path):
    (tmp_path / "state.pt").mkdir()
    with pytest.raises(CheckpointError, match=r"state\.pt: a folder; .+ take the pipeline or an export"):
        load_transformer(tmp_path / "state.pt", config=SMALL)


def test_an_autoencoder_too(tmp_path):
    weights = DCAE(small_dc_ae()).state_dict()
    torch.save({"state_dict": {f"module.{key}": value for key, value in weights.items()}}, tmp_path / "ae.pt")
    found = load_autoencoder(tmp_path / "ae.pt", config=small_dc_ae()).state_dict()
    assert all(torch.equal(found[key], value) for key, value in weights.items())


def test_what_is_no_weights_says_what_it_is(tmp_path):
    torch.save({"epoch": 3, "optimizer": {}}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"found epoch \(int\), optimizer \(dict\)"):
        load_transformer(tmp_path / "x.pth", config=SMALL)


def test_code_beside_numpy_is_still_not_run(tmp_path, official):
    class Payload:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    torch.save({"state_dict": official, "rng_state": [np.random.get_state(), Payload()]}, tmp_path / "x.pth")  # noqa: NPY002
    with pytest.raises(CheckpointError, match="unsafe archive"):
        load_transformer(tmp_path / "x.pth", config=SMALL)
    assert not (tmp_path / "ran").exists()
