"""Compiled steps: as exact as plain ones, every shape by itself, never in silence something else."""

from functools import partial

import pytest
import torch

from sana_models import compilation, load_pipeline
from sana_models.compilation import (
    CompiledTransformer,
    compile_autoencoder,
    compile_transformer,
    refuse_compilation,
)
from sana_models.cuda_graphs import GraphedCalls
from sana_models.dc_ae import DCAE
from tests.float64 import assert_as_exact, in_float64
from tests.small_parts import randomise, small_dc_ae, tiny_inputs, tiny_transformer

PROMPTS = ["a circle", "a photo of a red circle and two blue squares"]


def test_compiled_calls_are_as_exact_as_plain_ones(monkeypatch):
    """And a shape beyond those that are compiled is an error: torch would go on with plain operations in silence."""
    monkeypatch.setattr(compilation, "_MOST_SHAPES", 2)
    network = tiny_transformer(1)
    compiled = compile_transformer(network, "default")
    assert isinstance(compiled, CompiledTransformer)
    # Everything but the call is the network's own.
    assert compiled.config is network.config
    assert compiled.proj_out.weight is network.proj_out.weight
    assert [id(one) for one in compiled.parameters()] == [id(one) for one in network.parameters()]
    with torch.no_grad():
        for batch in (2, 3):
            inputs = tiny_inputs(batch)
            context = compiled.text_context(inputs[2], None)
            plain = network(*inputs[:2], context)
            exact = in_float64(lambda inputs=inputs, context=context: network(*inputs[:2], context))
            assert_as_exact(compiled(*inputs[:2], context), plain, exact)
        with pytest.raises(Exception, match="recompile_limit"):
            compiled(*tiny_inputs(4))


def test_a_decoder_is_compiled_on_a_gpu_alone_and_as_one_graph(monkeypatch):
    """And a shape beyond those that are compiled is an error here too."""
    network = DCAE(small_dc_ae()).eval().requires_grad_(False)
    randomise(network, seed=4, gain=0.7)
    plain = network.decoder.forward
    for compile, device in (("default", "cpu"), ("none", "cuda")):
        assert compile_autoencoder(network, compile, device).decoder.forward == plain
    monkeypatch.setattr(compilation, "_MOST_SHAPES", 1)
    # As on a GPU, with the operations as they are.
    compiler = partial(torch.compile, backend="eager", fullgraph=True)
    monkeypatch.setattr(torch, "compile", compiler)
    names = list(network.state_dict())
    latents = torch.randn(2, 8, 2, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, exact = network.decode(latents), in_float64(lambda: network.decode(latents))
        assert compile_autoencoder(network, "default", "cuda") is network
        assert_as_exact(network.decode(latents), expected, exact)
        with pytest.raises(Exception, match="recompile_limit"):
            network.decode(latents[:1])
    assert list(network.state_dict()) == names


def test_other_networks_of_a_run_take_no_shapes_away(monkeypatch):
    monkeypatch.setattr(compilation, "_MOST_SHAPES", 1)
    inputs = tiny_inputs(2)
    for layers in (1, 1, 2):
        network = tiny_transformer(layers)
        with torch.no_grad():
            compiled = compile_transformer(network, "default")
            exact = in_float64(lambda network=network: network(*inputs))
            assert_as_exact(compiled(*inputs), network(*inputs), exact)


def fake_compile(monkeypatch, make=lambda function: function):
    """What torch.compile is asked for, with `make` in its place."""
    asked = []

    def compile(function, **options):
        asked.append(options)
        return make(function)

    monkeypatch.setattr(torch, "compile", compile)
    return asked


@pytest.mark.parametrize(
    ("compile", "asked_for"),
    [
        ("none", []),
        ("default", [{"dynamic": False}]),
        ("max-autotune", [{"dynamic": False, "mode": "max-autotune-no-cudagraphs"}]),
    ],
)
def test_torch_is_asked_for_its_own_modes(monkeypatch, compile, asked_for):
    """CUDA graphs are ours in each."""
    asked = fake_compile(monkeypatch)
    for graphs in (False, True):
        made = CompiledTransformer(tiny_transformer(1), compile, graphs)
        assert isinstance(made._run, GraphedCalls) == graphs
    assert asked == 2 * asked_for


def test_nothing_is_compiled_unless_asked_for(monkeypatch):
    asked = fake_compile(monkeypatch)
    network = tiny_transformer(1)
    assert compile_transformer(network) is network
    assert asked == []


def test_every_prompt_has_the_same_shapes(monkeypatch, tiny_pipeline_dir):
    shapes = []

    def recorded(function):
        def call(latents, time, context, **options):
            shapes.append((tuple(latents.shape), tuple(context.bias.shape)))
            return function(latents, time, context, **options)

        return call

    fake_compile(monkeypatch, recorded)
    compiled, plain = (load_pipeline(tiny_pipeline_dir, compile=mode) for mode in ("default", "none"))
    images = []
    for prompt in PROMPTS:
        noise = plain.draw_noise([0], 64, 64)
        one = [pipeline([prompt], noise=noise, steps=2, guidance_scale=2.0) for pipeline in (compiled, plain)]
        images.append(one)
    assert len(shapes) == 4
    assert len(set(shapes)) == 1
    assert shapes[0][1][-1] == compiled.max_length
    # Positions that the mask leaves out change nothing but the order of sums: a step of 1 of 255 at most.
    for ours, theirs in images:
        assert (ours.int() - theirs.int()).abs().max() <= 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("fast", False, "cpu"), "compile is 'fast'; allowed: none, default, max-autotune"),
        (("none", True, "cpu"), "cuda_graphs needs a CUDA device, and this one is cpu"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments, told):
    with pytest.raises(ValueError, match=f"^{told}$"):
        refuse_compilation(*arguments)


def test_a_gpu_of_the_first_kind_that_can_is_taken(monkeypatch):
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _: (7, 0))
    for compile in ("none", "default", "max-autotune"):
        refuse_compilation(compile, True, "cuda")


def test_a_network_that_torch_cannot_compile_is_one_line(monkeypatch, tiny_pipeline_dir):
    from torch._dynamo.exc import TorchRuntimeError

    from sana_bench.core.errors import SuiteError
    from sana_bench.generators.base import Request
    from sana_bench.generators.sana import SanaGenerator
    from sana_bench.suites.cells import GeneratorSpec
    from sana_bench.suites.load import load_variant
    from tests import ROOT

    def failing(_):
        def call(*_arguments, **_options):
            raise TorchRuntimeError("no such kernel\nand a long story")

        return call

    fake_compile(monkeypatch, failing)
    variant = load_variant(ROOT / "suites" / "variants" / "sana-micro.yaml")
    spec = GeneratorSpec(variant.model_copy(update={"compile": "default"}), tiny_pipeline_dir, "compiled")
    with pytest.raises(SuiteError, match=r"torch cannot compile its networks here: no such kernel$"):
        SanaGenerator(spec, "cpu").generate([Request("a circle", 0)])
