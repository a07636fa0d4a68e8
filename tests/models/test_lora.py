"""Adapters that cannot be merged: one line, and no weight is changed."""

import json

import pytest
import torch
from safetensors.torch import save_file

from sana_models.checkpoints import CheckpointError, load_transformer
from sana_models.lora import merge_lora
from tests.tiny_weights import write_tiny_pipeline

MODULE = "transformer_blocks.0.attn1.to_q"


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return write_tiny_pipeline(tmp_path_factory.mktemp("start") / "start")


def adapter(
    path, *, a=(4, 32), b=(32, 4), kind=torch.float32, value=1.0, alpha=None, module=MODULE, **metadata
):
    tensors = {
        f"transformer.{module}.lora_A.weight": torch.full(a, value, dtype=kind),
        f"transformer.{module}.lora_B.weight": torch.ones(b, dtype=kind),
    }
    if alpha is not None:
        tensors[f"transformer.{module}.alpha"] = torch.tensor(alpha)
    stored = {"lora_adapter_metadata": json.dumps(metadata)} if metadata else {}
    save_file(tensors, path, metadata={"format": "pt", **stored})
    return path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"a": (4, 64), "b": (64, 4)}, "a LoRA of another size"),
        ({"b": (32, 5)}, "have ranks 4 and 5"),
        ({"a": (0, 32), "b": (32, 0)}, "rank 0, or an alpha that is not one number"),
        ({"alpha": [1.0, 2.0]}, "rank 0, or an alpha that is not one number"),
        ({"value": float("nan")}, "holds values that are not finite numbers"),
        ({"kind": torch.int8}, "holds values that are not finite numbers"),
        ({"alpha": float("inf")}, "holds values that are not finite numbers"),
        ({"module": "transformer_blocks.99.attn1.to_q"}, "a LoRA of another model"),
        ({"lora_alpha": "many"}, "are not numbers by pattern"),
        ({"lora_alpha": float("nan")}, "are not numbers by pattern"),
        ({"alpha_pattern": {"to_(q": 1}}, "are not numbers by pattern"),
        ({"alpha_pattern": ["to_q"]}, "are not numbers by pattern"),
    ],
)
def test_one_that_cannot_be_merged_changes_nothing(start, options, message, tmp_path):
    transformer = load_transformer(start)
    before = {key: value.clone() for key, value in transformer.state_dict().items()}
    path = adapter(tmp_path / "lora.safetensors", **options)
    with pytest.raises(CheckpointError, match=message) as told:
        merge_lora(transformer, path)
    assert len(str(told.value).splitlines()) == 1
    assert all(torch.equal(before[key], value) for key, value in transformer.state_dict().items())


def test_a_whole_number_is_an_alpha(start, tmp_path):
    transformer = load_transformer(start)
    before = transformer.get_submodule(MODULE).weight.clone()
    merge_lora(transformer, adapter(tmp_path / "lora.safetensors", alpha=8))
    # Ones of rank 4 with alpha 8: 4 in each place, twice. Small whole numbers are added to weights with one rounding.
    added = transformer.get_submodule(MODULE).weight - before
    torch.testing.assert_close(added, torch.full_like(added, 8.0), rtol=2**-22, atol=0)
