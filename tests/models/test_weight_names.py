"""Which weight files are read, by the names that the hub's repositories have."""

import pytest

from sana_models.weight_names import files_to_read, refuse_variant, weight_file

#: As Efficient-Large-Model/Sana_1600M_1024px_diffusers lists them: shards, a whole file left from before, and fp16 ones.
SANA = [
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model-00001-of-00002.safetensors",
    "text_encoder/model-00002-of-00002.safetensors",
    "text_encoder/model.fp16-00001-of-00002.safetensors",
    "text_encoder/model.fp16-00002-of-00002.safetensors",
    "text_encoder/model.safetensors.index.fp16.json",
    "text_encoder/model.safetensors.index.json",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer.model",
    "tokenizer/tokenizer_config.json",
    "transformer/config.json",
    "transformer/diffusion_pytorch_model-00001-of-00002.safetensors",
    "transformer/diffusion_pytorch_model-00002-of-00002.safetensors",
    "transformer/diffusion_pytorch_model.fp16.safetensors",
    "transformer/diffusion_pytorch_model.safetensors",
    "transformer/diffusion_pytorch_model.safetensors.index.json",
    "vae/config.json",
    "vae/diffusion_pytorch_model.fp16.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
]
PLAIN = [
    name for name in SANA if "fp16" not in name and name != "transformer/diffusion_pytorch_model.safetensors"
]
FP16 = [
    name
    for name in SANA
    if "fp16" in name or not name.endswith(("safetensors", "index.json")) or name == SANA[0]
]


def test_one_precision_is_read_and_of_shards_only_the_shards():
    assert files_to_read(SANA) == PLAIN
    assert files_to_read(SANA, "fp16") == FP16
    assert len(FP16) == len(set(FP16)) == 14


def test_a_part_without_the_variant_is_read_in_its_plain_files():
    """As diffusers reads mixed folders."""
    names = [name for name in SANA if not (name.startswith("vae/") and "fp16" in name)]
    found = files_to_read(names, "fp16")
    assert [name for name in found if name.startswith("vae/")] == [
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    refuse_variant(names, "fp16")


def test_single_files_of_everything_beside_a_pipeline_are_read_by_nobody():
    """As stabilityai/stable-diffusion-3.5-large has them, at the top and in a folder that is no part."""
    names = ["sd3.5_large.safetensors", "text_encoders/t5xxl_fp16.safetensors", "text_encoders/README.md"]
    assert files_to_read([*SANA, *names]) == [*PLAIN, "text_encoders/README.md"]
    # A judge, which is no pipeline, has its weights at the top.
    judge = ["config.json", "model-00001-of-00001.safetensors", "model.safetensors.index.json"]
    assert files_to_read([*judge, "consolidated.safetensors"]) == judge
    odd = ["config.json", "weights.safetensors"]
    assert files_to_read(odd) == odd


@pytest.mark.parametrize(
    ("name", "variant", "is_shard", "is_index"),
    [
        ("model.safetensors", None, False, False),
        ("model-00001-of-00009.safetensors", None, True, False),
        ("model.fp16.safetensors", "fp16", False, False),
        ("model.fp16-00001-of-00009.safetensors", "fp16", True, False),
        ("model-00001-of-00009.fp16.safetensors", "fp16", True, False),
        ("diffusion_pytorch_model.my-own_1.safetensors", "my-own_1", False, False),
        ("model.safetensors.index.json", None, False, True),
        ("model.safetensors.index.fp16.json", "fp16", False, True),
    ],
)
def test_names(name, variant, is_shard, is_index):
    found = weight_file(name)
    assert (found.variant, found.is_shard, found.is_index) == (variant, is_shard, is_index)


@pytest.mark.parametrize(
    "name", ["config.json", "models.safetensors", "model.bin", "t5.safetensors", "model.safetensors.tmp"]
)
def test_names_that_no_loader_looks_for(name):
    assert weight_file(name) is None


def test_shards_without_their_index_are_read_where_nothing_else_is():
    shards = ["t/config.json", "t/model-00001-of-00002.safetensors", "t/model-00002-of-00002.safetensors"]
    assert files_to_read(shards) == shards
    whole = [*shards, "t/model.safetensors"]
    assert files_to_read(whole) == ["t/config.json", "t/model.safetensors"]


def test_a_variant_that_is_not_there_is_refused_by_what_is():
    with pytest.raises(
        ValueError, match=r"^no weights of variant 'bf16' \(found diffusion_pytorch_model-00001-of-00002"
    ):
        refuse_variant(SANA, "bf16")
    alone = [name for name in SANA if name in FP16 or name.startswith("vae/")]
    with pytest.raises(ValueError, match=r"^text_encoder has weights of variant fp16 alone: say so"):
        refuse_variant(alone, None)
    refuse_variant(SANA, None)
    refuse_variant(SANA, "fp16")
