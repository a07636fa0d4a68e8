"""What the comparisons with other implementations share: a pipeline that both sides load."""

from pathlib import Path

import pytest
import torch

from sana_models.config import DCAEConfig, SanaConfig
from tests.small_parts import randomise, small_dc_ae, small_sana, small_text_encoder


def oracle_arguments(config: SanaConfig | DCAEConfig) -> dict[str, object]:
    return {key: value for key, value in config.to_dict().items() if not key.startswith("_")}


@pytest.fixture(scope="session")
def random_pipeline_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete pipeline folder with random weights that diffusers can load too; tests must not change it."""
    return _write_random(tmp_path_factory.mktemp("random") / "pipeline", small_sana(), flow_shift=3.0)


@pytest.fixture(scope="session")
def random_sprint_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of a SANA-Sprint."""
    folder = tmp_path_factory.mktemp("random") / "sprint"
    return _write_random(folder, small_sana(guidance_embeds=True), flow_shift=None)


def _write_random(folder: Path, config: SanaConfig, *, flow_shift: float | None) -> Path:
    from sana_models import DCAE, SanaTransformer, save_pretrained

    transformer, autoencoder = SanaTransformer(config), DCAE(small_dc_ae())
    randomise(transformer, seed=31)
    randomise(autoencoder, seed=32)
    with torch.no_grad():
        # Keeps most pixels inside [-1, 1], where a difference shows.
        autoencoder.decoder.conv_out.weight.mul_(0.8)
        autoencoder.decoder.conv_out.bias.mul_(0.8)
    save_pretrained(
        folder,
        transformer=transformer,
        autoencoder=autoencoder,
        text_encoder=small_text_encoder(),
        flow_shift=flow_shift,
    )
    return folder
