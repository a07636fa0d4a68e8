"""The pipeline's own promises: noise decides, batches do not, prompts are encoded once, bad input is refused."""

import logging

import numpy as np
import pytest
import torch

from sana_models import load_pipeline
from sana_models.guidance import Guidance, TextCondition, guided_velocity
from sana_models.text import TextEncoder
from sana_models.tiling import Tiling
from tests.float64 import assert_as_exact, in_float64


@pytest.fixture(scope="module")
def pipeline(tiny_pipeline_dir):
    """Random weights, the decoder's enlarged so that prompts and noise show in the pixels."""
    loaded = load_pipeline(tiny_pipeline_dir)
    with torch.no_grad():
        for parameter in loaded.autoencoder.decoder.parameters():
            parameter.mul_(1.5)
    return loaded


def draw(count: int) -> torch.Tensor:
    return torch.randn(count, 8, 8, 8, generator=torch.Generator().manual_seed(5))


def test_shapes_and_sizes(pipeline):
    assert pipeline.latent_shape(64, 96) == (8, 8, 12)
    images = pipeline(["a red circle"], noise=draw(1)[..., :4, :6], steps=2)
    assert images.shape == (1, 32, 48, 3)
    assert images.dtype == torch.uint8
    assert images.device.type == "cpu"


def test_pil_images_on_demand(pipeline):
    prompts, noise = ["a red circle", "a blue square"], draw(2)[..., :4, :6]
    tensors = pipeline(prompts, noise=noise, steps=2)
    images = pipeline(prompts, noise=noise, steps=2, output="pil")
    assert [image.size for image in images] == [(48, 32)] * 2
    assert all(np.array_equal(np.asarray(image), tensor.numpy()) for image, tensor in zip(images, tensors))
    with pytest.raises(ValueError, match="output is 'png'; allowed: tensor, pil"):
        pipeline(prompts, noise=noise, steps=2, output="png")


@pytest.mark.parametrize("size", [(0, 64), (60, 64), (64, 4), (-64, 64)])
def test_sizes_that_do_not_fit_are_refused(pipeline, size):
    with pytest.raises(ValueError, match="multiple of 8 pixels"):
        pipeline.latent_shape(*size)


def test_a_batch_equals_its_parts(pipeline):
    prompts = ["a red circle", "two blue squares", "a red circle"]
    noise = draw(3)
    together = pipeline(prompts, noise=noise, steps=3)
    for i, prompt in enumerate(prompts):
        alone = pipeline([prompt], noise=noise[i : i + 1], steps=3)
        # Another batch size sums in another order: one level where a value sits on the edge of rounding.
        assert (together[i].int() - alone[0].int()).abs().max() <= 1


def test_noise_steps_guidance_and_shift_matter(pipeline):
    prompts, noise = ["a red circle"], draw(2)
    base = pipeline(prompts, noise=noise[:1], steps=3)
    assert torch.equal(base, pipeline(prompts, noise=noise[:1], steps=3))
    others = [
        pipeline(prompts, noise=noise[1:], steps=3),
        pipeline(prompts, noise=noise[:1], steps=5),
        pipeline(prompts, noise=noise[:1], steps=3, shift=1.0),
        pipeline(prompts, noise=noise[:1], steps=3, sampler="flow_euler"),
        pipeline(prompts, noise=noise[:1], steps=3, guidance_scale=40.0),
    ]
    assert all(not torch.equal(base, other) for other in others)


def test_each_distinct_prompt_is_encoded_once(pipeline, monkeypatch):
    encoded: list[str] = []
    encode = pipeline.text_encoder.encode

    def record(prompts, **options):
        encoded.extend(prompts)
        return encode(prompts, **options)

    monkeypatch.setattr(pipeline.text_encoder, "encode", record)
    # Other tests' calls told it the empty prompt.
    monkeypatch.setattr(pipeline, "_negative", None)
    pipeline(["a red circle", "two blue squares", "a red circle"], noise=draw(3), steps=1)
    assert sorted(encoded) == ["", "a red circle", "two blue squares"]
    encoded.clear()
    pipeline(["a red circle"], noise=draw(1), steps=1, guidance_scale=1.0)
    assert encoded == ["a red circle"]


def test_network_calls(pipeline, monkeypatch):
    """N steps are N calls; guidance doubles the batch, and turning it off does not."""
    sizes: list[int] = []
    hook = pipeline.transformer.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    try:
        pipeline(["a red circle"] * 2, noise=draw(2), steps=3)
        pipeline(["a red circle"] * 2, noise=draw(2), steps=2, guidance_scale=1.0)
    finally:
        hook.remove()
    assert sizes == [4, 4, 4, 2, 2]


def test_progress_is_reported(pipeline):
    seen: list[tuple[int, int]] = []
    pipeline(["a"], noise=draw(1), steps=2, on_step=lambda done, steps: seen.append((done, steps)))
    assert seen == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        (["a"], {"sampler": "ddim"}, "sampler is 'ddim'; allowed: flow_dpm_solver, flow_euler"),
        (["a"], {"noise": torch.zeros(2, 8, 8, 8)}, r"noise is \(2, 8, 8, 8\) for 1 prompts"),
        (["a"], {"noise": torch.zeros(1, 4, 8, 8)}, r"noise is \(1, 4, 8, 8\)"),
        (["a"], {"noise": torch.zeros(8, 8, 8)}, r"noise is \(8, 8, 8\)"),
        ([], {"noise": torch.zeros(0, 8, 8, 8)}, "for 0 prompts"),
        (["a"], {"seeds": [1]}, "noise has a size of its own"),
        (["a"], {"height": 64}, "noise has a size of its own"),
        (["a"], {"noise": None}, "1 prompts need as many seeds, or noise; found none"),
        (["a"], {"noise": None, "seeds": [1, 2]}, "found 2 seeds"),
        (["a"], {"noise": None, "seeds": [1], "height": 63}, "multiple of 8 pixels"),
        (["a"], {"guidance": Guidance(pag_scale=1.0, pag_blocks=(7,))}, "pag_blocks has 7"),
        (["a"], {"steps": 0}, "steps must be at least 1"),
        (["a"], {"shift": -1.0}, "shift above 0"),
    ],
)
def test_bad_calls_are_refused(pipeline, prompts, options, message):
    with pytest.raises(ValueError, match=message):
        pipeline(prompts, **({"noise": draw(1), "steps": 1} | options))


def test_values_that_are_not_finite_are_an_error(pipeline):
    with pytest.raises(FloatingPointError, match="not finite"):
        pipeline(["a"], noise=torch.full((1, 8, 8, 8), float("nan")), steps=1)


@pytest.mark.parametrize("tiling", [None, Tiling(tile=32, stride=24)])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_pixels_that_are_not_finite_are_an_error_and_not_black(pipeline, tiling, value, monkeypatch):
    decode = pipeline.autoencoder.decode

    def broken(latents):
        images = decode(latents)
        images[-1, 0, 3, 3] = value
        return images

    monkeypatch.setattr(pipeline.autoencoder, "decode", broken)
    with pytest.raises(
        FloatingPointError, match="the decoder gave values that are not finite in 1 of 2 images"
    ):
        pipeline(["a", "a red circle"], noise=draw(2), steps=1, tiling=tiling)


@torch.no_grad()
def test_guidance_is_the_linear_combination(pipeline):
    """One batch of four against two of two, whose products have other shapes and so round differently.

    In float64 the two differ by 2^-52 times the guidance scale and a hundred roundings, under 1e-12. In float32 the batch of
    four is held to the error of the batches of two.
    """
    model, width = pipeline.transformer, pipeline.transformer.config.caption_channels
    generator = torch.Generator().manual_seed(3)
    prompt, null = (
        TextCondition(torch.randn(2, 5, width, generator=generator), torch.ones(2, 5)) for _ in range(2)
    )
    x = draw(2)

    def combined() -> torch.Tensor:
        conditional = guided_velocity(model, prompt, None, Guidance(scale=1.0))(x, 500.0)
        unconditional = guided_velocity(model, null, None, Guidance(scale=1.0))(x, 500.0)
        assert (conditional - unconditional).abs().max() > 1e-3
        return unconditional + 4.5 * (conditional - unconditional)

    def guided() -> torch.Tensor:
        return guided_velocity(model, prompt, null, Guidance(scale=4.5))(x, 500.0)

    exact = in_float64(combined)
    np.testing.assert_allclose(in_float64(guided), exact, rtol=0, atol=1e-12)
    assert_as_exact(guided(), combined(), exact)


def test_guidance_is_off_at_one():
    assert [Guidance(scale=scale).uses_null for scale in (0.0, 1.0, 1.01, 4.5)] == [False, False, True, True]


def test_a_seed_is_an_image(pipeline):
    prompts = ["a red circle", "two blue squares"]
    images = pipeline(prompts, seeds=[7, 2**40], steps=2)
    assert images.shape == (2, 64, 64, 3)
    again = pipeline(prompts[::-1], seeds=[2**40, 7], steps=2)
    assert torch.equal(images, again.flip(0))
    assert not torch.equal(images, pipeline(prompts, seeds=[8, 9], steps=2))
    assert torch.equal(images, pipeline(prompts, noise=pipeline.draw_noise([7, 2**40], 64, 64), steps=2))
    assert pipeline(["a"], seeds=[1], height=32, width=48, steps=1).shape == (1, 32, 48, 3)


def test_a_single_prompt_is_drawn_for_every_seed(pipeline):
    expected = pipeline(["a red circle"] * 3, seeds=[0, 1, 2], steps=2)
    assert torch.equal(pipeline("a red circle", seeds=[0, 1, 2], steps=2), expected)
    assert torch.equal(
        pipeline("a red circle", noise=pipeline.draw_noise([0, 1, 2], 64, 64), steps=2), expected
    )
    assert pipeline("a red circle", seeds=1, steps=2).shape == (1, 64, 64, 3)
    with pytest.raises(ValueError, match="1 prompts need as many seeds, or noise; found none"):
        pipeline("a red circle", steps=2)


def test_negative_prompts_may_be_one_a_prompt(pipeline):
    prompts = ["a red circle", "two blue squares"]
    together = pipeline(prompts, seeds=[1, 2], steps=2, negative_prompt=["blue", ""])
    for row, negative in enumerate(["blue", ""]):
        alone = pipeline([prompts[row]], seeds=[row + 1], steps=2, negative_prompt=negative)
        # Another batch size sums in another order: one level where a value sits on the edge of rounding.
        assert (together[row].int() - alone[0].int()).abs().max() <= 1
    assert torch.equal(
        pipeline(prompts, seeds=[1, 2], steps=2, negative_prompt=["blue", "blue"]),
        pipeline(prompts, seeds=[1, 2], steps=2, negative_prompt="blue"),
    )
    with pytest.raises(ValueError, match="2 prompts need one negative prompt or as many; found 1"):
        pipeline(prompts, seeds=[1, 2], steps=2, negative_prompt=["blue"])


@pytest.mark.parametrize(("instruction", "places"), [(None, 8), ("a photo of the ", 11)])
def test_prompts_that_are_cut_are_told_once(pipeline, caplog, instruction, places):
    encoder, options = (
        TextEncoder(pipeline.text_encoder.tokenizer, pipeline.text_encoder.model),
        {"max_length": 8},
    )
    words = "a red circle above two blue"
    with caplog.at_level(logging.WARNING):
        encoder.encode([words, "a red circle"], instruction=instruction, **options)
        assert not caplog.records
        for _ in range(2):
            encoder.encode(["a " * 40, words], instruction=instruction, **options)
    (record,) = caplog.records
    # A start token, the instruction's words and forty of the prompt's, for so many places.
    lost = 1 + 40 + (4 if instruction else 0) - places
    shown = ("a " * 40)[:60] + "..."
    assert record.getMessage() == f"prompt cut: its last {lost} tokens are not read: {shown!r}"


def test_a_negative_prompt_replaces_the_empty_one(pipeline):
    plain = pipeline(["a red circle"], seeds=[1], steps=2)
    pushed = pipeline(["a red circle"], seeds=[1], steps=2, negative_prompt="blue")
    assert not torch.equal(plain, pushed)
    unguided = [
        pipeline(["a red circle"], seeds=[1], steps=2, guidance_scale=1.0, negative_prompt=text)
        for text in ("", "blue")
    ]
    assert torch.equal(*unguided)


def test_guidance_acts_strictly_inside_its_interval(pipeline):
    """Network rows tell which branches a step ran; the times of three steps are 998, 748 and 499."""
    rows: list[tuple[int, float]] = []
    hook = pipeline.transformer.register_forward_pre_hook(
        lambda _, inputs: rows.append((len(inputs[0]), float(inputs[1][0])))
    )
    try:
        for interval in ((0.0, 1.0), (0.5, 0.9), (0.748, 0.998)):
            pipeline(["a"], seeds=[1], steps=3, shift=1.5, guidance=Guidance(interval=interval))
    finally:
        hook.remove()
    times = [t for _, t in rows[:3]]
    expected = [
        2 if low < t / 1000 < high else 1
        for low, high in ((0.0, 1.0), (0.5, 0.9), (0.748, 0.998))
        for t in times
    ]
    assert [count for count, _ in rows] == expected
    assert {1, 2} <= set(expected[3:])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"interval": (0.5, 0.5)}, "guidance interval"),
        ({"interval": (-0.1, 0.5)}, "guidance interval"),
        ({"pag_scale": -1.0}, "must be >= 0"),
        ({"pag_scale": 1.0}, "needs pag_blocks"),
    ],
)
def test_absurd_guidance_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Guidance(**settings)


def test_guidance_needs_the_unconditional_text(pipeline):
    condition = TextCondition(torch.zeros(1, 1, 1), torch.ones(1, 1))
    with pytest.raises(ValueError, match="unconditional text"):
        guided_velocity(pipeline.transformer, condition, None, Guidance(scale=2.0))


def test_a_negative_prompt_that_stays_is_encoded_once(tiny_pipeline_dir, monkeypatch):
    pipeline = load_pipeline(tiny_pipeline_dir)
    told = []
    encode = pipeline.text_encoder.encode
    monkeypatch.setattr(
        pipeline.text_encoder,
        "encode",
        lambda texts, **options: told.append(list(texts)) or encode(texts, **options),
    )
    options = {"noise": pipeline.draw_noise([0, 1], 64, 64), "steps": 1}
    images = [pipeline(["a", "b"], negative_prompt=text, **options) for text in ("", "", "c", "")]
    assert told == [["a", "b"], [""], ["a", "b"], ["a", "b"], ["c"], ["a", "b"], [""]]
    assert torch.equal(images[0], images[1])
    assert torch.equal(images[0], images[3])
    assert not torch.equal(images[0], images[2])
    # An encoder in training does not give the same twice.
    next(pipeline.text_encoder.model.parameters()).requires_grad_(True)
    pipeline._negative = None
    del told[:]
    for _ in range(2):
        pipeline(["a", "b"], **options)
    assert told == [["a", "b"], [""]] * 2
