"""Networks of different number formats in one pipeline: the same as networks of fp32 that are cast by hand."""

import pytest
import torch

from sana_models import SanaPipeline, load_pipeline
from sana_models.checkpoints import load_autoencoder, load_flow_shift, load_text_encoder, load_transformer

FP32, BF16, FP16 = torch.float32, torch.bfloat16, torch.float16
PROMPTS = ["a photo of a red circle", "a photo of two blue squares"]


def cast(module, dtype):
    """Weights alone: positions and scales are computed in fp32 whatever the weights are."""
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype)
    return module


def by_hand(folder, transformer, text_encoder, autoencoder):
    text = load_text_encoder(folder)
    cast(text.model, text_encoder)
    return SanaPipeline(
        cast(load_transformer(folder), transformer),
        cast(load_autoencoder(folder), autoencoder),
        text,
        flow_shift=load_flow_shift(folder),
        max_length=min(300, int(text.tokenizer.model_max_length)),
    )


def images(pipeline):
    noise = pipeline.draw_noise([0, 1], 64, 64)
    return pipeline(PROMPTS, noise=noise, steps=3, guidance_scale=2.0)


def formats(pipeline):
    parts = (pipeline.transformer, pipeline.text_encoder.model, pipeline.autoencoder)
    return [{parameter.dtype for parameter in part.parameters()} for part in parts]


@pytest.mark.parametrize(
    "parts",
    [(BF16, FP32, FP32), (FP32, BF16, FP32), (FP32, FP32, BF16), (FP16, BF16, FP32), (BF16, FP32, BF16)],
    ids=lambda parts: "-".join(str(part).removeprefix("torch.") for part in parts),
)
def test_each_network_computes_in_its_own_format(tiny_pipeline_dir, parts):
    transformer, text_encoder, autoencoder = parts
    mixed = load_pipeline(
        tiny_pipeline_dir, dtype=transformer, text_encoder_dtype=text_encoder, autoencoder_dtype=autoencoder
    )
    assert formats(mixed) == [{part} for part in parts]
    expected = by_hand(tiny_pipeline_dir, *parts)
    # The same operations on the same values in the same order: nothing rounds otherwise.
    assert torch.equal(images(mixed), images(expected))
    embeddings = [pipeline.text_encoder.encode(PROMPTS)[0] for pipeline in (mixed, expected)]
    assert torch.equal(*embeddings)
    assert embeddings[0].dtype == text_encoder


@pytest.mark.parametrize(("word", "beside"), [(FP32, FP32), (BF16, BF16), (FP16, FP32)])
def test_what_is_left_out_follows_the_transformer_but_for_fp16(tiny_pipeline_dir, word, beside):
    assert formats(load_pipeline(tiny_pipeline_dir, dtype=word)) == [{word}, {beside}, {beside}]
    one = load_pipeline(tiny_pipeline_dir, dtype=word, autoencoder_dtype=BF16)
    assert formats(one) == [{word}, {beside}, {BF16}]


def test_the_formats_make_a_difference(tiny_pipeline_dir):
    """Otherwise the comparisons above would hold whatever was cast."""
    noise = load_pipeline(tiny_pipeline_dir).draw_noise([0], 64, 64)
    latents = []
    for options in ({}, {"dtype": BF16}, {"text_encoder_dtype": BF16}):
        pipeline = load_pipeline(tiny_pipeline_dir, **options)
        pipeline.decode = lambda latents, **_: latents
        latents.append(pipeline(PROMPTS[:1], noise=noise, steps=3, guidance_scale=2.0))
    assert not torch.equal(latents[0], latents[1])
    assert not torch.equal(latents[0], latents[2])


def test_the_generator_of_a_variant_loads_its_formats(tiny_pipeline_dir):
    from sana_bench.core.precision import PrecisionSpec
    from sana_bench.generators.sana import load_sana
    from sana_bench.suites.load import load_variant
    from tests import ROOT

    variant = load_variant(ROOT / "suites" / "variants" / "sana-micro.yaml")
    mixed = PrecisionSpec(transformer="bf16", text_encoder="fp32")
    loaded = load_sana(tiny_pipeline_dir, variant.model_copy(update={"precision": mixed}), "cpu")
    assert formats(loaded) == [{BF16}, {FP32}, {BF16}]
    assert loaded is not load_sana(tiny_pipeline_dir, variant, "cpu")
