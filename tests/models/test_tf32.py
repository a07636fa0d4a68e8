"""TF32 is allowed or forbidden for the length of a call, and told apart where something of it is kept."""

from types import SimpleNamespace

import pytest
import torch

from sana_models import load_pipeline
from sana_models.text_cache import working_precision
from sana_models.tf32 import refuse_tf32, using_tf32


def flags():
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.fixture(autouse=True)
def torch_defaults():
    """Products without, convolutions with: what torch starts with."""
    before = flags()
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = False, True
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize(
    ("allowed", "inside"), [(True, (True, True)), (False, (False, False)), (None, (False, True))]
)
def test_both_kinds_of_products_inside_and_torchs_own_setting_afterwards(allowed, inside):
    with using_tf32(allowed):
        assert flags() == inside
    assert flags() == (False, True)
    with pytest.raises(ZeroDivisionError), using_tf32(allowed):
        raise ZeroDivisionError
    assert flags() == (False, True)


@pytest.mark.parametrize("allowed", [True, False, None])
def test_all_networks_of_a_pipeline_see_it(tiny_pipeline_dir, allowed, monkeypatch):
    """On a CPU the flags change nothing, so that they can be looked at there."""
    monkeypatch.setattr("sana_models.pipeline.refuse_tf32", lambda *_: None)
    pipeline = load_pipeline(tiny_pipeline_dir, tf32=allowed)
    seen = {}
    parts = {
        "text": pipeline.text_encoder.model,
        "transformer": pipeline.transformer,
        "decoder": pipeline.autoencoder.decoder,
    }
    for name, part in parts.items():
        part.register_forward_hook(lambda *_, name=name: seen.update({name: flags()}))
    pipeline(["a circle"], seeds=[0], steps=1)
    expected = {True: (True, True), False: (False, False), None: (False, True)}[allowed]
    assert seen == dict.fromkeys(parts, expected)
    seen.clear()
    pipeline.encode_text(["a square"])
    assert seen == {"text": expected}
    assert flags() == (False, True)


@pytest.mark.parametrize(
    ("device", "dtype", "allowed", "name"),
    [
        ("cuda", torch.float32, True, "torch.float32 in TF32"),
        ("cuda", torch.float32, False, "torch.float32"),
        ("cuda", torch.bfloat16, True, "torch.bfloat16"),
        ("cpu", torch.float32, True, "torch.float32"),
    ],
)
def test_texts_encoded_in_tf32_are_kept_apart(device, dtype, allowed, name):
    weight = SimpleNamespace(device=SimpleNamespace(type=device), dtype=dtype)
    with using_tf32(allowed):
        assert working_precision(weight) == name


def test_devices_without_it_refuse_it_in_one_line(monkeypatch, tiny_pipeline_dir):
    refuse_tf32(None, "cpu")
    refuse_tf32(False, "cpu")
    with pytest.raises(ValueError, match=r"^tf32 needs a CUDA device, and this one is cpu$"):
        load_pipeline(tiny_pipeline_dir, tf32=True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _: (8, 0))
    refuse_tf32(True, "cuda")
