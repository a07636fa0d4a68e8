"""DreamSim and the encoders of style: published layouts, other files refused, and independent implementations beside them."""

import argparse
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from sana_bench.core.errors import AssetError
from sana_bench.core.preprocess import clip_pixels
from sana_bench.core.samples import Prompt, Sample
from sana_bench.metrics.oneig.dreamsim import DreamSim, load_dreamsim
from sana_bench.metrics.oneig.style_encoders import (
    CSDEncoder,
    OneIGEncoder,
    read_references,
    references_of,
)
from sana_bench.metrics.selfcheck.readings import write_dreamsim
from sana_bench.metrics.selfcheck.recipes import dreamsim as recipe
from tests.metrics.oneig.tiny_encoders import SIDE, write_csd, write_style_encoder

# Embeddings against the package's are a check of the self-check; here is what that does not reach.


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_dreamsim(tmp_path_factory.mktemp("dreamsim"))


def test_the_adapter_is_added_to_the_weights(files):
    network = load_dreamsim(files)
    plain = recipe.tower("clip")["blocks.3.attn.qkv.weight"]
    name = "base_model.model.extractor_list.1.model.blocks.3.attn.qkv"
    matrices = recipe.adapter()
    added = recipe.ALPHA / recipe.RANK * matrices[f"{name}.lora_B.weight"] @ matrices[f"{name}.lora_A.weight"]
    # Float32 products of four terms each.
    found = network.clip.get_parameter("blocks.3.attn.qkv.weight").numpy()
    assert found == pytest.approx(plain + added, abs=1e-6)
    assert np.abs(added).max() > 0.01


def test_embeddings_do_not_depend_on_the_batch(files, tmp_path):
    samples = []
    for place, image in enumerate(recipe.images()):
        path = tmp_path / f"{place}.png"
        Image.fromarray(image).save(path)
        samples.append(Sample("v", "oneig", Prompt(str(place), "", "all"), 0, path))
    network = DreamSim(files)
    together = network.of_samples(samples)
    # Batches are padded to one size: to the last bit.
    assert np.array_equal(together, np.concatenate([network.of_samples([one]) for one in samples]))
    # Float32 norms.
    assert np.linalg.norm(together, axis=1) == pytest.approx(1, abs=1e-5)
    assert together.mean(axis=1) == pytest.approx(0, abs=1e-6)
    again = DreamSim(files)
    assert (again.key, again.identity()) == (network.key, network.identity())


def changed_adapter(folder, change):
    path = folder / "ensemble_lora/adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda f: (f / "dino.pth").write_bytes(b"junk"),
            r"dino\.pth: not a vision transformer of DreamSim",
        ),
        (
            lambda f: torch.save({"state_dict": {}}, f / "clip_vitb16_pretrain.pth.tar"),
            r"clip_vitb16_pretrain\.pth\.tar: not a vision transformer of DreamSim \(it has no projection\)",
        ),
        (
            lambda f: (f / "open_clip_vitb16_pretrain.pth.tar").replace(f / "dino.pth"),
            r"dino\.pth: not a vision transformer of DreamSim \(it has a projection\)",
        ),
        (
            lambda f: (f / "ensemble_lora/adapter_config.json").write_text(json.dumps({"r": 4})),
            r"adapter_model\.safetensors: not the adapter",
        ),
        (
            lambda f: changed_adapter(f, lambda tensors: tensors.update(other=torch.zeros(1))),
            "it holds other tensors than pairs of LoRA matrices",
        ),
        (
            lambda f: changed_adapter(f, lambda tensors: tensors.pop(sorted(tensors)[0])),
            "it holds other tensors than pairs of LoRA matrices",
        ),
    ],
)
def test_other_files_are_refused(tmp_path, damage, message):
    files = write_dreamsim(tmp_path)
    damage(tmp_path)
    with pytest.raises(AssetError, match=message) as caught:
        load_dreamsim(files)
    assert "\n" not in str(caught.value)


IMAGES = [np.random.default_rng(seed).integers(0, 256, (70, 90, 3), np.uint8) for seed in range(3)]


def test_csd_is_openais_network_with_another_projection(tmp_path):
    """Beside transformers' CLIP, whose weights are the same ones under other names; float32 sums in another order."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    width, layers, patch, out = 64, 2, 32, 24
    path = write_csd(tmp_path / "csd.bin", width=width, layers=layers, patch=patch, out=out)
    state = torch.load(path, weights_only=False)["model_state_dict"]
    config = CLIPVisionConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=1, image_size=SIDE,
        patch_size=patch, projection_dim=out, hidden_act="quick_gelu",
    )  # fmt: skip
    other = CLIPVisionModelWithProjection(config).eval()
    other.load_state_dict(as_transformers(state, layers))
    pixels = torch.from_numpy(np.stack([clip_pixels(image, SIDE) for image in IMAGES]))
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(other(pixel_values=pixels).image_embeds, dim=-1).numpy()
    found = CSDEncoder(path).encode(IMAGES)
    assert found == pytest.approx(expected, abs=1e-5)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-6)


def as_transformers(state, layers):
    """OpenAI's names to those of transformers, the attention's three matrices apart."""
    state = {name.removeprefix("module.backbone."): tensor for name, tensor in state.items()}
    found = {
        "vision_model.embeddings.class_embedding": state["class_embedding"],
        "vision_model.embeddings.position_embedding.weight": state["positional_embedding"],
        "vision_model.embeddings.patch_embedding.weight": state["conv1.weight"],
        "visual_projection.weight": state["module.last_layer_style"].T,
    }
    for part in ("weight", "bias"):
        found[f"vision_model.pre_layrnorm.{part}"] = state[f"ln_pre.{part}"]
        found[f"vision_model.post_layernorm.{part}"] = state[f"ln_post.{part}"]
        for layer in range(layers):
            old, new = f"transformer.resblocks.{layer}", f"vision_model.encoder.layers.{layer}"
            rows = state[f"{old}.attn.in_proj_{part}"].chunk(3)
            found |= {
                f"{new}.self_attn.{name}_proj.{part}": row for name, row in zip("qkv", rows, strict=True)
            }
            for theirs, ours in (
                ("self_attn.out_proj", "attn.out_proj"),
                ("layer_norm1", "ln_1"),
                ("layer_norm2", "ln_2"),
                ("mlp.fc1", "mlp.c_fc"),
                ("mlp.fc2", "mlp.c_proj"),
            ):
                found[f"{new}.{theirs}.{part}"] = state[f"{old}.{ours}.{part}"]
    return found


def test_a_checkpoint_of_training_is_read_without_running_it(tmp_path):
    """Options and numbers of numpy are in the published file; anything else that a pickle can call is not called."""
    path = write_csd(tmp_path / "csd.bin")
    checkpoint = torch.load(path, weights_only=False)
    assert isinstance(checkpoint["args"], argparse.Namespace)
    assert CSDEncoder(path).encode(IMAGES).shape == (3, 16)

    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    torch.save(checkpoint | {"evil": Evil()}, path)
    with pytest.raises(AssetError, match="not a checkpoint of CSD"):
        CSDEncoder(path).encode(IMAGES)
    assert not (tmp_path / "ran").exists()


def test_another_checkpoint_is_refused(tmp_path):
    path = write_csd(tmp_path / "csd.bin")
    checkpoint = torch.load(path, weights_only=False)
    del checkpoint["model_state_dict"]["module.backbone.ln_post.bias"]
    torch.save(checkpoint, path)
    with pytest.raises(AssetError, match="not a checkpoint of CSD") as caught:
        CSDEncoder(path).encode(IMAGES)
    assert "\n" not in str(caught.value)


def test_oneigs_encoder_reads_a_folder_of_transformers(tmp_path):
    folder = write_style_encoder(tmp_path / "encoder")
    full, half = (OneIGEncoder(folder, precision=precision) for precision in ("fp32", "bf16"))
    vectors = full.encode(IMAGES)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)
    # bf16 has eight bits of mantissa; a vector of the same image is still the nearest one.
    cosines = half.encode(IMAGES) @ vectors.T
    assert list(cosines.argmax(axis=1)) == [0, 1, 2]
    assert full.identity() != half.identity()
    (folder / "model.safetensors").write_bytes(b"junk")
    with pytest.raises(AssetError, match="not a CLIP vision model"):
        OneIGEncoder(folder).encode(IMAGES)
    with pytest.raises(AssetError, match=r"config\.json is missing"):
        OneIGEncoder(tmp_path)


def test_published_references_are_tensors_by_style(tmp_path):
    path = tmp_path / "embed.pt"
    torch.save({"clay": torch.eye(3, dtype=torch.bfloat16), "comic": torch.ones(1, 3)}, path)
    found = read_references(path)
    assert {style: rows.shape for style, rows in found.items()} == {"clay": (3, 3), "comic": (1, 3)}
    for content in ({"clay": [1.0]}, [torch.eye(3)]):
        torch.save(content, path)
        with pytest.raises(AssetError, match="not embeddings by style"):
            read_references(path)


def test_own_references_are_folders_of_images(tmp_path):
    encoder = CSDEncoder(write_csd(tmp_path / "csd.bin"))
    folder = tmp_path / "references"
    for style, count in (("clay", 2), ("comic", 1)):
        (folder / style).mkdir(parents=True)
        for place in range(count):
            Image.fromarray(IMAGES[place]).save(folder / style / f"{place}.png")
    found = references_of(folder, encoder)
    assert {style: rows.shape for style, rows in found.items()} == {"clay": (2, 16), "comic": (1, 16)}
    assert np.array_equal(found["clay"], encoder.encode(IMAGES[:2]))
    (folder / "empty").mkdir()
    with pytest.raises(AssetError, match="empty: no reference images"):
        references_of(folder, encoder)
    with pytest.raises(AssetError, match="no folders of reference images"):
        references_of(tmp_path / "nowhere", encoder)
