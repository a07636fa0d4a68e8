"""Loading and saving: what is written comes back, and what does not fit is one clear line."""

import json
import os
import pickle
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sana_models import (
    CheckpointError,
    load_autoencoder,
    load_pipeline,
    load_text_encoder,
    load_transformer,
    save_pretrained,
)
from sana_models.config import SanaConfig

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tiny_pipeline_dir: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tiny_pipeline_dir, tmp_path / "copy"))


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(path: Path, change) -> None:
    weights = load_file(path)
    change(weights)
    write_weights(weights, path)


def write_weights(weights: dict[str, torch.Tensor], path: Path) -> None:
    """Replace the file in one go: the tensors may still be mapped from the old one."""
    save_file(weights, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def refused(load, *arguments, match: str, **options) -> None:
    with pytest.raises(CheckpointError, match=match) as error:
        load(*arguments, **options)
    assert "\n" not in str(error.value)


@torch.no_grad()
def test_round_trip_is_exact(tiny_pipeline_dir, tmp_path):
    first = load_pipeline(tiny_pipeline_dir)
    save_pretrained(
        tmp_path / "again",
        transformer=first.transformer,
        autoencoder=first.autoencoder,
        text_encoder=first.text_encoder,
        flow_shift=2.5,
    )
    second = load_pipeline(tmp_path / "again")
    assert second.flow_shift == 2.5
    for a, b in (
        (first.transformer, second.transformer),
        (first.autoencoder, second.autoencoder),
        (first.text_encoder.model, second.text_encoder.model),
    ):
        assert a.state_dict().keys() == b.state_dict().keys()
        assert all(torch.equal(value, b.state_dict()[key]) for key, value in a.state_dict().items())
    first_text, second_text = (
        p.text_encoder.encode(["a red circle"], max_length=6)[0] for p in (first, second)
    )
    assert torch.equal(first_text, second_text)


@torch.no_grad()
def test_text_encoder_equals_transformers_own_loading(tiny_pipeline_dir):
    """The meta-device road recomputes Gemma-2's buffers; the ordinary road is the oracle. Exact: the same
    operations.
    """
    from transformers import Gemma2Model

    ours = load_text_encoder(tiny_pipeline_dir)
    theirs = Gemma2Model.from_pretrained(
        tiny_pipeline_dir / "text_encoder", attn_implementation="eager"
    ).eval()
    ids = torch.tensor([[2, 5, 7, 9, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 0]])
    expected = theirs(input_ids=ids, attention_mask=mask).last_hidden_state
    assert torch.equal(ours.model(input_ids=ids, attention_mask=mask).last_hidden_state, expected)


def test_causal_language_model_exports_load(folder):
    path = folder / "text_encoder" / "model.safetensors"
    before = load_text_encoder(folder).model.state_dict()
    weights = {f"model.{key}": value for key, value in load_file(path).items()}
    write_weights(weights | {"lm_head.weight": torch.zeros(3, 2)}, path)
    after = load_text_encoder(folder).model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_loaded_models_are_frozen_and_in_evaluation_mode(tiny_pipeline_dir):
    pipeline = load_pipeline(tiny_pipeline_dir)
    for model in (pipeline.transformer, pipeline.autoencoder, pipeline.text_encoder.model):
        assert not model.training
        assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_fragile_parts_wide(tiny_pipeline_dir, dtype):
    """Text encoder and autoencoder overflow in fp16, so they stay in fp32 there."""
    pipeline = load_pipeline(tiny_pipeline_dir, dtype=dtype)
    wide = torch.float32 if dtype == torch.float16 else dtype
    assert pipeline.transformer.proj_out.weight.dtype == dtype
    assert pipeline.autoencoder.decoder.conv_in.weight.dtype == wide
    assert next(pipeline.text_encoder.model.parameters()).dtype == wide


def test_loading_does_not_initialise_parameters(tiny_pipeline_dir, monkeypatch):
    """Starting values drawn and thrown away would double the time and memory of large checkpoints."""
    expected = load_transformer(tiny_pipeline_dir / "transformer").state_dict()
    devices: set[str] = set()
    for kind in (torch.nn.Linear, torch.nn.Conv2d):
        monkeypatch.setattr(kind, "reset_parameters", lambda module: devices.add(module.weight.device.type))
    state = torch.random.get_rng_state()
    loaded = load_transformer(tiny_pipeline_dir / "transformer").state_dict()
    assert devices == {"meta"}
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, loaded[key]) for key, value in expected.items())


def test_sharded_weights_load(folder):
    part = folder / "transformer"
    expected = load_transformer(part).state_dict()
    split_in_two(part)
    assert not (part / WEIGHTS).exists()
    loaded = load_transformer(part).state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in expected.items())


def split_in_two(part: Path) -> dict[str, str]:
    weights = load_file(part / WEIGHTS)
    keys = sorted(weights)
    homes = {}
    for number, chunk in enumerate((keys[::2], keys[1::2])):
        file = f"shard-{number}.safetensors"
        save_file({key: weights[key] for key in chunk}, part / file)
        homes |= dict.fromkeys(chunk, file)
    (part / WEIGHTS).unlink()
    (part / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": homes}))
    return homes


def test_variant_files_are_chosen_by_name(folder):
    part = folder / "transformer"
    (part / WEIGHTS).rename(part / "diffusion_pytorch_model.fp16.safetensors")
    refused(
        load_transformer, part, match=r"no such file \(found diffusion_pytorch_model\.fp16\.safetensors\)"
    )
    load_transformer(part, variant="fp16")


def test_parts_without_a_variant_are_read_from_their_plain_files(folder):
    """As diffusers does for mixed folders; a variant that no part has is an error."""
    part = folder / "transformer"
    changed = {key: value + 1 for key, value in load_file(part / WEIGHTS).items()}
    save_file(changed, part / "diffusion_pytorch_model.fp16.safetensors")
    plain, variant = load_pipeline(folder), load_pipeline(folder, variant="fp16")
    assert torch.equal(variant.transformer.proj_out.bias, plain.transformer.proj_out.bias + 1)
    assert torch.equal(variant.autoencoder.decoder.conv_in.bias, plain.autoencoder.decoder.conv_in.bias)
    refused(
        load_pipeline, folder, match=r"no weights of variant 'bf16' \(found .*safetensors", variant="bf16"
    )


def test_a_variant_in_shards_is_found(folder):
    part = folder / "transformer"
    homes = split_in_two(part)
    for file in set(homes.values()):
        (part / file).rename(part / file.replace(".safetensors", ".fp16.safetensors"))
    moved = {key: home.replace(".safetensors", ".fp16.safetensors") for key, home in homes.items()}
    (part / f"{WEIGHTS}.index.json").unlink()
    (part / f"{WEIGHTS}.index.fp16.json").write_text(json.dumps({"weight_map": moved}))
    assert load_pipeline(folder, variant="fp16").transformer.config.num_layers == 1


@pytest.mark.parametrize("keep", [0, 4, 200, -100])
def test_truncated_weights(folder, keep):
    path = folder / "transformer" / WEIGHTS
    path.write_bytes(path.read_bytes()[:keep])
    refused(
        load_transformer, path.parent, match="diffusion_pytorch_model.safetensors: truncated or not a safet"
    )


def test_foreign_bytes(folder):
    path = folder / "vae" / WEIGHTS
    path.write_bytes(b"\x89PNG\r\n\x1a\n" * 400)
    refused(load_autoencoder, path.parent, match="truncated or not a safetensors file")


def test_a_header_that_promises_too_much(folder):
    path = folder / "vae" / WEIGHTS
    header = json.dumps({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 8)
    refused(load_autoencoder, path.parent, match="truncated or not a safetensors file")


def test_missing_keys_are_named_and_counted(folder):
    path = folder / "transformer" / WEIGHTS

    def drop(weights):
        for key in ("proj_out.bias", "proj_out.weight"):
            del weights[key]

    edit_weights(path, drop)
    refused(load_transformer, path.parent, match=r"2 missing \(proj_out\.bias, proj_out\.weight\)")


def test_many_missing_keys_are_cut_short(folder):
    part = folder / "transformer"
    edit_json(part / "config.json", num_layers=3)
    # 19 names in each block without query-key norm.
    refused(load_transformer, part, match=r"38 missing \(transformer_blocks\.1\.\S+, \S+, \S+, \.\.\.\)")


def test_unexpected_keys_are_named(folder):
    path = folder / "vae" / WEIGHTS
    edit_weights(path, lambda weights: weights.update(other=torch.zeros(2)))
    refused(load_autoencoder, path.parent, match=r"1 unexpected \(other\)")


def test_misshapen_keys_are_named_with_both_shapes(folder):
    path = folder / "transformer" / WEIGHTS
    edit_weights(path, lambda weights: weights.update({"proj_out.bias": torch.zeros(5)}))
    refused(
        load_transformer,
        path.parent,
        match=r"1 of another shape \(proj_out\.bias: \(5,\) instead of \(8,\)\)",
    )


def test_integer_weights_are_refused(folder):
    path = folder / "transformer" / WEIGHTS
    edit_weights(path, lambda weights: weights.update({"proj_out.bias": torch.zeros(8, dtype=torch.int8)}))
    refused(load_transformer, path.parent, match=r"proj_out\.bias holds torch\.int8")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("{", "not valid JSON"),
        ("[1]", "expected an object, found list"),
        ("{}", "missing field 'num_layers'"),
        ('{"num_layers": "many", "num_attention_heads": 1, "num_cross_attention_heads": 1,'
         ' "cross_attention_head_dim": 32}', "config.json: "),
    ],
)  # fmt: skip
def test_bad_configurations(folder, content, match):
    (folder / "transformer" / "config.json").write_text(content)
    refused(load_transformer, folder / "transformer", match=match)


@pytest.mark.parametrize(
    ("homes", "match"),
    [
        (None, "no weight_map"),
        ({"proj_out.bias": "../elsewhere.safetensors"}, "not a file name in the same folder"),
        ({"proj_out.bias": "gone.safetensors"}, "gone.safetensors: no such file"),
        ({"no.such.key": "shard-0.safetensors"}, "1 keys of the index missing"),
    ],
)
def test_bad_shard_indexes(folder, homes, match):
    part = folder / "transformer"
    whole = split_in_two(part)
    changed = None if homes is None else whole | homes
    (part / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": changed}))
    refused(load_transformer, part, match=match)


@pytest.mark.parametrize(
    ("part", "match"),
    [
        ("model_index.json", "model_index.json: no such file"),
        ("transformer/config.json", "no such file"),
        (f"transformer/{WEIGHTS}", "no such file"),
        ("vae/config.json", "no such file"),
        ("text_encoder/model.safetensors", "no such file"),
        ("tokenizer/tokenizer_config.json", "no tokenizer_config.json"),
        ("scheduler/scheduler_config.json", "no such file"),
    ],
)
def test_missing_files(folder, part, match):
    (folder / part).unlink()
    refused(load_pipeline, folder, match=match)


def test_a_folder_that_is_not_there(tmp_path):
    refused(load_pipeline, tmp_path / "nowhere", match="no such file")


def test_pipelines_of_other_models(folder):
    edit_json(folder / "model_index.json", _class_name="StableDiffusionPipeline")
    refused(load_pipeline, folder, match="pipeline is 'StableDiffusionPipeline', expected 'SanaPipeline'")


def test_text_encoders_of_other_models(folder):
    edit_json(folder / "text_encoder" / "config.json", model_type="t5")
    refused(load_pipeline, folder, match="model_type is 't5', expected 'gemma2'")


def test_text_encoder_configuration_of_wrong_types(folder):
    edit_json(folder / "text_encoder" / "config.json", num_hidden_layers="many")
    refused(load_text_encoder, folder, match=r"text_encoder/config\.json: ")


def test_a_damaged_tokenizer(folder):
    (folder / "tokenizer" / "tokenizer.json").write_text("{")
    refused(load_text_encoder, folder, match="unreadable tokenizer")


def test_a_tokenizer_of_another_model(folder):
    from sana_models.text import make_word_tokenizer

    make_word_tokenizer([f"word{i}" for i in range(500)], model_max_length=16).save_pretrained(
        folder / "tokenizer"
    )
    refused(load_text_encoder, folder, match="not the tokenizer of this text encoder, 504 words")


@pytest.mark.parametrize("shift", [None, 0, -1.0, "three", True])
def test_schedulers_without_a_shift(folder, shift):
    edit_json(folder / "scheduler" / "scheduler_config.json", flow_shift=shift)
    refused(load_pipeline, folder, match="no positive flow_shift")


def test_parts_of_different_pipelines(folder):
    """An autoencoder with other latents is found when the parts meet."""
    from sana_models import DCAE, DCAEConfig
    from sana_models.checkpoints import read_config, save_autoencoder

    data = read_config(folder / "vae") | {"latent_channels": 4}
    save_autoencoder(DCAE(DCAEConfig.from_dict(data)), folder / "vae")
    refused(load_pipeline, folder, match="expects 8 latent channels, the autoencoder has 4")


class TestOfficialFiles:
    CONFIG = SanaConfig(
        num_layers=1, num_attention_heads=1, num_cross_attention_heads=1, cross_attention_head_dim=32
    )

    def refused(self, path: Path, match: str) -> None:
        refused(load_transformer, path, match=match, config=self.CONFIG)

    def test_missing(self, tmp_path):
        self.refused(tmp_path / "sana.pth", "no such file")

    def test_not_an_archive(self, tmp_path):
        path = tmp_path / "sana.pth"
        path.write_bytes(b"not weights" * 50)
        self.refused(path, "truncated or not a PyTorch archive")

    def test_truncated(self, tmp_path):
        path = tmp_path / "sana.pth"
        torch.save({"a": torch.zeros(1000)}, path)
        path.write_bytes(path.read_bytes()[:-700])
        self.refused(path, "truncated or not a PyTorch archive")

    def test_code_is_not_run(self, tmp_path):
        class Payload:
            def __reduce__(self):
                return (os.mkdir, (str(tmp_path / "ran"),))

        path = tmp_path / "sana.pth"
        torch.save({"state_dict": Payload()}, path)
        self.refused(path, "truncated, foreign or unsafe archive")
        assert not (tmp_path / "ran").exists()

    def test_a_bare_pickle_is_not_run(self, tmp_path):
        path = tmp_path / "sana.pth"
        path.write_bytes(pickle.dumps({"a": 1}))
        self.refused(path, "not a PyTorch archive")

    def test_no_tensors(self, tmp_path):
        path = tmp_path / "sana.pth"
        torch.save({"state_dict": {"a": 1}}, path)
        self.refused(path, "expected a dictionary of tensors")
