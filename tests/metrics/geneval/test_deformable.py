"""Deformable attention as it runs on a processor: what transformers' own layer gives, gradients and other devices left to it."""

import pytest
import torch
from transformers.models.mask2former import modeling_mask2former as published

from sana_bench.metrics.geneval.deformable import sample_levels, with_our_sampling
from tests.float64 import assert_as_exact, in_float64

SIZES = [(2, 3), (4, 5), (7, 6)]


def _given(n_images: int, width: int = 16) -> dict[str, object]:
    generator = torch.Generator().manual_seed(0)
    n = sum(height * across for height, across in SIZES)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    hidden = draw(n_images, n, width)
    return {
        "hidden_states": hidden,
        "attention_mask": torch.rand(n_images, n, generator=generator) < 0.2,
        "encoder_hidden_states": hidden,
        "encoder_attention_mask": None,
        "position_embeddings": draw(n_images, n, width),
        # Some beyond the edges: they count nothing there.
        "reference_points": torch.rand(n_images, n, len(SIZES), 2, generator=generator) * 1.4 - 0.2,
        "spatial_shapes_list": SIZES,
        "level_start_index": None,
        "output_attentions": False,
    }


def _layer(width: int = 16) -> torch.nn.Module:
    torch.manual_seed(1)
    layer = published.Mask2FormerPixelDecoderEncoderMultiscaleDeformableAttention(width, 4, len(SIZES), 4)
    return layer.eval().requires_grad_(False)


@pytest.mark.parametrize("n_images", [1, 3])
def test_the_layer_gives_what_the_published_one_does(n_images):
    given = _given(n_images)
    theirs, ours = _layer(), with_our_sampling(torch.nn.ModuleList([_layer()]))[0]
    assert type(ours) is not type(theirs)
    with torch.inference_mode():
        expected, weights = theirs(**given)
        found, our_weights = ours(**given)
    exact = in_float64(lambda: theirs.double()(**given)[0])
    theirs.float()
    assert_as_exact(found, expected, exact)
    assert torch.equal(our_weights, weights)


def test_gradients_are_the_published_layers():
    given = _given(1)
    layers = _layer(), with_our_sampling(torch.nn.ModuleList([_layer()]))[0]
    found = []
    for layer in layers:
        layer.requires_grad_(True)
        layer(**given)[0].square().sum().backward()
        found.append(layer.value_proj.weight.grad)
    assert torch.equal(*found)


def test_a_point_between_pixels_is_their_mean_and_zero_beyond_the_edge():
    value = torch.arange(1.0, 7.0).view(1, 6, 1, 1)  # one level of two rows: 1 2 3, 4 5 6
    places = torch.tensor([[0.0, 0.0], [0.5, 0.5], [2.5, 1.0], [-1.0, 0.0], [1.0, -0.25]])
    weights = torch.ones(1, 5, 1, 1, 1)
    found = sample_levels(value, [(2, 3)], places.T.reshape(1, 2, 1, 5, 1, 1), weights)
    assert found.flatten().tolist() == [1.0, 3.0, 3.0, 0.0, 1.5]
