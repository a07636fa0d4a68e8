"""Published sizes: exact parameter and key counts, without allocating a weight."""

import subprocess
import sys

import pytest
import torch

from sana_models.config import DC_AE_F32C32, SANA_CONFIGS, DCAEConfig, SanaConfig
from sana_models.dc_ae import DCAE
from sana_models.transformer import SanaTransformer

# Counted on the public diffusers classes of these sizes.
COUNTS = {
    "sana-0.6b-512": (591_747_872, 548),
    "sana-0.6b-1024": (591_747_872, 548),
    "sana-1.6b-512": (1_604_462_752, 396),
    "sana-1.6b-1024": (1_604_462_752, 396),
    "sana-1.6b-1024-bf16": (1_604_462_752, 396),
    "sana-1.6b-2k": (1_604_462_752, 396),
    "sana-1.6b-4k": (1_604_462_752, 396),
    "sana1.5-1.6b-1024": (1_604_641_952, 476),
    "sana1.5-2.4b-1024": (2_383_937_952, 706),
    "sana1.5-3.2b-1024": (3_163_233_952, 936),
    "sana1.5-4.8b-1024": (4_721_825_952, 1396),
    "sana-sprint-0.6b-1024": (593_501_216, 664),
    "sana-sprint-1.6b-1024": (1_610_237_472, 480),
}


def count(model: torch.nn.Module) -> tuple[int, int]:
    return sum(parameter.numel() for parameter in model.parameters()), len(model.state_dict())


def test_every_named_size_is_counted():
    assert COUNTS.keys() == SANA_CONFIGS.keys()


@pytest.mark.parametrize("name", COUNTS)
def test_transformer_sizes(name):
    with torch.device("meta"):
        assert count(SanaTransformer(SANA_CONFIGS[name])) == COUNTS[name]


def test_autoencoder_size():
    with torch.device("meta"):
        model = DCAE(DC_AE_F32C32)
    assert count(model) == (312_250_275, 375)
    assert count(model.encoder)[0] == 153_027_104
    assert count(model.decoder)[0] == 159_223_171
    assert DC_AE_F32C32.spatial_compression == 32


@pytest.mark.parametrize("name", COUNTS)
def test_configurations_survive_their_file_form(name):
    config = SANA_CONFIGS[name]
    assert SanaConfig.from_dict(config.to_dict()) == config


def test_autoencoder_configuration_survives_its_file_form():
    assert DCAEConfig.from_dict(DC_AE_F32C32.to_dict()) == DC_AE_F32C32


def test_autoencoder_norms_may_be_listed_by_stage():
    data = DC_AE_F32C32.to_dict() | {"decoder_norm_types": ["rms_norm"] * 6, "decoder_act_fns": ["silu"] * 6}
    assert DCAEConfig.from_dict(data) == DC_AE_F32C32
    with pytest.raises(ValueError, match="decoder_norm_types is "):
        DCAEConfig.from_dict(data | {"decoder_norm_types": ["rms_norm"] * 5 + ["layer_norm"]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_layrs": 3}, "unknown field 'num_layrs'"),
        ({"qk_norm": "layer_norm"}, "qk_norm is 'layer_norm'"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"num_cross_attention_heads": 3}, "cross-attention width"),
        ({"num_layers": 0}, "at least 1"),
        ({"guidance_embeds": 1}, "guidance_embeds is 1; it must be true or false"),
    ],
)
def test_unfit_configurations_are_refused(change, message):
    data = SANA_CONFIGS["sana-0.6b-512"].to_dict() | change
    with pytest.raises(ValueError, match=message):
        SanaConfig.from_dict(data)


def test_importing_the_package_does_not_import_torch():
    code = "import sys, sana_models; assert 'torch' not in sys.modules; sana_models.SanaConfig"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_resolves():
    import sana_models

    for name in sana_models.__all__:
        assert getattr(sana_models, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        sana_models.no_such_name  # noqa: B018
