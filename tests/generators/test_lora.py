"""`lora:` of a variant and `generate --lora`: found, part of the identity, merged, refused where it does not fit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from sana_bench import generators
from sana_bench.assets.table import repositories_of
from sana_bench.cli.main import execute
from sana_bench.core.errors import AssetError, SuiteError
from sana_bench.core.fingerprint import FileHashes
from sana_bench.runner.resolve import resolve_suite
from sana_bench.suites.load import load_suite, load_variant
from sana_bench.suites.tiers import TierChoice
from sana_models import load_pipeline
from tests.suite_files import FEW_STEPS, write_suite, write_variant

PROMPT = "a red circle"


def write_lora(path: Path, *, width: int = 32, seed: int = 0) -> Path:
    """An adapter of the first block's query that is strong enough to be seen."""
    generator = torch.Generator().manual_seed(seed)
    name = "transformer.transformer_blocks.0.attn1.to_out.0"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {
            f"{name}.lora_A.weight": torch.randn(2, width, generator=generator),
            f"{name}.lora_B.weight": torch.randn(width, 2, generator=generator),
        },
        path,
    )
    return path


def resolved(folder: Path, pipeline: Path, lora: str):
    write_variant(folder, "mine", FEW_STEPS, lora, tier="micro", weights=pipeline)
    suite = load_suite(write_suite(folder, "{name: geneval, metrics: [geneval]}", tier="micro"), "micro")
    return resolve_suite(suite, TierChoice("micro", "asked for", "cpu"), FileHashes()).variants[0]


def test_the_content_and_the_scale_are_part_of_the_identity(tiny_pipeline_dir, tmp_path):
    write_lora(tmp_path / "variants" / "a" / "pytorch_lora_weights.safetensors")
    write_lora(tmp_path / "variants" / "b.safetensors")
    write_lora(tmp_path / "variants" / "c.safetensors", seed=1)
    entries = [
        "",
        "lora: {weights: ./a}",
        "lora: {weights: ./b.safetensors}",
        "lora: {weights: ./b.safetensors, scale: 0.5}",
        "lora: {weights: ./c.safetensors}",
    ]
    found = [resolved(tmp_path, tiny_pipeline_dir, entry) for entry in entries]
    plain, folder, file, weak, other = (one.fingerprint for one in found)
    assert folder == file  # the same bytes, wherever they lie
    assert len({plain, file, weak, other}) == 4
    assert "lora" not in found[0].identity()
    # What PEFT's configuration says of the strength counts with the numbers.
    (tmp_path / "variants" / "a" / "adapter_config.json").write_text('{"lora_alpha": 7}')
    assert resolved(tmp_path, tiny_pipeline_dir, entries[1]).fingerprint != folder


def test_a_run_generates_with_the_lora(tiny_pipeline_dir, tmp_path):
    file = write_lora(tmp_path / "variants" / "b.safetensors")
    spec = resolved(tmp_path, tiny_pipeline_dir, "lora: {weights: ./b.safetensors, scale: 2}").spec
    pipeline = generators.build(spec, "cpu").pipeline
    expected = load_pipeline(tiny_pipeline_dir, lora=file, lora_scale=2.0).transformer.state_dict()
    plain = load_pipeline(tiny_pipeline_dir).transformer.state_dict()
    found = pipeline.transformer.state_dict()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert any(not torch.equal(found[key], plain[key]) for key in expected)


def test_a_lora_of_another_size_is_one_line(tiny_pipeline_dir, tmp_path):
    write_lora(tmp_path / "variants" / "b.safetensors", width=48)
    spec = resolved(tmp_path, tiny_pipeline_dir, "lora: {weights: ./b.safetensors}").spec
    with pytest.raises(AssetError, match=r"another size: .* is \(48, 48\) there, \(32, 32\) here") as error:
        generators.build(spec, "cpu")
    assert "\n" not in str(error.value)


def test_a_lora_that_is_not_there_is_said_and_one_of_the_hub_is_fetched(tiny_pipeline_dir, tmp_path):
    with pytest.raises(AssetError, match=r"there is no folder .*gone"):
        resolved(tmp_path, tiny_pipeline_dir, "lora: {weights: ./gone}")
    path = write_variant(tmp_path, "hub", FEW_STEPS, "lora: {weights: someone/style@v1}", weights="org/model")
    names = [repository.name for repository in repositories_of([load_variant(path)], path.parent)]
    assert names == ["org/model", "someone/style@v1"]
    write_lora(tmp_path / "two" / "x.safetensors")
    write_lora(tmp_path / "two" / "y.safetensors")
    with pytest.raises(
        AssetError, match=r"one file of a LoRA is needed.*found x\.safetensors, y\.safetensors"
    ):
        resolved(tmp_path, tiny_pipeline_dir, f"lora: {{weights: {tmp_path}/two}}")


def test_other_generators_refuse_it(tmp_path):
    lines = ("generator: diffusers", "sampler: {name: pipeline, steps: 2, guidance_scale: 2.0}")
    path = write_variant(tmp_path, "mine", *lines, "lora: {weights: ./a}")
    with pytest.raises(SuiteError, match="lora belongs to generator sana"):
        generators.find(load_variant(path), path.parent)


def test_generate_takes_a_lora(tiny_pipeline_dir, tmp_path, capsys):
    def image(name: str, *more: str) -> Image.Image:
        model = ["generate", "--model", str(tiny_pipeline_dir), "--prompt", PROMPT, "--steps", "2"]
        assert execute([*model, "-o", str(tmp_path / name), *more]) == 0
        return Image.open(tmp_path / name)

    file = write_lora(tmp_path / "b.safetensors")
    plain, changed = image("plain.png"), image("lora.png", "--lora", str(file), "--lora-scale", "2")
    expected = load_pipeline(tiny_pipeline_dir, lora=file, lora_scale=2.0)([PROMPT], seeds=[0], steps=2)
    assert np.array_equal(np.asarray(changed), expected[0].numpy())
    assert not np.array_equal(np.asarray(changed), np.asarray(plain))
    assert (changed.text["lora"], changed.text["lora_scale"]) == (str(file), "2.0")
    assert "lora" not in plain.text
    write_lora(file, width=48)
    arguments = ["--model", str(tiny_pipeline_dir), "--prompt", PROMPT, "-o", str(tmp_path / "no.png")]
    assert execute(["generate", *arguments, "--lora", str(file)]) == 2
    assert "a LoRA of another size" in capsys.readouterr().err


def test_generate_takes_a_lora_for_a_variant(tiny_weights_root, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("SANA_BENCH_MICRO_WEIGHTS", str(tiny_weights_root))
    file = write_lora(tmp_path / "b.safetensors")
    arguments = ["generate", "--model", "sana-micro", "--prompt", PROMPT, "--steps", "2"]
    assert execute([*arguments, "-o", str(tmp_path / "a.png"), "--lora", str(file)]) == 0
    assert execute([*arguments, "-o", str(tmp_path / "b.png")]) == 0
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()
    assert execute([*arguments, "-o", str(tmp_path / "c.png"), "--lora", str(tmp_path / "gone")]) == 2
    assert f"--lora {tmp_path}/gone: no such file or folder" in capsys.readouterr().err
