"""The transformer against diffusers on shared random weights.

Tolerance 1e-5 absolute at an output spread near 1: fp32 rounding (6e-8 relative) through some twenty products
of up to 160 terms. Measured on these cases: 1.2e-6. Anything but rounding is far above: see the last test.
"""

import pytest
import torch
from diffusers import SanaTransformer2DModel

from sana_models.transformer import SanaTransformer
from tests.float64 import FLOOR, assert_as_exact, in_float64
from tests.parity.conftest import oracle_arguments
from tests.small_parts import randomise, small_sana

TOLERANCE = 1e-5


def both(**options):
    config = small_sana(**options)
    torch.manual_seed(0)
    theirs = SanaTransformer2DModel(**oracle_arguments(config)).eval()
    randomise(theirs, seed=1)
    ours = SanaTransformer(config).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


def inputs(size: tuple[int, int], tokens: int, lengths: list[int]):
    generator = torch.Generator().manual_seed(7)
    batch = len(lengths)
    latents = torch.randn(batch, 8, *size, generator=generator)
    text = torch.randn(batch, tokens, 24, generator=generator)
    mask = (torch.arange(tokens)[None] < torch.tensor(lengths)[:, None]).float()
    return latents, torch.linspace(3, 999, batch).floor(), text, mask


@torch.no_grad()
def difference(ours, theirs, latents, timestep, text, mask, guidance=None) -> float:
    mine = ours(latents, timestep, text, mask, guidance=guidance)
    told = None if guidance is None else guidance * theirs.config.guidance_embeds_scale
    reference = theirs(
        latents,
        encoder_hidden_states=text,
        timestep=timestep,
        guidance=told,
        encoder_attention_mask=mask,
    ).sample
    assert mine.shape == latents.shape
    assert 0.3 < float(reference.std()) < 10
    return float((mine - reference).abs().max())


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 9)], ids=["square", "odd", "row"])
@pytest.mark.parametrize("lengths", [[300, 300, 300], [1, 1, 1], [300, 17, 1]], ids=["full", "one", "masked"])
def test_equals_diffusers(qk_norm, size, lengths):
    ours, theirs = both(qk_norm=qk_norm)
    assert difference(ours, theirs, *inputs(size, 300, lengths)) <= TOLERANCE


@pytest.mark.parametrize("size", [(8, 8), (6, 10)], ids=["configured", "other"])
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_equals_diffusers_with_position_table(scale, size):
    ours, theirs = both(position_scale=scale)
    assert difference(ours, theirs, *inputs(size, 12, [12, 5])) <= TOLERANCE


def test_equals_diffusers_with_patches_of_two():
    ours, theirs = both(patch_size=2)
    assert difference(ours, theirs, *inputs((8, 6), 9, [9, 4, 1])) <= TOLERANCE


@pytest.mark.parametrize("lengths", [[12, 12], [12, 5]], ids=["full", "masked"])
def test_equals_diffusers_with_an_embedded_guidance_scale(lengths):
    ours, theirs = both(guidance_embeds=True)
    latents, _, text, mask = inputs((8, 6), 12, lengths)
    times, guidance = torch.tensor([0.2, 1.0]), torch.tensor([1.5, 4.5])
    assert difference(ours, theirs, latents, times, text, mask, guidance) <= TOLERANCE
    with torch.no_grad():
        first, second = (
            ours(latents, times, text, mask, guidance=scale) for scale in (guidance, guidance + 1)
        )
    assert float((first - second).abs().max()) > 0.01


def test_a_guidance_scale_is_asked_for_where_it_is_embedded_and_nowhere_else():
    arguments = inputs((4, 4), 6, [6])
    with pytest.raises(ValueError, match="takes no guidance scale"):
        both()[0](*arguments, guidance=torch.tensor([4.5]))
    with pytest.raises(ValueError, match="needs a guidance scale"):
        both(guidance_embeds=True)[0](*arguments)


def test_inputs_that_do_not_fit_are_refused():
    ours, _ = both(patch_size=2)
    latents, timestep, text, mask = inputs((4, 4), 6, [6])
    for bad, message in [
        ((latents[:, :, :3], timestep, text, mask), "height and width must be multiples of 2"),
        ((latents[:, :4], timestep, text, mask), r"expected \(B, 8, h, w\)"),
        ((latents, timestep, text[..., :8], mask), r"expected \(B, T, 24\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            ours(*bad)


def test_text_without_mask_equals_all_ones():
    ours, _ = both()
    latents, timestep, text, mask = inputs((4, 4), 6, [6, 6])
    with torch.no_grad():
        assert torch.equal(ours(latents, timestep, text, None), ours(latents, timestep, text, mask))


def test_masked_tokens_do_not_matter():
    ours, _ = both()
    latents, timestep, text, mask = inputs((4, 4), 6, [4, 2])
    changed = torch.where(mask[..., None] > 0, text, 100.0)
    with torch.no_grad():
        assert torch.equal(ours(latents, timestep, text, mask), ours(latents, timestep, changed, mask))


def test_samples_of_a_batch_are_independent():
    """Products of other shapes round differently: the two are a few roundings apart, and as far from float64.

    1.8 to 3.0 roundings of the largest output were measured with each of torch's vector widths, by one thread and by two, and
    with MKL held to its most compatible code. The 8 that are allowed are 3.8e-6 here.
    """
    ours, _ = both()
    latents, timestep, text, mask = inputs((5, 4), 6, [6, 3, 1])
    with torch.no_grad():
        together = ours(latents, timestep, text, mask)
        alone = torch.cat(
            [
                ours(latents[i : i + 1], timestep[i : i + 1], text[i : i + 1], mask[i : i + 1])
                for i in range(3)
            ]
        )
    assert float((together - alone).abs().max()) <= FLOOR * 2.0**-23 * float(alone.abs().max())
    assert_as_exact(together, alone, in_float64(lambda: ours(latents, timestep, text, mask)))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"attn1.to_q": "attn1.to_k", "attn1.to_k": "attn1.to_q"}, id="query and key"),
        pytest.param({"attn2.to_k": "attn2.to_v", "attn2.to_v": "attn2.to_k"}, id="key and value"),
    ],
)
def test_swapped_weights_are_noticed(change):
    """The tolerance separates: exchanging two matrices of one block changes the output by far more."""
    ours, theirs = both()
    weights = theirs.state_dict()
    moved = {
        f"transformer_blocks.1.{a}.weight": weights[f"transformer_blocks.1.{b}.weight"]
        for a, b in change.items()
    }
    ours.load_state_dict(weights | moved)
    assert difference(ours, theirs, *inputs((4, 4), 9, [9, 4])) > 1000 * TOLERANCE
