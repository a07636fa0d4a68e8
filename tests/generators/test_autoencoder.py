"""`model.autoencoder`: another DC-AE decodes, and is part of the identity."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sana_bench import generators
from sana_bench.assets.table import repositories_of
from sana_bench.core.errors import AssetError, SuiteError
from sana_bench.core.fingerprint import FileHashes
from sana_bench.runner.resolve import resolve_suite
from sana_bench.suites.load import load_suite, load_variant
from sana_bench.suites.tiers import TierChoice
from sana_models import DCAE, load_pipeline
from sana_models.checkpoints import save_autoencoder
from tests.suite_files import FEW_STEPS, write_suite

LITE = "mit-han-lab/dc-ae-lite-f32c32-sana-1.1-diffusers"


def write_autoencoder(pipeline: Path, folder: Path, **changes) -> Path:
    """One with other weights, and maybe other options, than the pipeline's own."""
    config = replace(load_pipeline(pipeline).autoencoder.config, **changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        save_autoencoder(DCAE(config), folder)
    return folder


def write(folder: Path, weights: Path | str, more: str, tier: str = "micro", generator: str = "sana") -> Path:
    path = folder / "variants" / "mine.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    sampler = FEW_STEPS if generator == "sana" else "sampler: {name: pipeline, steps: 2, guidance_scale: 2.0}"
    path.write_text(
        f"schema_version: 1\nname: mine\ntier: {tier}\ngenerator: {generator}\n{sampler}\n"
        f"model: {{weights: {weights}, height: 64, width: 64{more}}}\n"
    )
    return path


def resolved(folder: Path, weights: Path, more: str):
    write(folder, weights, more)
    suite = load_suite(write_suite(folder, "{name: geneval, metrics: [geneval]}", tier="micro"), "micro")
    return resolve_suite(suite, TierChoice("micro", "asked for", "cpu"), FileHashes()).variants[0]


def test_another_autoencoder_decodes_and_is_part_of_the_identity(tiny_pipeline_dir, tmp_path):
    own = write_autoencoder(
        tiny_pipeline_dir, tmp_path / "own", decoder_in_shortcut=False, decoder_conv_act_fn="silu"
    )
    plain = resolved(tmp_path, tiny_pipeline_dir, "")
    other = resolved(tmp_path, tiny_pipeline_dir, f", autoencoder: {own}")
    assert plain.fingerprint != other.fingerprint
    assert "autoencoder" not in plain.identity()
    pipeline = generators.build(other.spec, "cpu").pipeline
    assert (pipeline.autoencoder.config.decoder_in_shortcut, pipeline.autoencoder.decoder.repeats) == (
        False,
        0,
    )
    latents = torch.randn(1, 8, 4, 4, generator=torch.Generator().manual_seed(1))
    expected = load_pipeline(tiny_pipeline_dir, autoencoder=own).decode(latents)
    assert torch.equal(pipeline.decode(latents), expected)
    assert not torch.equal(load_pipeline(tiny_pipeline_dir).decode(latents), expected)


def test_what_is_no_autoencoder_or_of_another_size_is_one_line(tiny_pipeline_dir, tmp_path):
    (tmp_path / "empty").mkdir()
    for place, message in [
        ("./gone", "there is no folder"),
        (f"{tmp_path}/empty", "not the folder of an autoencoder"),
    ]:
        with pytest.raises(AssetError, match=message):
            resolved(tmp_path, tiny_pipeline_dir, f", autoencoder: {place}")
    wide = write_autoencoder(tiny_pipeline_dir, tmp_path / "wide", latent_channels=4)
    spec = resolved(tmp_path, tiny_pipeline_dir, f", autoencoder: {wide}").spec
    with pytest.raises(AssetError, match="expects 8 latent channels, the autoencoder has 4"):
        generators.build(spec, "cpu")


def test_one_of_the_hub_is_fetched_and_other_generators_refuse_it(tmp_path):
    path = write(tmp_path, "org/model", f", autoencoder: {LITE}", tier="full")
    names = [repository.name for repository in repositories_of([load_variant(path)], path.parent)]
    assert names == ["org/model", LITE]
    path = write(tmp_path, "org/model", f", autoencoder: {LITE}", tier="full", generator="diffusers")
    with pytest.raises(SuiteError, match=r"model\.autoencoder belongs to generator sana"):
        generators.find(load_variant(path), path.parent)
