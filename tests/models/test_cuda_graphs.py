"""Recorded calls, on a stand-in for CUDA graphs that repeats the operations of a recording on the memory it was made with."""

from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sana_models import load_pipeline
from sana_models.compilation import CompiledTransformer
from sana_models.cuda_graphs import GraphedCalls
from tests.small_parts import tiny_inputs, tiny_transformer

PROMPTS = ["a circle", "a photo of a red circle and two blue squares"]


class Recording:
    """What `torch.cuda.CUDAGraph` does, seen from outside: nothing but memory counts, neither arguments nor results."""

    made = 0

    def __init__(self):
        self.operations = []
        Recording.made += 1

    def replay(self):
        for operation, arguments, options, results in self.operations:
            found = operation(*arguments, **options)
            pairs = zip(results, found) if isinstance(found, tuple | list) else [(results, found)]
            for kept, new in pairs:
                if isinstance(new, torch.Tensor):
                    kept.copy_(new)


class Watched(TorchDispatchMode):
    def __init__(self, recording):
        super().__init__()
        self.recording = recording

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        results = operation(*arguments, **(options or {}))
        self.recording.operations.append((operation, arguments, options or {}, results))
        return results


class Stream:
    def wait_stream(self, other):
        pass


@pytest.fixture
def cuda(monkeypatch):
    """CUDA's graphs and streams on a processor."""
    pools = []

    @contextmanager
    def graph(recording, pool):
        pools.append(pool)
        with Watched(recording):
            yield

    monkeypatch.setattr(Recording, "made", 0)
    fakes = {
        "CUDAGraph": Recording, "graph": graph, "Stream": Stream, "current_stream": Stream,
        "stream": lambda stream: nullcontext(), "device": lambda device: nullcontext(),
        "graph_pool_handle": lambda: object(),
    }  # fmt: skip
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    return pools


@torch.inference_mode()
def test_every_shape_is_recorded_once_and_repeated_on_other_values(cuda):
    network = tiny_transformer(1)
    calls = GraphedCalls(network.forward)
    for batch in (2, 3, 2, 3):
        latents, time, text = tiny_inputs(batch)
        for seed in range(2):
            latents = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))
            context = network.text_context(text * (1 + seed), None)
            assert torch.equal(calls(latents, time, context), network(latents, time, context))
    assert Recording.made == 2
    # Recordings run one after the other, in the same memory.
    assert len(set(map(id, cuda))) == 1


@torch.inference_mode()
def test_what_is_no_tensor_has_a_recording_of_its_own(cuda):
    network = tiny_transformer(2)
    calls = GraphedCalls(network.forward)
    latents, time, text = tiny_inputs(3)
    context = network.text_context(text, None)
    for options in (
        {},
        {"identity_rows": 1, "identity_blocks": (1,)},
        {"identity_rows": 1, "identity_blocks": (0,)},
    ):
        expected = network(latents, time, context, **options)
        assert torch.equal(calls(latents, time, context, **options), expected)
    assert Recording.made == 3


@torch.inference_mode()
def test_a_context_is_copied_when_another_one_comes_and_latents_always(cuda, monkeypatch):
    network = tiny_transformer(1)
    calls = GraphedCalls(network.forward)
    latents, time, text = tiny_inputs(2)
    first, second = (network.text_context(scale * text, None) for scale in (1, 2))
    copied = []
    copy = torch._foreach_copy_
    monkeypatch.setattr(torch, "_foreach_copy_", lambda to, of: copied.append(len(of)) or copy(to, of))
    whole = 2 * len(network.transformer_blocks) + 1
    for context in (first, first, second, first):
        # A solver may write its state in place.
        latents.mul_(0.5)
        assert torch.equal(calls(latents, time, context), network(latents, time, context))
    assert copied == [whole, whole, whole]


def test_results_are_kept_where_the_next_call_does_not_write(cuda, tiny_pipeline_dir):
    """A recording gives each result in the same memory; the solver of second order looks at the one before."""
    plain, graphs = load_pipeline(tiny_pipeline_dir), load_pipeline(tiny_pipeline_dir)
    plain.whole_text = graphs.whole_text = True
    graphs.transformer = CompiledTransformer(graphs.transformer, "none", True)
    noise = plain.draw_noise([0, 1], 64, 64)
    options = {"noise": noise, "steps": 4, "guidance_scale": 2.0}
    for prompts in (PROMPTS, PROMPTS[::-1]):
        assert torch.equal(graphs(prompts, **options), plain(prompts, **options))
    assert Recording.made == 1
