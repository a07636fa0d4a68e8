"""The generator that draws what prompts ask for: its images, and what it refuses."""

import numpy as np
import pytest

from sana_bench.cli.main import execute
from sana_bench.core.errors import SampleError, SuiteError
from sana_bench.generators import find
from sana_bench.generators.base import Request
from sana_bench.generators.rendered import RenderedGenerator
from sana_bench.micro.rendered import draw
from sana_bench.suites.cells import GeneratorSpec
from sana_bench.suites.schema import Variant


def variant(**changes) -> Variant:
    model = {"weights": "none", "height": 64, "width": 64} | changes.pop("model", {})
    return Variant(**{"name": "drawn", "tier": "micro", "generator": "rendered", "model": model} | changes)


def spec(tmp_path, **changes) -> GeneratorSpec:
    return GeneratorSpec(variant(**changes), tmp_path, "")


def test_images_are_drawn_by_prompt_and_seed(tmp_path):
    requests = [Request("a photo of a ring", 4), Request("a photo of two hearts", 5)]
    found = RenderedGenerator(spec(tmp_path)).generate(requests)
    expected = [draw(request.prompt, request.noise_seed).image for request in requests]
    np.testing.assert_array_equal(found, expected)


def test_a_prompt_of_another_world_is_a_failed_sample(tmp_path):
    with pytest.raises(SampleError, match="the renderer: 'a dog' names no shapes of the micro world"):
        RenderedGenerator(spec(tmp_path)).generate([Request("a photo of a dog", 0)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"weights": "./x"}}, "is of tier micro, with weights: none"),
        ({"tier": "full"}, "is of tier micro"),
        ({"model": {"instruction": "sana"}}, "takes no sampler or instruction"),
        ({"sampler": {"name": "flow_euler", "steps": 2, "guidance_scale": 2.0}}, "takes no sampler"),
        ({"quantization": "int8"}, "belongs to generator sana"),
    ],
)
def test_settings_that_drawing_has_no_use_for_are_refused(tmp_path, changes, message):
    with pytest.raises(SuiteError, match=message):
        find(variant(**changes), tmp_path)


def test_it_needs_no_weights_and_the_micro_worlds_size(tmp_path):
    assert find(variant(), tmp_path) is None
    with pytest.raises(SuiteError, match="draws 64x64 pixels"):
        RenderedGenerator(spec(tmp_path, model={"height": 128}))


def test_the_shipped_variant_is_valid(tmp_path, capsys):
    suite = tmp_path / "s.yaml"
    suite.write_text(
        "schema_version: 1\nname: s\nbenchmarks: [{name: geneval, metrics: [geneval]}]\n"
        "variants: {micro: [micro-rendered]}\n"
    )
    assert execute(["validate", str(suite)]) == 0, capsys.readouterr().err
