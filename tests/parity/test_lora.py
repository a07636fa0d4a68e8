"""Adapters merged at load against diffusers, which loads the same file through PEFT and fuses it.

Weights: 1e-6 absolute at entries near 1: the same fp32 product of a few terms, in another order (measured 2.4e-7). Images: as in
`test_pipeline`.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import SanaPipeline as OraclePipeline
from safetensors.torch import load_file, save_file

from sana_models import load_pipeline, merge_lora
from tests.parity.test_pipeline import PROMPTS, assert_equal_images, draw_noise, reference_images

peft = pytest.importorskip("peft")

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
WIDE = [*ATTENTION, "conv_inverted", "conv_point", "proj_out", "linear_1"]


def oracle(folder: Path) -> OraclePipeline:
    pipeline = OraclePipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.text_encoder.set_attn_implementation("eager")
    return pipeline


def write_lora(pipeline_dir: Path, folder: Path, *, told: bool = True, **settings) -> Path:
    """Train nothing: draw an adapter of diffusers' own, and save it as diffusers' training scripts do."""
    from diffusers.training_utils import _collate_lora_metadata
    from peft.utils import get_peft_model_state_dict

    transformer = oracle(pipeline_dir).transformer
    transformer.add_adapter(peft.LoraConfig(**settings))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            if "lora_" in name:
                drawn = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(drawn / parameter[0].numel() ** 0.5)
    layers = get_peft_model_state_dict(transformer)
    metadata = _collate_lora_metadata({"transformer": transformer}) if told else {}
    OraclePipeline.save_lora_weights(folder, transformer_lora_layers=layers, **metadata)
    return folder


def fused(pipeline_dir: Path, lora: Path, scale: float) -> OraclePipeline:
    pipeline = oracle(pipeline_dir)
    pipeline.load_lora_weights(lora)
    pipeline.fuse_lora(lora_scale=scale)
    pipeline.unload_lora_weights()
    return pipeline


def assert_equal_weights(ours, theirs, plain) -> None:
    found, expected = ours.state_dict(), theirs.state_dict()
    assert found.keys() == expected.keys()
    assert max(float((found[key] - expected[key]).abs().max()) for key in expected) <= 1e-6
    assert max(float((found[key] - plain[key]).abs().max()) for key in expected) > 0.1


@pytest.mark.parametrize("scale", [1.0, 0.6, -0.5])
@pytest.mark.parametrize("told", [True, False], ids=["with metadata", "without"])
@pytest.mark.parametrize(
    "settings",
    [
        {"r": 4, "lora_alpha": 4, "target_modules": ATTENTION},
        {"r": 4, "lora_alpha": 10, "target_modules": WIDE},
        {
            "r": 4,
            "lora_alpha": 6,
            "target_modules": ATTENTION,
            "rank_pattern": {"attn1.to_q": 2, "transformer_blocks.1.attn2.to_k": 3},
            "alpha_pattern": {"attn1.to_q": 9, "attn2.to_v": 1},
        },
        {"r": 4, "lora_alpha": 6, "target_modules": ATTENTION, "use_rslora": True},
    ],
    ids=["attention", "everything", "patterns", "root of rank"],
)
def test_weights_equal_diffusers_fused(random_pipeline_dir, tmp_path, settings, told, scale):
    lora = write_lora(random_pipeline_dir, tmp_path, told=told, **settings)
    theirs = fused(random_pipeline_dir, lora, scale).transformer
    plain = load_pipeline(random_pipeline_dir).transformer.state_dict()
    ours = load_pipeline(random_pipeline_dir, lora=lora, lora_scale=scale).transformer
    assert_equal_weights(ours, theirs, plain)


def test_images_equal_diffusers_fused(random_pipeline_dir, tmp_path):
    lora = write_lora(random_pipeline_dir, tmp_path, r=4, lora_alpha=8, target_modules=ATTENTION)
    noise = draw_noise(len(PROMPTS), 64, 64)
    theirs = fused(random_pipeline_dir, lora, 0.7)
    expected = reference_images(theirs, PROMPTS, noise, num_inference_steps=4, guidance_scale=4.5)
    settings = {"noise": noise, "steps": 4, "guidance_scale": 4.5}
    images = load_pipeline(random_pipeline_dir, lora=lora, lora_scale=0.7)(PROMPTS, **settings)
    assert_equal_images(images, expected)
    plain = load_pipeline(random_pipeline_dir)(PROMPTS, **settings)
    assert np.abs(plain.numpy().astype(int) - images.numpy().astype(int)).mean() > 2


def test_a_folder_of_peft_equals_its_own_merge(random_pipeline_dir, tmp_path):
    model = peft.get_peft_model(
        oracle(random_pipeline_dir).transformer,
        peft.LoraConfig(r=4, lora_alpha=12, target_modules=WIDE, init_lora_weights=False),
    )
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= {"adapter_model.safetensors", "adapter_config.json"}
    ours = load_pipeline(random_pipeline_dir)
    plain = {key: value.clone() for key, value in ours.transformer.state_dict().items()}
    merge_lora(ours.transformer, tmp_path)
    theirs = model.merge_and_unload()
    found, expected = ours.transformer.state_dict(), theirs.state_dict()
    assert max(float((found[key] - expected[key]).abs().max()) for key in expected) <= 1e-6
    assert any(not torch.equal(found[key], plain[key]) for key in expected)


def test_old_names_and_alphas_are_read(random_pipeline_dir, tmp_path):
    """kohya's and diffusers' earlier names of the same numbers, alpha beside them."""
    lora = write_lora(random_pipeline_dir, tmp_path / "new", r=4, lora_alpha=10, target_modules=ATTENTION)
    tensors = load_file(lora / "pytorch_lora_weights.safetensors")
    expected = load_pipeline(random_pipeline_dir, lora=lora).transformer.state_dict()
    for a, b in (("lora_down", "lora_up"), ("lora.down", "lora.up")):
        old = {key.replace("lora_A", a).replace("lora_B", b): value for key, value in tensors.items()}
        modules = {key.partition(f".{a}")[0] for key in old if a in key}
        old |= {f"{module}.alpha": torch.tensor(10.0) for module in modules}
        save_file(old, tmp_path / "old.safetensors")
        found = load_pipeline(random_pipeline_dir, lora=tmp_path / "old.safetensors").transformer.state_dict()
        assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_weights_in_half_precision_are_rounded_once(random_pipeline_dir, tmp_path):
    lora = write_lora(random_pipeline_dir, tmp_path, r=4, lora_alpha=4, target_modules=ATTENTION)
    ours = load_pipeline(random_pipeline_dir, lora=lora, dtype=torch.bfloat16).transformer
    plain = load_pipeline(random_pipeline_dir, dtype=torch.bfloat16).transformer
    merge_lora(exact := plain.float(), lora)
    for key, value in ours.state_dict().items():
        assert value.dtype == torch.bfloat16
        assert torch.equal(value, exact.state_dict()[key].bfloat16()), key


def test_what_is_no_lora_of_this_model_is_one_line(random_pipeline_dir, tmp_path):
    lora = write_lora(random_pipeline_dir, tmp_path / "good", r=4, lora_alpha=4, target_modules=["to_q"])
    good = load_file(lora / "pytorch_lora_weights.safetensors")
    name = "transformer.transformer_blocks.1.attn1.to_q"
    a, b = f"{name}.lora_A.weight", f"{name}.lora_B.weight"
    deep = {key.replace("blocks.1", "blocks.7"): value for key, value in good.items()}
    cases = [
        (good | {a: torch.zeros(4, 96), b: torch.zeros(96, 4)}, {}, r"another size: .*to_q is \(96, 96\) there, \(64, 64\) here"),
        (deep, {}, r"another model, which has a transformer_blocks\.7\.attn1\.to_q"),
        ({key: value for key, value in good.items() if key != b}, {}, "to_q has one of the two matrices"),
        (good | {a: torch.zeros(3, 64)}, {}, "ranks 3 and 4"),
        (good | {f"{name}.lora_magnitude_vector": torch.zeros(64)}, {}, "lora_magnitude_vector belongs to no plain LoRA"),
        (good | {"text_encoder.layers.0.q.lora_A.weight": torch.zeros(4, 4)}, {}, "another model|one of the two"),
        ({}, {}, "holds no LoRA|not a safetensors file"),
        (good, {"lora_adapter_metadata": json.dumps({"transformer.use_dora": True})}, "a DoRA"),
        (good, {"lora_adapter_metadata": json.dumps({"transformer.lora_alpha": "4"})}, "not numbers"),
        (good, {"lora_adapter_metadata": "[1"}, "not a JSON object"),
        (
            {f"transformer.transformer_blocks.0.ff.conv_depth.lora_{x}.weight": torch.zeros(4, 4, 1, 1) for x in "AB"},
            {},
            "conv_depth is a Conv2d that no LoRA is merged into",
        ),
    ]  # fmt: skip
    ours = load_pipeline(random_pipeline_dir).transformer
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    for number, (tensors, metadata, message) in enumerate(cases):
        save_file(tensors, path := tmp_path / f"{number}.safetensors", metadata=metadata)
        with pytest.raises(ValueError, match=message) as error:
            merge_lora(ours, path)
        assert str(error.value).startswith(f"{path}: ")
        assert "\n" not in str(error.value)
    assert all(torch.equal(value, before[key]) for key, value in ours.state_dict().items())
